"""`coding-agents exec explain` in a running session says what then happens to the agent, and by whom."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import session_rig as rig
from codingagents.trust.errors import EXIT_UNCONFINED
from codingagents.trust.events import AgentStarted, ExecPolicyLoaded
from session_rig import Place, Session
from test_doctor_reports_what_it_tried import PRETENDING

pytest_plugins = ("session_fixtures",)  # where
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a session needs root")

EXPLAIN = (sys.executable, "-I", "-m", "codingagents.supervisor", "exec", "explain")
CONFIG = """
[exec]
rules = [ { deny = "/usr/bin/env" }, { deny = "/home/**" }, { deny = "/usr/bin/id", argv = ["id", "-u"] } ]
"""


def explain(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*EXPLAIN, *arguments], capture_output=True, text=True, check=False, timeout=30)


def explained(session: Session, *arguments: str) -> dict[str, Any]:
    done = explain("--session", str(session.directory), "--json", *arguments)
    assert done.stderr == ""
    told: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == {"allowed": 0, "denied": 1, "missing": 3}[told["outcome"]]
    return told


def test_what_is_explained_is_what_happens(where: Place) -> None:
    """Denied by the trap (EPERM), refused by Landlock (EACCES), allowed, and not there (ENOENT)."""
    outside = where.open / "outside"
    outside.write_bytes(Path("/bin/true").read_bytes())
    outside.chmod(0o755)
    script = where.open / "script"
    script.write_text("#!/usr/bin/env sh\n")
    script.chmod(0o755)
    with rig.start("subreaper", where, CONFIG) as session:
        assert session.answer() == "up"
        for command, outcome, errno in (
            (("/usr/bin/env",), "denied", "EPERM"),
            (("/usr/bin/id", "-u"), "allowed", None),  # its argv[0] is the path
            (("/bin/true",), "allowed", None),
            ((str(outside),), "denied", "EACCES"),
            ((str(script),), "denied", "EPERM"),
            (("/usr/bin/none",), "missing", "ENOENT"),
        ):
            told = explained(session, command[0], "--", *command)
            assert (command, told["outcome"]) == (command, outcome)
            assert (command, session.ask("run", *command)["errno"]) == (command, errno)
            assert "as it was seen to hold in session" in told["basis"]
            assert f"UID {session.ask('status')['Uid'].split()[0]}" in told["basis"]
        assert explained(session, str(script))["interpreters"][0] == "/usr/bin/env"
        assert explained(session, "/usr/bin/id", "--", "id", "-u")["rule"] == 'deny /usr/bin/id argv=["id", "-u"]'
        session.event(ExecPolicyLoaded, role="task")
        rig.wait_until(
            lambda: "as it was seen to hold" in explained(session, "/bin/true", "--role", "task")["basis"],
            "what stands behind the policy of tasks",
        )
        (loaded,) = [each for each in session.events(ExecPolicyLoaded) if each.role == "agent"]
        assert [(rule.rule, rule.firmness) for rule in loaded.rules] == [
            ("deny /usr/bin/env", "advisory"),
            ("deny /home/**", "firm"),
            ('deny /usr/bin/id argv=["id", "-u"]', "advisory"),
        ]
        assert (loaded.role, loaded.mode) == ("agent", "observe")
        assert "/usr" in loaded.trees


def test_without_a_session_or_a_file_it_is_a_sentence(tmp_path: Path) -> None:
    done = explain("--session", str(tmp_path), "/bin/true")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"coding-agents: no session runs in {tmp_path}\n"


def test_a_file_is_judged_by_itself_and_hostile_bytes_are_shown_escaped(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    done = explain("--config", str(config), "/home/\x1b[2J\udcff")
    assert done.returncode == 1
    assert done.stdout.startswith("denied: /home/\\x1b[2J\\xff for the agent\n")
    assert "assumed, not seen" in done.stdout


def test_a_session_that_requires_a_layer_that_only_pretends_starts_nothing(where: Place) -> None:
    """The control is the same session without the pretence."""
    required = '[session]\nlayers = { landlock_exec = "require" }\n'
    pretending = (sys.executable, "-I", "-c", PRETENDING)
    with rig.start("pid1", where, required, ["/bin/echo", "ran"], prefix=pretending) as session:
        assert session.wait() == EXIT_UNCONFINED
        assert session.rest() == b""
        assert session.events(AgentStarted) == []
        assert "required layers are not enforced here: landlock_exec" in session.stderr()
    with rig.start("pid1", where, required, ["/bin/echo", "ran"]) as session:
        assert session.line() == "ran"
        assert session.wait() == 0
