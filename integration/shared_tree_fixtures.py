"""The tree that tests of ACLs share.

pytest_plugins = ("shared_tree_fixtures",)  # rig
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared_tree_rig import STRANGER, Rig


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Give a tree of a user of its own: closed to others, with files of several modes and with ACLs of its own."""
    place = Path("/var/tmp") / f"shared-{os.getpid()}"
    place.mkdir()
    place.chmod(0o755)
    rig = Rig(place, place / "project", place / "lib" / "workspaces")
    rig.tree.mkdir()
    for name, mode in (("file", 0o644), ("private", 0o600), ("program", 0o755), ("readonly", 0o444), ("listed", 0o640)):
        (rig.tree / name).write_text(f"{name}\n")
        (rig.tree / name).chmod(mode)
    for name, mode in (("folder", 0o755), ("setgid", 0o2750), ("inherits", 0o700)):
        (rig.tree / name).mkdir()
        (rig.tree / name).chmod(mode)
        (rig.tree / name / "inner").write_text("inner\n")
    (rig.tree / "link").symlink_to("file")
    subprocess.run(["setfacl", "-m", f"u:{STRANGER}:rwx,g:7:r,m::r", rig.tree / "listed"], check=True)
    subprocess.run(["setfacl", "-m", f"d:u:{STRANGER}:rx,u:{STRANGER}:rx,d:g::-", rig.tree / "inherits"], check=True)
    rig.tree.chmod(0o700)
    rig.own(rig.tree, *rig.tree.rglob("*"))
    yield rig
    shutil.rmtree(place)
