"""Runs `@modelcontextprotocol/conformance` against a URL and returns what it found, check by check.

Its exit code is not looked at: it is 0 for a lost Last-Event-ID, and 1 for scenarios that no revision requires.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance import parts

_PATIENCE = 300.0  # seconds; only a run that hangs takes as long


@dataclass(frozen=True)
class Leg:
    """One set of scenarios, and how many of its checks the fixture server passes when asked directly."""

    name: str
    arguments: tuple[str, ...]
    passes: int


LEGS = (
    Leg("2025-11-25", ("--requirements", "2025-11-25"), 84),
    Leg("2026-07-28", ("--requirements", "2026-07-28"), 169),
    Leg("all", ("--suite", "all"), 207),
)


@dataclass(frozen=True)
class Check:
    """One check of one scenario; `status` is SUCCESS, FAILURE, WARNING or SKIPPED."""

    scenario: str
    id: str
    status: str


def run_server_leg(url: str, arguments: Sequence[str]) -> list[Check]:
    """Return the sorted checks of the scenarios that `arguments` choose."""
    program = parts.npm_file("@modelcontextprotocol/conformance", "dist/index.js")
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run(
            [parts.node(), program, "server", "--url", url, "--timeout", "30000", "-o", out, *arguments],
            check=False, env={}, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE,
        )  # fmt: skip
        checks = read_checks(Path(out), "server")
    assert checks, f"the harness checked nothing:\n{done.stderr.decode()[-2000:]}"
    return checks


def read_checks(out: Path, mode: str) -> list[Check]:
    """Return what the harness wrote below `out`, sorted, without what only informs."""
    found = []
    for file in out.glob(f"{mode}-*/checks.json"):
        named = re.fullmatch(rf"{mode}-(.+)-\d{{4}}-\d\d-\d\dT[-\dZ]+", file.parent.name)
        assert named, file
        found += [
            Check(named[1], each["id"], each["status"])
            for each in json.loads(file.read_bytes())
            if each["status"] != "INFO"
        ]
    return sorted(found, key=lambda check: (check.scenario, check.id, check.status))
