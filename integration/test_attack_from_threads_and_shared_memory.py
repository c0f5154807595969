"""Whoever of a process calls, the exec is decided, and its record names process, thread, parent and real UID."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from compiled import compile_program
from trap_harness import UID, Outcome, Request, deny, every_reader, needs_root, run, shared_directory

pytestmark = needs_root

EPERM = 1
WAYS = ("thread", "vfork", "vm", "spawn", "thread-vfork", "thread-vm", "thread-spawn")


@pytest.fixture(scope="module")
def files() -> Iterator[Path]:
    with shared_directory() as directory:
        compile_program("callers.c", directory / "callers")
        yield directory


def called(files: Path, who: str, path: str, *, sys_ptrace: bool) -> tuple[list[int], Outcome]:
    argv = [f"{files}/callers", who, path]
    outcome = run(Request(argv=argv, rules=[deny("/usr/bin/false")], trees=[str(files)], sys_ptrace=sys_ptrace))
    assert outcome.reply.troubles == []
    return outcome.said[0], outcome


@every_reader
@pytest.mark.parametrize("who", WAYS)
def test_a_denied_exec_is_refused_and_an_allowed_one_runs_and_both_name_who_called(
    files: Path, who: str, sys_ptrace: bool
) -> None:
    (parent, process, thread, code, error), outcome = called(files, who, "/usr/bin/true", sys_ptrace=sys_ptrace)
    assert (code, error) == (0, 0)
    allowed = outcome.allowed[-1]
    assert allowed.command_args == ["called"]
    assert (allowed.process_pid, allowed.process_parent_pid, allowed.user_id) == (process, parent, UID)
    assert allowed.thread_id == (thread or process)
    assert (allowed.thread_id != allowed.process_pid) == (who == "thread")
    (parent, process, thread, code, error), outcome = called(files, who, "/usr/bin/false", sys_ptrace=sys_ptrace)
    assert error == EPERM
    (denied,) = outcome.denied
    # Of a child that never became a program, posix_spawn(3) does not say the number.
    assert (denied.process_parent_pid, denied.user_id) == (parent, UID)
    if thread:
        assert (denied.process_pid, denied.thread_id) == (process, thread)
    else:
        assert denied.process_pid == denied.thread_id != parent
