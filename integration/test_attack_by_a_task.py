"""A task against its keeper, the task parent, the supervisor and its own end; each attack with its control."""

from __future__ import annotations

import json
import os
import signal
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import task_rig as rig
from codingagents.rewrite.specs import RoleLimits
from codingagents.supervisor import proc_walk
from codingagents.supervisor.task_spec import TaskOver
from task_rig import Exited, Request, Task, Tasks

pytestmark = rig.needs_root
PYTHON = "/usr/bin/python3"
REFUSED = {"EPERM", "EACCES", "ESRCH", "ENOENT"}
_PRELUDE = """
import ctypes, errno, fcntl, json, os, signal, sys, termios, time
libc = ctypes.CDLL(None, use_errno=True)

def attempt(act, *arguments):
    try:
        act(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "succeeded"

def on(pid):
    return {
        "kill": attempt(os.kill, pid, 0),
        "memory": attempt(open, f"/proc/{pid}/mem", "rb"),
        "descriptors": attempt(os.listdir, f"/proc/{pid}/fd"),
        "environment": attempt(lambda: open(f"/proc/{pid}/environ").read()),
        "root": attempt(os.listdir, f"/proc/{pid}/root/"),
        "pidfd": attempt(lambda: signal.pidfd_send_signal(os.pidfd_open(pid), 0)),
    }
"""


@pytest.fixture(scope="module", params=rig.MODES.values(), ids=list(rig.MODES))
def tasks(request: pytest.FixtureRequest) -> Iterator[Tasks]:
    with rig.start(Request(limits=RoleLimits(processes=400)), request.param) as made:
        yield made


def python(tasks: Tasks, script: str, *arguments: str, **options: Any) -> Task:
    argv: list[str | bytes] = [PYTHON, "-I", "-c", _PRELUDE + textwrap.dedent(script), *arguments]
    return tasks.run(argv, **options)


def said(task: Task) -> Any:
    text = task.output().decode()
    assert task.wait() == Exited(0), text
    return json.loads(text)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def of_tasks() -> list[int]:
    """Return every process of the tasks' UID, held for a moment."""
    found = []
    for pidfd in proc_walk.of_users([rig.UID]):
        found.append(proc_walk.pid_of(pidfd))
        os.close(pidfd)
    return found


def wait_until_left(*pids: int) -> None:
    """Return once these are all: what is killed closes its files before it is gone."""
    for _ in range(int(rig.PATIENCE / 0.02)):
        if of_tasks() == [*pids]:
            return
        time.sleep(0.02)
    raise AssertionError(f"left: {of_tasks()}, not {pids}")


def test_it_reaches_neither_its_keeper_nor_the_task_parent_nor_the_supervisor(tasks: Tasks) -> None:
    """By the numbers that they have outside, and inside; the control is another task."""
    other = tasks.run(["/bin/sleep", "1000"]).runs()
    inside = int(
        next(line for line in Path(f"/proc/{other.pid}/status").read_text().splitlines() if "NSpid" in line).split()[-1]
    )
    outside = [parent_of(other.pid), tasks.made.parent, tasks.process.pid]
    script = "print(json.dumps([on(int(pid)) for pid in sys.argv[1:]] + [on(os.getppid()), on(1)]))"
    control, *attacks = said(python(tasks, script, str(inside), *map(str, outside)))
    assert set(control.values()) == {"succeeded"}
    for attack in attacks:
        assert set(attack.values()) <= REFUSED, attack
    other.kill()
    other.over()


@pytest.mark.parametrize(
    "script",
    [
        "(setsid sh -c '(setsid sleep 1000 &) ; echo up' &) ; read x </dev/null; exec sleep 1000",
        "trap '' HUP INT TERM USR1; echo up; while :; do sleep 1000; done",
        "echo up; kill -STOP $$",
        "setsid sh -c 'kill -STOP $$' & setsid sh -c 'sleep 1000 & kill -STOP $!; wait' & echo up; wait",
    ],
    ids=["double fork", "ignores signals", "stops itself", "stopped children"],
)
@pytest.mark.parametrize("how", ["kill", "EOF"])
def test_it_does_not_outlive_its_end(tasks: Tasks, script: str, how: str) -> None:
    """The control is that it is there until then, whatever it was sent."""
    task = tasks.sh(script).runs()
    assert task.line() == "up\n"
    task.signal(signal.SIGHUP) if "trap" in script else None
    assert of_tasks()
    if how == "kill":
        task.kill()
    else:
        task.channel.shutdown(1)
    task.over()
    wait_until_left()


def test_a_fork_storm_ends_with_its_task(tasks: Tasks) -> None:
    """Each makes a child and ends, in sessions of their own, and wakes all that is stopped."""
    script = """
        print("up", flush=True)
        while True:
            try:
                if os.fork() and os.fork():
                    attempt(os.kill, -1, signal.SIGCONT)
                    os._exit(0)
                os.setsid()
            except OSError:
                pass
    """
    other = tasks.run(["/bin/sleep", "1000"]).runs()
    task = python(tasks, script, limits=RoleLimits(processes=100)).runs()
    assert task.line() == "up\n"
    task.kill()
    task.over()
    assert of_tasks() == [other.pid], "the other task lives"
    other.kill()
    other.over()


def test_a_task_that_kills_all_it_can_leaves_every_keeper(tasks: Tasks) -> None:
    """The control is the other task, which is within its reach."""
    other = tasks.run(["/bin/sleep", "1000"]).runs()
    task = python(tasks, "os.kill(-1, signal.SIGKILL)")
    task.until_eof()
    assert other.wait() == Exited(signal=signal.SIGKILL)
    other.over()
    assert tasks.run(["/bin/true"]).wait() == Exited(0), "and tasks can be made"


def test_what_a_killed_keeper_leaves_is_killed_too_and_no_other_task(tasks: Tasks) -> None:
    """By root; the end is told by EOF alone."""
    other = tasks.run(["/bin/sleep", "1000"]).runs()
    task = tasks.sh("trap '' TERM; setsid sleep 1000 & echo up; wait").runs()
    assert task.line() == "up\n"
    os.kill(parent_of(task.pid), signal.SIGKILL)
    assert not any(isinstance(report, TaskOver) for report in task.until_eof())
    assert task.output() == b"", "the last of them is gone"
    wait_until_left(other.pid)
    other.kill()
    other.over()


def test_what_the_filter_refuses_is_refused_to_tasks() -> None:
    """The control is a sandbox without it."""
    script = """
        print(json.dumps([
            attempt(fcntl.ioctl, os.open("/dev/null", os.O_RDONLY), termios.TIOCSTI, b"x"),
            "succeeded" if libc.unshare(0x10000000) == 0 else errno.errorcode[ctypes.get_errno()],
        ]))
    """
    with rig.start() as tasks:
        assert said(python(tasks, script)) == ["EPERM", "EPERM"]
    with rig.start(Request(layers_off=["seccomp_static", "userns"])) as tasks:
        assert said(python(tasks, script)) == ["ENOTTY", "succeeded"]
