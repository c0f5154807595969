"""What the host changes and asks while a session runs: secrets renewed in their file, helpers listed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import session_rig as rig
from codingagents.trust.events import HelperSecrets
from session_rig import Place
from session_upstream import Upstream

pytest_plugins = ("session_fixtures",)  # upstream


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a session needs root")

SECOND = 'headers = { "X-Second" = "${SECOND}" }'


@pytest.fixture
def where() -> Iterator[Place]:
    with rig.place() as made:
        yield made


def put(where: Place, text: str) -> Path:
    """Replace mcp-secrets.env in one step, as an editor does."""
    where.base.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = where.base / "mcp-secrets.env"
    draft = file.with_suffix(".draft")
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.replace(file)
    return file


def sent(upstream: Upstream) -> list[bytes]:
    """Return what each request until now had as its X-Second."""
    return [
        line.partition(b": ")[2] for line in upstream.received.split(b"\r\n") if line.lower().startswith(b"x-second:")
    ]


def test_a_secret_that_changes_in_its_file_is_attached_from_then_on(where: Place, upstream: Upstream) -> None:
    """The agent runs on; a file that others may read is refused once and changes nothing; no value is in the log."""
    put(where, "SECOND=value-number-one\n")
    with rig.start("pid1", where, upstream.server("one", keys=SECOND)) as session:
        assert session.answer() == "up"
        session.ask("post", "one")
        put(where, "SECOND=value-number-two\nUNKNOWN=x\n")
        taken = session.event(HelperSecrets)
        assert (taken.server, taken.problem) == ("one", None)
        assert "SECOND" in taken.names
        session.ask("post", "one")
        put(where, "SECOND=value-number-three\n").chmod(0o644)
        rig.wait_until(lambda: "former secrets" in session.stderr(), "the warning")
        session.ask("post", "one")
        put(where, "SECOND=value-number-four\n")
        rig.wait_until(lambda: len(session.events(HelperSecrets)) == 2, "the next value")
        session.ask("post", "one")
        session.tell("leave", 3)
        assert session.wait() == 3
    assert sent(upstream) == [b"value-number-one", b"value-number-two", b"value-number-two", b"value-number-four"]
    (warning,) = [sentence for sentence in session.sentences() if "warning" in sentence]
    assert warning.endswith(f"mcp-secrets.env has mode 0644; run: chmod 600 {where.base}/mcp-secrets.env")
    assert "value-number" not in session.log.read_text() + session.stderr()
    session.assert_nothing_is_left()


def test_helpers_are_listed_by_the_hosts_command(where: Place, upstream: Upstream) -> None:
    """It passes on the container's answer and its exit code."""
    command = [sys.executable, "-I", "-m", "codingagents.launcher", "helper", "list", "--json", "--session"]
    put(where, "SECOND=value\n")
    with rig.start("pid1", where, upstream.server("one", keys=SECOND)) as session:
        assert session.answer() == "up"
        session.ask("post", "one")
        done = subprocess.run([*command, session.directory], capture_output=True, text=True, check=True, timeout=30)
        session.tell("leave", 0)
        assert session.wait() == 0
    (helper,) = json.loads(done.stdout)["helpers"]
    assert helper["server"] == "one"
    assert "value" not in done.stdout.replace("SECOND", "")
    gone = subprocess.run([*command, session.directory], capture_output=True, text=True, check=False, timeout=30)
    assert (gone.returncode, gone.stdout) == (3, "")
    assert gone.stderr.startswith("coding-agents: ")
