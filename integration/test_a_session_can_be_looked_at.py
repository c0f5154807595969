"""The operator's socket: root sees each helper's state, counts and memory while the session runs; nobody else does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import session_rig as rig
from codingagents.trust.events import HelperReady
from session_rig import Place, Session, every_mode
from session_upstream import Upstream

pytest_plugins = ("session_fixtures",)  # where, upstream

LIST = (sys.executable, "-I", "-m", "codingagents.supervisor", "helper", "list")


def listed(session: Session, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LIST, "--session", session.directory, *words], check=False, capture_output=True, text=True, timeout=30
    )


def rows(session: Session) -> list[dict[str, Any]]:
    done = listed(session, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found: list[dict[str, Any]] = json.loads(done.stdout)["helpers"]
    return found


@every_mode
def test_helper_list_tells_what_each_helper_is_and_did(mode: str, where: Place, upstream: Upstream) -> None:
    with rig.start(mode, where, upstream.server("one") + upstream.server("two")) as session:
        assert session.answer() == "up"
        for _ in range(3):
            assert session.ask("post", "one")["status"] == 200
        session.event(HelperReady, server="two")
        one, two = rows(session)
        ready = session.event(HelperReady, server="one")
        assert (one["server"], one["state"], one["upstream"], one["degraded"]) == ("one", "ready", "ok", [])
        assert (one["uid"], one["pid"], one["listen"]) == (ready.user_id, ready.process_pid, ready.listen)
        assert (one["requests"], one["errors"], one["refused"], one["restarts"]) == (3, 0, 0, 0)
        assert (two["requests"], two["upstream_connections"]) == (0, 0)
        for row in (one, two):
            assert 500_000 < row["memory"]["uss_bytes"] <= row["memory"]["pss_bytes"] <= row["memory"]["rss_bytes"]
            assert row["memory"]["rss_bytes"] < 200_000_000
        os.kill(session.named("helper one"), signal.SIGKILL)
        rig.wait_until(lambda: len(session.events(HelperReady)) == 3, "the next helper")
        again = rows(session)[0]
        assert (again["restarts"], again["state"]) == (1, "ready")
        assert again["pid"] != one["pid"]
        plain = listed(session)
        assert plain.returncode == 0
        assert [line.split()[:2] for line in plain.stdout.splitlines()] == [["one", "ready"], ["two", "ready"]]
        session.tell("leave", 0)
        assert session.wait() == 0
    after = listed(session)
    assert (after.returncode, after.stderr) == (3, f"coding-agents: no session runs in {session.directory}\n")
    session.assert_nothing_is_left()


@every_mode
def test_only_root_can_ask(mode: str, where: Place, upstream: Upstream) -> None:
    """The agent's user cannot even see the socket; and where the directory is opened to it, the socket is not."""
    with rig.start(mode, where, upstream.server("one")) as session:
        assert session.answer() == "up"
        path = session.directory / "operator.sock"
        assert (path.stat().st_uid, oct(path.stat().st_mode)) == (0, "0o140600")
        code = f"import socket; socket.socket(socket.AF_UNIX).connect({str(path)!r})"
        attempt = ("setpriv", f"--reuid={session.uid_base}", "--clear-groups", "/usr/bin/python3", "-I", "-c", code)
        for parent in (session.directory, *session.directory.parents):
            parent.chmod(parent.stat().st_mode | 0o055)
        refused = subprocess.run(attempt, check=False, capture_output=True, text=True)
        assert "PermissionError" in refused.stderr
        path.chmod(0o666)
        asked = f"""
import socket


connection = socket.socket(socket.AF_UNIX)
connection.connect({str(path)!r})
connection.settimeout(20)
try:
    connection.sendall(b"GET /helpers HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    print(connection.recv(100))
except ConnectionError:
    print(b"")
"""
        asked_by_agent = subprocess.run([*attempt[:-1], asked], check=True, capture_output=True, text=True)
        assert asked_by_agent.stdout == "b''\n", "its user is checked as well"
        asked_by_root = subprocess.run([*attempt[-4:-1], asked], check=True, capture_output=True, text=True)
        assert asked_by_root.stdout.startswith("b'HTTP/1.1 200"), "the control"


def test_a_session_is_found_by_itself_and_in_a_directory_of_any_length(where: Place) -> None:
    """Longer than an address of a unix socket can be."""
    deep = where.home / ("d" * 120)
    deep.mkdir()
    with rig.start("subreaper", where, "", directory=deep / "session") as session:
        assert session.answer() == "up"
        assert len(str(session.directory / "operator.sock")) > 107
        done = subprocess.run(LIST, check=False, capture_output=True, text=True, timeout=30)
        if done.returncode != 2:  # no other session runs on this machine
            assert done.stdout.endswith(" has no helpers\n")
        assert listed(session).stdout.endswith(" has no helpers\n")
        with rig.start("subreaper", where, "") as another:
            assert another.answer() == "up"
            several = subprocess.run(LIST, check=False, capture_output=True, text=True, timeout=30)
            assert several.returncode == 2
            assert all(str(each.directory) in several.stderr for each in (session, another))


def test_callers_that_say_nothing_keep_nobody_out(where: Place, upstream: Upstream) -> None:
    """As many as there may be at once, and more."""
    with rig.start("subreaper", where, upstream.server("one")) as session:
        assert session.answer() == "up"
        silent = []
        for _ in range(12):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(session.directory / "operator.sock"))
            silent.append(connection)
        assert session.ask("post", "one")["status"] == 200
        rig.wait_until(lambda: listed(session).returncode == 0, "an answer", patience=40)
        for connection in silent:
            connection.close()


def test_a_supervisor_that_hangs_is_said(where: Place) -> None:
    with rig.start("subreaper", where, "") as session:
        assert session.answer() == "up"
        os.kill(session.process.pid, signal.SIGSTOP)
        done = listed(session)
        os.kill(session.process.pid, signal.SIGCONT)
        assert done.returncode == 1
        assert done.stderr == f"coding-agents: the session in {session.directory} does not answer: timed out\n"
        assert Path(session.directory / "operator.sock").exists()
