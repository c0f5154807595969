"""Walks find real processes and hold them; that all of a session is found is for integration to show."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from codingagents.supervisor import proc_walk


@pytest.fixture
def below() -> Iterator[subprocess.Popen[bytes]]:
    """A child and a grandchild that do nothing; the child says when both are there, and waits to be told to end."""
    script = (
        "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); input(); p.kill()"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process
        process.communicate(b"\n")


def held(pidfd: int) -> int:
    """Close a pidfd and return which process it held."""
    text = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    os.close(pidfd)
    return int(dict(line.split(":\t", 1) for line in text.splitlines())["Pid"])


def test_descendants_are_found_at_every_depth(below: subprocess.Popen[bytes]) -> None:
    assert below.stdout is not None
    grandchild = int(below.stdout.readline())
    found = set(map(held, proc_walk.descendants()))
    assert {below.pid, grandchild} <= found
    assert not {os.getpid(), os.getppid()} & found


def test_processes_are_found_by_their_real_uid(below: subprocess.Popen[bytes]) -> None:
    assert {os.getpid(), below.pid} <= set(map(held, proc_walk.of_users({os.getuid()})))
    assert not {os.getpid(), below.pid} & set(map(held, proc_walk.of_users({os.getuid() + 1})))


def test_a_zombie_is_no_users_process(below: subprocess.Popen[bytes]) -> None:
    """It has ended: whoever waits for a UID's last process must not wait for its parent to reap it."""
    assert below.stdout is not None
    grandchild = int(below.stdout.readline())
    os.kill(grandchild, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while "State:\tZ" not in Path(f"/proc/{grandchild}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert grandchild not in set(map(held, proc_walk.of_users({os.getuid()})))
    assert grandchild in set(map(held, proc_walk.descendants())), "the control: it is there to be found"


def test_a_process_whose_main_thread_ended_is_a_users_process_still() -> None:
    """Its state says zombie; taken for one, no walk would signal it, and no session wait for it."""
    script = (
        "import ctypes, os, threading; threading.Thread(target=lambda: os.read(0, 1)).start();"
        "ctypes.CDLL(None).syscall({'x86_64': 60, 'aarch64': 93}[os.uname().machine], 0)"  # its thread's exit
    )
    with subprocess.Popen([sys.executable, "-I", "-c", script], stdin=subprocess.PIPE) as process:
        deadline = time.monotonic() + 5
        while "State:\tZ" not in Path(f"/proc/{process.pid}/status").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert process.pid in set(map(held, proc_walk.of_users({os.getuid()})))
        process.kill()
    assert process.returncode == -signal.SIGKILL, "the control: it ran until it was killed"
