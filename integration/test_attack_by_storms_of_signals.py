"""Signals that come 10,000 times a second, as Go sends them, neither lose nor double nor wrongly deny an exec.

What makes the difference is SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: once the trap has received an exec, only death
interrupts it. Before that, a handler without SA_RESTART does, as it does any system call: EINTR, and no record.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from codingagents.trust.events import ExecAllowed, ExecDenied
from compiled import compile_program
from trap_harness import UID, Request, deny, every_reader, needs_root, run, shared_directory

pytestmark = needs_root

TRIES = 1000
EPERM, EINTR, ENOEXEC, EACCES = 1, 4, 8, 13
DENIED = "/usr/bin/false"


@pytest.fixture(scope="module")
def files() -> Iterator[Path]:
    with shared_directory() as directory:
        compile_program("stormer.c", directory / "stormer")
        (directory / "empty").touch(0o755)  # allowed, and no program
        yield directory


def storm(files: Path, what: str, path: str, *, restart: bool, sys_ptrace: bool) -> tuple[dict[int, int], list[type]]:
    """Return how often which answer came to `TRIES` execs of `path`, and the records of it."""
    argv = [f"{files}/stormer", what, str(int(restart)), path, str(TRIES)]
    outcome = run(Request(argv=argv, rules=[deny(DENIED)], trees=[str(files)], sys_ptrace=sys_ptrace))
    *pairs, signals = outcome.said[0]
    assert signals > TRIES / 10, "it was no storm"
    assert outcome.reply.troubles == []
    outcome.verify()
    execs = [event for event in outcome.events if isinstance(event, ExecAllowed | ExecDenied)]
    ours = [event for event in execs if event.command_args == ["storm"]]
    assert {event.user_id for event in ours} == {UID}
    return dict(pairs), [type(event) for event in ours]


@every_reader
def test_each_exec_is_denied_once(files: Path, sys_ptrace: bool) -> None:
    answers, records = storm(files, "refused", DENIED, restart=True, sys_ptrace=sys_ptrace)
    assert answers == {EPERM: TRIES}
    assert records == [ExecDenied] * TRIES


@every_reader
def test_each_exec_is_let_through_once(files: Path, sys_ptrace: bool) -> None:
    """The kernel takes it from there: it finds no program, so that the storm goes on in the same process."""
    answers, records = storm(files, "refused", f"{files}/empty", restart=True, sys_ptrace=sys_ptrace)
    assert answers == {ENOEXEC: TRIES}
    assert records == [ExecAllowed] * TRIES


@every_reader
def test_each_program_runs_once(files: Path, sys_ptrace: bool) -> None:
    answers, records = storm(files, "spawned", "/usr/bin/true", restart=True, sys_ptrace=sys_ptrace)
    assert answers == {0: TRIES}
    assert records == [ExecAllowed] * TRIES


@every_reader
def test_without_sa_restart_an_exec_is_interrupted_or_denied_and_recorded_only_then(
    files: Path, sys_ptrace: bool
) -> None:
    answers, records = storm(files, "refused", DENIED, restart=False, sys_ptrace=sys_ptrace)
    assert set(answers) <= {EPERM, EINTR}
    assert sum(answers.values()) == TRIES
    assert records == [ExecDenied] * answers[EPERM]


def by_itself(files: Path, *words: str) -> tuple[dict[int, int], int]:
    done = subprocess.run([files / "stormer", *words], stdout=subprocess.PIPE, check=True, timeout=60)
    *pairs, last = json.loads(done.stdout)
    return dict(pairs), last


def test_the_storm_interrupts_what_can_be_interrupted(files: Path) -> None:
    """The control: a sleep; and an exec behind another's listener, without the flag and with it."""
    slept, _ = by_itself(files, "slept", "1", "-", "500")
    assert slept[EINTR] > 400
    without, _ = by_itself(files, "own", "0", DENIED, "500")
    assert without[EINTR] > 400
    answers, received = by_itself(files, "own", "1", DENIED, "500")
    assert answers[EACCES] == received, "each that was received got its answer"
    assert answers[EACCES] > without.get(EACCES, 0) + 300
