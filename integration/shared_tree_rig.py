"""A tree of a user of its own that a session has rights in by ACL, and its roles as processes.

The tree itself is a fixture: `shared_tree_fixtures`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec

import workspace_rig
from codingagents.launcher.workspace_session import workspace_of
from codingagents.rewrite.specs import SessionSpec
from workspace_rig import OWNER, UIDS

STRANGER = 58999
SESSION_IDS = ("58901", "58902", "58903", "58904")
SPEC = msgspec.structs.replace(workspace_rig.SPEC, workspace_acl=True)


@dataclasses.dataclass(frozen=True)
class Rig:
    place: Path
    tree: Path
    base: Path  # of copies; records lie beside it

    def spec(self) -> SessionSpec:
        return msgspec.structs.replace(SPEC, working_directory=str(self.tree))

    def own(self, *paths: Path) -> None:
        subprocess.run(["chown", "-h", f"{OWNER}:{OWNER}", *map(str, paths)], check=True)

    @property
    def records(self) -> list[Path]:
        return list(self.base.with_name("workspace-records").iterdir())

    def session(self) -> contextlib.AbstractContextManager[Path]:
        return _session(self)

    def repaired(self) -> None:
        """Do what the next run does first, wherever it works."""
        elsewhere = msgspec.structs.replace(self.spec(), working_directory=str(self.place), workspace_acl=False)
        with workspace_of(elsewhere, self.base):
            pass


@contextlib.contextmanager
def _session(rig: Rig) -> Iterator[Path]:
    with workspace_of(rig.spec(), rig.base) as placed:
        placed.started = True
        yield rig.tree


def listing(tree: Path, *, times: bool = True) -> str:
    """Everything that must be as before: owners, modes, links, times of change of content, every ACL for getfacl."""
    form = "%P %U:%G %m %y %l" + (" %T@" if times else "")
    stats = subprocess.run(["find", tree, "-printf", f"{form}\n"], check=True, capture_output=True, text=True)
    acls = subprocess.run(["getfacl", "-RnpsP", tree], check=True, capture_output=True, text=True)
    return "\n".join([*sorted(stats.stdout.splitlines()), *sorted(acls.stdout.split("\n\n"))])


def acts(script: str, where: Path, uid: int, umask: int = 0o002) -> subprocess.CompletedProcess[str]:
    """Run a shell script as a role does its work; a server is not in the workspace group."""
    return subprocess.run(
        ["/bin/sh", "-ec", script],
        cwd="/",
        user=uid,
        group=uid,
        extra_groups=[UIDS.workspace_gid] if uid in (UIDS.agent, UIDS.task) else [],
        umask=umask,
        env={"PATH": "/usr/bin:/bin", "W": str(where), "HOME": "/nonexistent", **SAFE},
        capture_output=True,
        text=True,
        check=False,
    )


SAFE = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}


def does(script: str, where: Path, uid: int, umask: int = 0o002) -> str:
    done = acts(f'cd "$W"; {script}', where, uid, umask)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(script: str, where: Path, uid: int) -> None:
    done = acts(script, where, uid)
    assert done.returncode != 0
    assert "Permission denied" in done.stderr


def owned_by_owner(tree: Path) -> None:
    """Nothing below is the session's, and no entry names it."""
    for path in [tree, *tree.rglob("*")]:
        found = os.lstat(path)
        assert (found.st_uid, found.st_gid) == (OWNER, OWNER), path
    assert not names_session(tree)


def names_session(path: Path) -> bool:
    said = subprocess.run(["getfacl", "-RnpP", path], check=True, capture_output=True, text=True).stdout
    return any(f"{kind}:{number}:" in said for kind in ("user", "group") for number in SESSION_IDS)


def getfacl(path: Path) -> str:
    return subprocess.run(["getfacl", "-ncpE", path], check=True, capture_output=True, text=True).stdout
