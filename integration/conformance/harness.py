"""Runs `@modelcontextprotocol/conformance` against a server or a client and returns what it found, check by check.

Its exit code is not looked at: it is 0 for a lost Last-Event-ID, and 1 for scenarios that no revision requires.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from conformance import parts

_PATIENCE = 300.0  # seconds; only a run that hangs takes as long
_INTEGRATION = Path(__file__).resolve().parents[1]
_HARNESS_CLIENT = "conformance.clients.harness_client"  # which the harness starts in its own directory
_ENVIRONMENT = {"PYTHONPATH": f"{_INTEGRATION}:{_INTEGRATION.parent / 'tests'}", "PATH": "/usr/bin:/bin"}


@dataclass(frozen=True)
class Leg:
    """One set of scenarios, and how many checks it has that apply: the fixture server passes all of them."""

    name: str
    arguments: tuple[str, ...]
    passes: int


LEGS = (
    Leg("2025-11-25", ("--requirements", "2025-11-25"), 84),
    Leg("2026-07-28", ("--requirements", "2026-07-28"), 196),
    Leg("all", ("--suite", "all"), 234),
)


CLIENT_SCENARIOS = {  # all that a revision has, but OAuth's: what the helper does about 401 is its own
    "2025-11-25": (
        "initialize",
        "tools_call",
        "elicitation-sep1034-client-defaults",
        "sse-retry",
        "json-schema-2020-12-preservation",
    ),
    "2026-07-28": (
        "tools_call",
        "request-metadata",
        "sep-2322-client-request-state",
        "http-standard-headers",
        "http-custom-headers",
        "http-invalid-tool-headers",
        "json-schema-ref-no-deref",
        "json-schema-2020-12-preservation",
    ),
}


@dataclass(frozen=True)
class Check:
    """One check of one scenario; `status` is SUCCESS, FAILURE, WARNING or SKIPPED."""

    scenario: str
    id: str
    status: str


def run_server_leg(url: str, arguments: Sequence[str]) -> list[Check]:
    """Return the sorted checks of the scenarios that `arguments` choose, made at the server `url`."""
    return _run("server", "--url", url, "--timeout", "30000", *arguments)


def run_client_scenario(revision: str, scenario: str, *, through_a_helper: bool) -> list[Check]:
    """Return the sorted checks of one scenario, made of the SDK's client, which a helper may stand before."""
    own = ("-P", "-m", "conformance.through_a_helper") if through_a_helper else ()
    words = [*([sys.executable, *own] if own else []), str(parts.sdk_python("2")), "-sE", "-m", _HARNESS_CLIENT]
    return _run("client", "--command", " ".join(words), "--spec-version", revision, "--scenario", scenario)


def _run(mode: Literal["server", "client"], *arguments: str) -> list[Check]:
    program = parts.npm_file("@modelcontextprotocol/conformance", "dist/index.js")
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run(
            [parts.node(), program, mode, "-o", out, *arguments],
            check=False, env=_ENVIRONMENT, cwd=_INTEGRATION, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=_PATIENCE,
        )  # fmt: skip
        checks = read_checks(Path(out))
    assert checks, f"the harness checked nothing:\n{done.stderr.decode()[-2000:]}"
    return checks


def read_checks(out: Path) -> list[Check]:
    """Return what the harness wrote below `out`, sorted, without what only informs."""
    found = []
    for file in out.glob("*/checks.json"):
        named = re.fullmatch(r"(?:server-)?(.+)-\d{4}-\d\d-\d\dT[-\dZ]+", file.parent.name)
        assert named, file
        found += [
            Check(named[1], each["id"], each["status"])
            for each in json.loads(file.read_bytes())
            if each["status"] != "INFO"
        ]
    return sorted(found, key=lambda check: (check.scenario, check.id, check.status))
