"""A task with a pseudo-terminal of its own: its client is given the master, and nobody else has one."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import termios
from collections.abc import Iterator

import pytest

import task_rig as rig
from codingagents.supervisor.task_spec import TaskFailed
from task_rig import Exited, Task, Tasks

pytestmark = rig.needs_root


@pytest.fixture(scope="module", params=rig.MODES.values(), ids=list(rig.MODES))
def tasks(request: pytest.FixtureRequest) -> Iterator[Tasks]:
    with rig.start(prefix=request.param) as made:
        yield made


def in_terminal(tasks: Tasks, script: str) -> tuple[Task, int]:
    """Return a task and the master that its client was sent."""
    client, theirs = socket.socketpair()
    client.settimeout(rig.PATIENCE)
    with client, theirs:
        spec = rig.spec(["/bin/sh", "-c", script], terminal=True, rows=33, columns=111)
        task = tasks.make(spec, [theirs.fileno()])
        line, descriptors, _, _ = socket.recv_fds(client, 100, 1)
    assert line == b"terminal\n"
    return task, descriptors[0]


def shown(master: int) -> str:
    """Return all that is written until the last of the task is gone."""
    data = bytearray()
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # EIO: nobody has the other end
            return data.decode().replace("\r\n", "\n")
        data += piece


def test_it_controls_a_terminal_of_its_own_size(tasks: Tasks) -> None:
    look = "stty size; tty >/dev/null && echo a terminal; ps -o tpgid= -p $$ | grep -qw $$ && echo in the foreground"
    task, master = in_terminal(tasks, f"{look}; ls -l /proc/self/fd | grep -c dev/pts")
    assert shown(master) == "33 111\na terminal\nin the foreground\n2\n"  # the third is the pipe
    assert task.wait() == Exited(0)
    task.over()
    os.close(master)


def test_a_typed_interrupt_and_a_new_size_reach_it(tasks: Tasks) -> None:
    script = "trap 'stty size' WINCH; trap 'echo interrupted; exit 4' INT; echo up; while :; do read x; done"
    task, master = in_terminal(tasks, script)
    seen = b""
    while b"up\r\n" not in seen:
        seen += os.read(master, 100)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 60, 0, 0))
    os.write(master, b"\n")
    while b"50 60" not in seen:
        seen += os.read(master, 100)
    os.write(master, b"\x03")
    assert "interrupted" in shown(master)
    assert task.wait() == Exited(4)
    os.close(master)


def test_a_client_that_hangs_up_ends_it(tasks: Tasks) -> None:
    task, master = in_terminal(tasks, "exec sleep 1000")
    task.runs()
    os.close(master)
    assert task.wait() == Exited(signal=signal.SIGHUP)
    task.over()


def test_a_client_that_is_gone_gets_no_task(tasks: Tasks) -> None:
    client, theirs = socket.socketpair()
    client.close()
    with theirs:
        task = tasks.make(rig.spec(["/bin/true"], terminal=True), [theirs.fileno()])
        assert task.failed() == TaskFailed(step="terminal", errno="EPIPE", code=125)
