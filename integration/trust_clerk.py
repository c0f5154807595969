"""A user with a store of trust overrides, for the tests of the commands that keep it: in a pipe and at a terminal."""

from __future__ import annotations

from pathlib import Path

import pki
from codingagents.rewrite import places
from trust_rig import Desk


class Clerk(Desk):
    """Has a file with a root, and looks at what is kept."""

    def __init__(self, home: Path, root: pki.Issued) -> None:
        super().__init__(home)
        self.kept = home / places.HOST_CONFIG / places.OVERRIDES
        self.write("")
        (home / "root.pem").write_text(root.pem)

    def add(self, *arguments: str) -> tuple[int, str, str]:
        done = self.run("add", *arguments)
        assert "Traceback" not in done.stderr, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        assert "\u202e" not in done.stdout + done.stderr
        return done.returncode, done.stdout, done.stderr

    def names(self) -> list[str]:
        return sorted(path.name for path in self.kept.iterdir()) if self.kept.exists() else []
