"""What is said where no group can be made; that one bounds is an integration test's matter, and root's."""

import os
import time
from pathlib import Path

import pytest

from codingagents.rewrite.specs import TaskTotals
from codingagents.supervisor import cgroups
from codingagents.supervisor.cgroups import TaskGroup

BOTH = TaskTotals(memory=64 * 1024 * 1024, processes=40)


class Machine:
    """A control group hierarchy of version 2 in ordinary files, and what /proc says of it."""

    def __init__(self, folder: Path) -> None:
        self.tree, self.proc = folder / "cgroup", folder / "proc"
        self.tree.mkdir()
        self.proc.mkdir()
        (self.proc / "cgroup").write_text("0::/\n")
        (self.proc / "mountinfo").write_text(f"1 1 0:1 / {self.tree} rw - cgroup2 cgroup2 rw\n")

    def group(self, totals: TaskTotals = BOTH) -> TaskGroup:
        return TaskGroup("coding-agents-tasks-x", totals, proc=str(self.proc))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_nothing_is_made_where_nothing_is_to_be_bounded(machine: Machine) -> None:
    group = machine.group(TaskTotals())
    assert group.take(os.getpid()) == ("", True)
    assert list(machine.tree.iterdir()) == []
    assert group.remove() == ""


def test_what_was_written_is_read_back(machine: Machine) -> None:
    """In files that take everything; one that another process is in was not moved to."""
    group = machine.tree / "coding-agents-tasks-x"
    group.mkdir()
    for name in ("memory.max", "memory.swap.max", "pids.max", "cgroup.procs"):
        (group / name).touch()
    said, held = machine.group().take(os.getpid())
    assert (said, held) == (f"memory {BOTH.memory} (cgroup v2); pids 40 (cgroup v2)", True)
    assert (group / "memory.swap.max").read_text() == "0"
    (group / "memory.swap.max").unlink()  # a kernel that counts no swap
    assert machine.group().take(os.getpid())[1]
    (group / "cgroup.procs").unlink()
    (group / "cgroup.procs").symlink_to("/dev/null")
    assert machine.group(TaskTotals(processes=40)).take(os.getpid()) == (
        "pids not delegated: the process was not moved",
        False,
    )
    (group / "pids.max").unlink()
    (group / "pids.max").symlink_to("/dev/full")
    assert machine.group(TaskTotals(processes=40)).take(os.getpid())[0] == (
        f"pids not delegated: {group}/pids.max: ENOSPC"
    )


def test_room_is_made_by_the_first_process_of_a_container_only(machine: Machine) -> None:
    """What is in the group is written to the one that it goes to, and then the controller handed on."""
    for name in ("cgroup.type", "cgroup.subtree_control"):
        (machine.tree / name).touch()
    (machine.tree / "cgroup.procs").write_text("7\n8\n")
    (machine.tree / cgroups._LEAF).mkdir()
    leaf = machine.tree / cgroups._LEAF / "cgroup.procs"
    leaf.touch()
    machine.group(TaskTotals(processes=40)).take(os.getpid())
    assert leaf.read_text() == ""
    group = machine.group(TaskTotals(processes=40))
    group.is_pid1 = True
    assert not group.take(os.getpid())[1]  # no kernel made the files
    assert leaf.read_text() == "8"
    assert (machine.tree / "cgroup.subtree_control").read_text() == "+pids"


def test_a_group_that_has_no_controller_is_none(machine: Machine) -> None:
    group = machine.group()
    said, held = group.take(os.getpid())
    assert not held
    has_not = f"{machine.tree}/cgroup.subtree_control has it not"
    assert said == f"memory not delegated: {has_not}; pids not delegated: {has_not}"
    assert group.remove() == ""
    assert list(machine.tree.iterdir()) == []


def test_what_cannot_be_read_or_made_is_said_with_its_errno(machine: Machine) -> None:
    machine.tree.rmdir()
    assert machine.group(TaskTotals(processes=40)).take(1) == (
        f"pids not delegated: {machine.tree}/coding-agents-tasks-x: ENOENT",
        False,
    )
    (machine.proc / "mountinfo").write_text("")
    assert machine.group(TaskTotals(processes=40)).take(1)[0] == (
        "pids not delegated: no hierarchy is mounted that has it"
    )
    (machine.proc / "mountinfo").unlink()
    assert machine.group(TaskTotals(processes=40)).take(1)[0] == (
        f"pids not delegated: {machine.proc}/mountinfo: ENOENT"
    )


def test_a_group_that_is_in_use_is_said_to_stay(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_PATIENCE", 0.0)
    group = machine.group()
    group.take(os.getpid())
    (machine.tree / "coding-agents-tasks-x" / "file").touch()
    assert group.remove() == f"{machine.tree}/coding-agents-tasks-x: Directory not empty"


def test_groups_of_sessions_that_were_killed_are_removed(machine: Machine) -> None:
    names = ("coding-agents-tasks-old", "coding-agents-tasks-new", "another")
    for name in names:
        (machine.tree / name).mkdir()
    for name in (names[0], names[2]):
        os.utime(machine.tree / name, (time.time() - 3600, time.time() - 3600))
    group = machine.group()
    group.take(os.getpid())
    group.remove()
    assert {path.name for path in machine.tree.iterdir()} == set(names[1:])
