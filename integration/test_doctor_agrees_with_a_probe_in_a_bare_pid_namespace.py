"""Without a container engine: `doctor` as PID 1 of a new PID namespace says what an independent probe finds there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from container_findings import expected_states
from container_rig import AGENT_UID, SCRIPTS

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for namespaces")

NAMESPACE = ("unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")
LEAST = ("setpriv", "--bounding-set", "-all,+setuid,+setgid", "--inh-caps", "-all", "--no-new-privs")


def _json(*command: str) -> object:
    done = subprocess.run(
        [*NAMESPACE, *command], check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("capabilities", [(), LEAST], ids=["all of root's", "setuid and setgid"])
def test_every_row_is_what_the_probe_finds(tmp_path: Path, capabilities: Sequence[str]) -> None:
    noformat = tmp_path / "no-format"
    noformat.write_text("no program\n")
    noformat.chmod(0o755)
    probe = (sys.executable, "-I", str(SCRIPTS / "probe.py"), str(AGENT_UID), str(noformat))
    found = _json(*capabilities, *probe)
    report = _json(*capabilities, sys.executable, "-I", "-m", "codingagents.supervisor", "doctor", "--json")
    assert isinstance(found, dict)
    assert isinstance(report, dict)
    states = {row["layer"]: row["state"] for row in report["layers"]}
    assert states == expected_states(found)
    assert states["pidns"] == "enforced"
    assert (states["mountns"], states["securebits"]) == (("unavailable",) * 2 if capabilities else ("enforced",) * 2)
