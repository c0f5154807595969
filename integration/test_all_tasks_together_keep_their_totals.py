"""A control group bounds what many processes take together, each of which keeps its own limits."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import session_rig as rig
from codingagents.rewrite.specs import TaskTotals
from codingagents.supervisor import cgroup_rules, cgroups
from codingagents.supervisor.cgroup_rules import Hierarchy
from codingagents.supervisor.cgroups import TaskGroup
from codingagents.trust.events import LayerReport
from session_rig import MODES, Place

pytest_plugins = ("session_fixtures",)  # where

NAME = cgroup_rules.group_name("test-of-totals")
MEGABYTE = 1024 * 1024
MANY, FEW = 120, 40
ROUTED = '[exec]\nroute = "always"\n'
# Each waits until it was moved, and says how it went; all that they start ends with them.
FORKS = f"""
import os, signal, sys
sys.stdin.readline()
pids = []
try:
    for _ in range({MANY}):
        pid = os.fork()
        if pid == 0:
            signal.pause()
        pids.append(pid)
except BlockingIOError:
    pass
print(len(pids), flush=True)
for pid in pids:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""
# Four processes of 50 MB, at the same time.
FILLS = """
import os, sys
sys.stdin.readline()
full, filled = os.pipe()
begin, go = os.pipe()
pids = []
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        os.close(go)
        block = bytearray(50 * 1024 * 1024)
        block[::4096] = b"x" * len(block[::4096])
        os.write(filled, b"f")
        os.close(filled)  # so that the parent reads the end of it, whoever was killed
        os.read(begin, 1)  # until the parent closes it
        os._exit(0)
    pids.append(pid)
os.close(filled)
ended = 0
while ended < 4 and os.read(full, 1):
    ended += 1
os.close(go)
print(sum(os.waitpid(pid, 0)[1] == 9 for pid in pids), flush=True)
"""


@pytest.fixture
def proc() -> Iterator[str]:
    """Where our own group is read: in version 2 a group of the test's own, that hands its controllers on."""
    groups = cgroup_rules.own_groups(Path("/proc/self/cgroup").read_text())
    if {"memory", "pids"} <= groups.keys():
        yield "/proc/self"
        return
    mounts = Path("/proc/self/mountinfo").read_text()
    top = cgroup_rules.hierarchy("memory", {"": "/"}, mounts)
    assert top is not None, "no control groups are mounted"
    ours = Path(top.directory, "coding-agents-test")
    ours.mkdir()
    try:
        (ours / "cgroup.subtree_control").write_text("+memory +pids")
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "cgroup").write_text("0::/coding-agents-test\n")
            Path(folder, "mountinfo").write_text(mounts)
            yield folder
    finally:
        ours.rmdir()


def outcome(script: str, group: TaskGroup | None) -> tuple[int, tuple[str, bool]]:
    """What `script` prints, run in `group`, and what was said of that; the group is gone afterwards."""
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    said = ("", True) if group is None else group.take(child.pid)
    out, _ = child.communicate("go\n", timeout=60)
    if group is not None:
        assert group.remove() == ""
    return int(out), said


def test_a_fork_bomb_is_stopped_at_the_total(proc: str) -> None:
    number, (said, held) = outcome(FORKS, TaskGroup(NAME, TaskTotals(processes=FEW), proc=proc))
    assert number == FEW - 1  # the one that forks counts
    assert held
    assert said.startswith(f"pids {FEW} (cgroup v")
    assert outcome(FORKS, None)[0] == MANY  # the control


def test_a_memory_hog_of_many_processes_is_killed_at_the_total(proc: str) -> None:
    limit = 100 * MEGABYTE
    killed, (said, held) = outcome(FILLS, TaskGroup(NAME, TaskTotals(memory=limit), proc=proc))
    assert killed >= 2
    assert held
    assert said.startswith(f"memory {limit} (cgroup v")
    assert outcome(FILLS, None)[0] == 0  # the control


def test_both_hold_at_once_and_the_next_process_is_taken_into_the_same_group(proc: str) -> None:
    group = TaskGroup(NAME, TaskTotals(memory=1024 * MEGABYTE, processes=FEW), proc=proc)
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as first:
        said, held = group.take(first.pid)
        assert held, said
        with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as second:
            assert group.take(second.pid) == (said, True)
            for child in (first, second):
                groups = Path(f"/proc/{child.pid}/cgroup").read_text()
                assert f"/{NAME}\n" in groups
            with contextlib.suppress(OSError):  # in use
                os.rmdir(next(iter(group._made)))
            assert all(map(os.path.isdir, group._made))
    made = set(group._made)
    assert group.remove() == ""
    assert not any(map(os.path.exists, made))


@pytest.fixture
def handed_nothing() -> Iterator[tuple[Path, str]]:
    """A group of version 2 with a process in it, as a container has, and the name of a file that its children lack."""
    mounts = Path("/proc/self/mountinfo").read_text()
    top = cgroup_rules.hierarchy("hugetlb", {"": "/"}, mounts)
    assert top is not None, "no control groups of version 2 are mounted"
    root = Path(top.directory)
    controllers = (root / "cgroup.controllers").read_text().split()
    assert controllers, "no controller is bound to version 2"
    control = root / "cgroup.subtree_control"
    before = control.read_text().split()
    if controllers[0] not in before:
        control.write_text(f"+{controllers[0]}")
    ours = root / "coding-agents-test"
    ours.mkdir()
    inside = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    try:
        (ours / "cgroup.procs").write_text(str(inside.pid))
        yield ours, controllers[0]
    finally:
        inside.kill()
        inside.communicate()
        for path in (ours / cgroups._LEAF, ours / NAME, ours):
            if path.exists():
                path.rmdir()
        if controllers[0] not in before:
            control.write_text(f"-{controllers[0]}")


def test_in_version_2_the_first_process_of_a_container_makes_room(handed_nothing: tuple[Path, str]) -> None:
    """With whichever controller this machine has there: no process stays in the group itself, which hands it on."""
    ours, controller = handed_nothing
    found = Hierarchy(2, str(ours), is_root=True)
    needed = min(path.name for path in ours.glob(f"{controller}.*max"))
    refused = TaskGroup(NAME, TaskTotals())
    with pytest.raises(cgroups._UndelegatedError, match=r"cgroup\.subtree_control has it not"):
        refused._make(controller, found, needed)  # the control: not PID 1, so nothing is moved
    assert (ours / "cgroup.procs").read_text()
    assert refused.remove() == ""
    group = TaskGroup(NAME, TaskTotals(), is_pid1=True)
    group._make(controller, found, needed)
    assert (ours / "cgroup.procs").read_text() == ""
    assert len((ours / cgroups._LEAF / "cgroup.procs").read_text().split()) == 1
    assert (ours / NAME / needed).exists()
    assert group.remove() == ""


@pytest.mark.parametrize("mode", MODES)
def test_the_tasks_of_a_session_are_bounded_together(mode: str, where: Place) -> None:
    """A task that forks without end stops there; the report says what holds, and the group ends with the session."""
    bomb = where.open / "bomb.py"
    bomb.write_text(FORKS)
    argv = ["run", "/run/agent-tasks/shells/sh", "-c", f"python3 {bomb}"]
    with rig.start(mode, where, f"{ROUTED}[session.task_limits]\ntotal_processes = {FEW}\n") as session:
        assert session.answer() == "up"
        assert 0 < int(session.ask(*argv)["output"]) < FEW
        report = session.event(LayerReport, role="task")
        (limits,) = [row for row in report.layers if row.layer == "limits"]
        assert (limits.state, limits.detail["together"].split(" (")[0]) == ("enforced", f"pids {FEW}")
        groups = list(Path("/sys/fs/cgroup").rglob(cgroup_rules.group_name(session.records()[0].session)))
        assert groups
        session.tell("leave", 0)
        assert session.wait() == 0
    assert not any(path.exists() for path in groups)
    with rig.start(mode, where, ROUTED) as session:  # the control
        assert session.answer() == "up"
        assert int(session.ask(*argv)["output"]) == MANY
