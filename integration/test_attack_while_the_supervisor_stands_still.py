"""Execs that nobody answers: of a supervisor that is stopped, killed or out of descriptors nothing is ever let through.

A program is asked for while the supervisor cannot answer, and leaves a file where it ran. The control of each is the
supervisor that goes on, where every one of the same execs leaves its file.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trap_harness import PATIENCE, UID, Outcome, Request, Run, every_reader, needs_root, python, shared_directory, start

pytestmark = needs_root

PENDING = 20
_EXECVE = {"x86_64": "59", "aarch64": "221"}[os.uname().machine]

# Forks processes that each exec touch(1), in sessions of their own: none dies because its parent does.
MANY = """
    say("up")
    sys.stdin.readline()
    pids = []
    for number in range(int(sys.argv[2])):
        pid = os.fork()
        if pid == 0:
            os.setsid()
            try:
                os.execve("/usr/bin/touch", ["touch", f"{sys.argv[1]}/ran-{number}"], {})
            except OSError as error:
                with open(f"{sys.argv[1]}/{errno.errorcode[error.errno]}-{number}", "w"):
                    os._exit(1)
        pids.append(pid)
    say([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
"""


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


def of_the_role() -> list[Path]:
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdecimal() and process.stat().st_uid == UID:
                found.append(process)
    return found


def pending() -> int:
    """Count the role's processes that are in the middle of an execve."""
    count = 0
    for process in of_the_role():
        with contextlib.suppress(OSError):
            count += process.joinpath("syscall").read_text().split()[0] == _EXECVE
    return count


def ran(files: Path) -> list[str]:
    return sorted(path.name for path in files.iterdir() if path.name.startswith("ran-"))


@contextlib.contextmanager
def execs_that_wait(files: Path, *, pid1: bool = False, sys_ptrace: bool = True) -> Iterator[Run]:
    """Stop the supervisor, and have `PENDING` execs wait for it."""
    files.chmod(0o777)
    request = Request(argv=python(MANY, str(files), str(PENDING)), sys_ptrace=sys_ptrace, pid1=pid1)
    with start(request) as running:
        assert running.hear() == '"up"'
        os.kill(running.supervisor(), signal.SIGSTOP)
        running.say("go")
        wait_until(lambda: pending() == PENDING, "the execs")
        yield running


@every_reader
@pytest.mark.parametrize("pid1", [True, False], ids=["pid1", "subreaper"])
def test_nothing_runs_while_the_supervisor_is_stopped_and_everything_once_it_goes_on(
    pid1: bool, sys_ptrace: bool
) -> None:
    with shared_directory() as files, execs_that_wait(files, pid1=pid1, sys_ptrace=sys_ptrace) as running:
        time.sleep(0.5)  # what would slip through needs no longer: without a trap a spawn takes a millisecond
        assert (ran(files), pending()) == ([], PENDING)
        os.kill(running.supervisor(), signal.SIGCONT)
        outcome = running.finish()
        assert outcome.said[-1] == [0] * PENDING
        assert len(ran(files)) == PENDING
        assert [event.command_args[0] for event in outcome.allowed].count("touch") == PENDING


@every_reader
@pytest.mark.parametrize("pid1", [True, False], ids=["pid1", "subreaper"])
def test_nothing_that_waited_runs_when_the_supervisor_is_killed(pid1: bool, sys_ptrace: bool) -> None:
    """Who waited gets ENOSYS; of PID 1's namespace the kernel ends most before they could say so."""
    with shared_directory() as files:
        with execs_that_wait(files, pid1=pid1, sys_ptrace=sys_ptrace) as running:
            os.kill(running.supervisor(), signal.SIGKILL)
            wait_until(lambda: not of_the_role(), "the end of the tree")
            left = sorted(path.name for path in files.iterdir())
        assert ran(files) == []
        refused = {f"ENOSYS-{number}" for number in range(PENDING)}
        assert set(left) <= refused if pid1 else set(left) == refused


TWICE = """
    def act():
        return outcome(lambda: os.execve("/usr/bin/true", ["counted"], {}))
    say("up")
    for _ in range(2):
        sys.stdin.readline()
        say([act() for _ in range(20)])
"""


def with_descriptors(limit: int, answers: list[str], *, sys_ptrace: bool) -> Outcome:
    """Exec twice twenty times, first while the supervisor may have `limit` descriptors, then as before."""
    with start(Request(argv=python(TWICE), sys_ptrace=sys_ptrace)) as running:
        assert running.hear() == '"up"'
        before = resource.prlimit(running.supervisor(), resource.RLIMIT_NOFILE)
        resource.prlimit(running.supervisor(), resource.RLIMIT_NOFILE, (limit, before[1]))
        running.say("without")
        assert json.loads(running.hear()) == answers
        resource.prlimit(running.supervisor(), resource.RLIMIT_NOFILE, before)
        running.say("with")
        return running.finish()


@every_reader
def test_a_supervisor_that_cannot_open_anything_refuses_and_serves_again_once_it_can(sys_ptrace: bool) -> None:
    outcome = with_descriptors(1, ["EPERM"] * 20, sys_ptrace=sys_ptrace)
    assert outcome.said == [[0] * 20]
    assert len(outcome.denied) == 20
    assert {event.reason for event in outcome.denied} == {"unreadable: Too many open files"}


@every_reader
def test_when_the_traps_thread_ends_nothing_runs_any_more(sys_ptrace: bool) -> None:
    """With a limit of none, poll(2) is EINVAL, which it does not survive: the first is denied still."""
    outcome = with_descriptors(0, ["EPERM"] + ["ENOSYS"] * 19, sys_ptrace=sys_ptrace)
    assert outcome.said == [["ENOSYS"] * 20]
    (trouble,) = outcome.reply.troubles
    assert trouble.startswith("the exec trap ended; every further exec is refused: ")
