"""The lock on the session directories: one at a time, gone with its holder, and never of a session that ended."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from codingagents.supervisor import run_owner
from codingagents.supervisor.run_owner import RunOwner
from codingagents.trust.errors import ProcessError

HOLD = """
import sys
from codingagents.supervisor import run_owner
run_owner.LOCK = sys.argv[1]
owner = run_owner.RunOwner()
print(owner.inherited, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run_owner, "LOCK", str(tmp_path / ".owner"))
    return tmp_path / ".owner"


def test_one_session_at_a_time(lock: Path) -> None:
    first = RunOwner()
    assert not first.inherited
    with pytest.raises(ProcessError, match="another session runs here"):
        RunOwner()
    first.release()
    assert not lock.exists()
    second = RunOwner()
    assert not second.inherited
    second.release()


def test_a_session_that_was_killed_is_inherited_from(lock: Path) -> None:
    argv = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "False\n"
        with pytest.raises(ProcessError, match="another session runs here"):
            RunOwner()
        holder.kill()
    heir = RunOwner()
    assert heir.inherited
    heir.release()


def test_a_lock_that_was_removed_meanwhile_is_nobodys(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its session ended between our open(2) and our flock(2)."""
    ending = RunOwner()
    flock = fcntl.flock
    calls: list[int] = []

    def after_its_end(descriptor: int, operation: int) -> None:
        if not calls:
            ending.release()
        calls.append(descriptor)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", after_its_end)
    mine = RunOwner()
    assert len(calls) == 2
    assert not mine.inherited
    assert lock.exists()
    mine.release()


def test_a_link_in_its_place_is_refused(lock: Path, tmp_path: Path) -> None:
    lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        RunOwner()
    assert not (tmp_path / "elsewhere").exists()


def test_no_child_inherits_it(lock: Path) -> None:
    owner = RunOwner()
    assert not os.get_inheritable(owner._descriptor)
    owner.release()
