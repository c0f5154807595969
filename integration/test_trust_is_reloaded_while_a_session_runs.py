"""`coding-agents trust reload` and SIGHUP: what a running session takes, keeps and refuses; who may ask."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pki
import session_rig as rig
from codingagents.trust.events import HelperReady, HelperStarting, TrustExpiring, TrustReloaded, TrustSnapshot
from session_rig import Place, Session, every_mode
from session_upstream import Upstream

pytest_plugins = ("session_fixtures",)
COMMAND = (sys.executable, "-I", "-m", "codingagents.launcher")
SNAPSHOT = "/run/coding-agents/trust/one.pem"


@contextlib.contextmanager
def running(where: Place, config: str, **options: Any) -> Iterator[Session]:
    with rig.start("pid1", where, config, **options) as session:
        assert session.answer() == "up"
        yield session


def ask(where: Place, session: Session, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "trust", "reload", str(session.directory), *words],
        env={"HOME": str(where.home), "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def reload(where: Place, session: Session, *words: str) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of `trust reload`."""
    asking = ask(where, session, *words)
    out, errors = asking.communicate(timeout=60)
    return asking.returncode, out, errors


def listed(session: Session) -> list[dict[str, Any]]:
    words = ("-m", "codingagents.supervisor", "helper", "list", "--json", "--session", str(session.directory))
    done = subprocess.run([sys.executable, "-I", *words], check=True, capture_output=True, text=True, timeout=30)
    found: list[dict[str, Any]] = json.loads(done.stdout)["helpers"]
    return found


def write(session: Session, config: str) -> None:
    session.config.write_text(textwrap.dedent(config))


def test_a_stream_that_the_new_pins_accept_lives_on_and_others_are_closed(where: Place, upstream: Upstream) -> None:
    """Other pins, of which one is in the path; then only pins that are not."""
    before = upstream.server("one") + upstream.server("two")
    with running(where, before) as session:
        assert session.ask("begin", "one", "/stream")["line"] == "data: first\n"
        write(session, upstream.server("one") + before[len(upstream.server("one")) :])
        assert reload(where, session) == (0, "one: taken, 1 connections kept, 0 closed\ntwo: unchanged\n", "")
        first = session.event(TrustReloaded, server="one")
        assert (first.kept, first.closed, first.problem) == (1, 0, None)
        upstream.release.set()
        assert session.ask("finish", "one")["error"] is None, "the stream lived on"
        upstream.release.clear()
        assert session.ask("begin", "one", "/stream")["line"] == "data: first\n"
        received = upstream.received
        write(session, upstream.server("one", pins="wrong") + before[len(upstream.server("one")) :])
        assert reload(where, session)[:2] == (0, "one: taken, 0 connections kept, 1 closed\ntwo: unchanged\n")
        assert session.ask("finish", "one")["error"] is not None
        assert session.ask("post", "one")["status"] == 502
        assert upstream.received == received, "nothing was sent to whom the new pins do not know"
        assert session.ask("post", "two")["status"] == 200
        session.tell("leave", 0)
        assert session.wait() == 0
    assert not (session.directory / "launcher.sock").exists()
    session.assert_nothing_is_left()


BAD: dict[str, Callable[[str], str]] = {
    "no TOML": lambda text: "[[[",
    "a date that is past": lambda text: text.replace("expires = 20", "expires = 19"),
    "no store": lambda text: text.replace("root.pem", "none.pem"),
    "no certificate": lambda text: text.replace("root.pem", "empty.pem"),
    "no pins": lambda text: text.replace("backup = true", "backup = false"),
    "no override": lambda text: text.replace('ca = "custom"', 'ca = "custom"\nca_overrides = ["none"]'),
    "no file": lambda text: "",
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_set_is_sent_to_nobody_and_the_former_serves(where: Place, upstream: Upstream, what: str) -> None:
    (upstream.directory / "empty.pem").write_text("nothing\n")
    before = upstream.server("one")
    with running(where, before) as session:
        pid = session.event(HelperReady, server="one").process_pid
        after = BAD[what](textwrap.dedent(before))
        session.config.write_text(after)
        if not after:
            session.config.unlink()
        code, out, errors = reload(where, session)
        assert (code, errors) == (1, "")
        assert out.startswith("nothing was changed: ")
        assert "Traceback" not in out
        assert session.ask("post", "one")["status"] == 200
        assert session.events(TrustReloaded) == []
        report = json.loads(reload(where, session, "--json")[1])
        assert (report["problem"], report["servers"]) == (out.strip().removeprefix("nothing was changed: "), [])
        write(session, upstream.server("one"))  # with another backup
        assert reload(where, session)[:2] == (0, "one: taken, 0 connections kept, 0 closed\n")
        assert session.event(HelperReady, server="one").process_pid == pid
        session.tell("leave", 0)
        assert session.wait() == 0


def test_what_is_no_trust_is_named_and_not_taken(where: Place, upstream: Upstream) -> None:
    before = upstream.server("one") + upstream.server("two")
    with running(where, before) as session:
        changed = upstream.server("one", limits="connections = 7") + upstream.server("three")
        write(session, changed + '\n[exec]\nmode = "enforce"\n')
        code, out, _ = reload(where, session)
        assert code == 0
        assert out.splitlines() == [
            "one: taken, 0 connections kept, 0 closed",
            "needs a new session: [mcp_servers.two] is gone, or not enabled",
            "needs a new session: [mcp_servers.three] is new",
            "needs a new session: [mcp_servers.one] has other changes than in its trust",
            "needs a new session: [exec] changed",
        ]
        assert session.ask("post", "two")["status"] == 200
        session.tell("leave", 0)
        assert session.wait() == 0


def test_a_helper_that_is_killed_over_the_reload_is_followed_by_one_with_the_new_set(
    where: Place, upstream: Upstream
) -> None:
    with running(where, upstream.server("one")) as session:
        session.event(HelperReady, server="one")
        helper = session.named("helper one")
        os.kill(helper, signal.SIGSTOP)
        write(session, upstream.server("one"))
        asking = ask(where, session)
        with pytest.raises(subprocess.TimeoutExpired):
            asking.wait(0.5)  # nobody answers
        os.kill(helper, signal.SIGKILL)
        assert asking.communicate(timeout=30) == ("one: taken, 0 connections kept, 0 closed\n", "")
        assert asking.returncode == 0
        assert len(session.events(HelperReady)) == 2
        assert session.ask("post", "one")["status"] == 200
        session.tell("leave", 0)
        assert session.wait() == 0


def test_an_added_ca_is_taken_shown_and_its_end_is_told(where: Place, upstream: Upstream) -> None:
    """The store gets a name in the log, the file holds what that names, and what ends within 30 days is told once."""
    with running(where, upstream.server("one")) as session:
        assert session.ask("post", "one")["status"] == 200
        leaf = session.event(TrustExpiring, what="leaf")  # `pki` issues for 30 days
        assert (leaf.server, leaf.days_left) == ("one", 29)
        corp = pki.make_root("Corp")
        file = where.open / "corp.pem"
        file.write_text(corp.pem)
        digest = hashlib.sha256(corp.der).hexdigest()
        environment = {"HOME": str(where.home), "PATH": os.environ["PATH"]}
        words = ("trust", "add", "corp", str(file), "--scope", "upstream.test", "--fingerprint", digest)
        subprocess.run([*COMMAND, *words], env=environment, check=True, capture_output=True)
        write(session, upstream.server("one").replace('ca = "custom"', 'ca = "custom"\nca_overrides = ["corp"]'))
        code, out, errors = reload(where, session)
        assert (code, out) == (0, "one: taken, 0 connections kept, 0 closed\n")
        assert '"corp" expires in 29 days' in errors
        first, second = session.events(TrustSnapshot)
        assert (first.anchors, first.overrides, second.anchors, second.overrides) == (1, [], 2, ["corp"])
        assert session.event(TrustExpiring, what="anchor", name=digest).days_left == 29
        content = (Path("/proc") / str(session.supervisor()) / f"root{SNAPSHOT}").read_bytes()
        assert hashlib.sha256(content).hexdigest() == second.store_sha256
        assert session.ask("post", "one")["status"] == 200
        (row,) = listed(session)
        assert (row["trust"]["overrides"], row["trust"]["anchored_by"]) == (["corp"], "custom")
        assert (row["trust"]["pin_mode"], row["trust"]["leaf_days_left"]) == ("enforce", 29)
        assert row["trust"]["store_sha256"] == second.store_sha256
        session.tell("leave", 0)
        assert session.wait() == 0
    assert len(session.events(TrustExpiring)) == 2
    session.assert_nothing_is_left()


@every_mode
def test_the_agent_cannot_read_or_replace_what_shows_the_trust(mode: str, where: Place, upstream: Upstream) -> None:
    with rig.start(mode, where, upstream.server("one")) as session:
        assert session.answer() == "up"
        snapshot = session.event(TrustSnapshot, server="one")
        starting = session.event(HelperStarting, server="one")
        assert (starting.pin_mode, starting.credential, starting.overrides_pins) == ("enforce", "pinned", [])
        path = Path(f"/proc/{session.supervisor()}/root{SNAPSHOT}")
        assert snapshot.file == SNAPSHOT
        assert hashlib.sha256(path.read_bytes()).hexdigest() == snapshot.store_sha256
        assert (path.stat().st_uid, oct(path.stat().st_mode), oct(path.parent.stat().st_mode)) == (
            0,
            "0o100400",
            "0o40700",
        )
        for attempt in (
            ("open", SNAPSHOT, os.O_RDONLY),
            ("unlink", SNAPSHOT),
            ("rename", SNAPSHOT, f"{SNAPSHOT}.old"),
            ("listdir", os.path.dirname(SNAPSHOT)),
            ("rename", os.path.dirname(SNAPSHOT), f"{os.path.dirname(SNAPSHOT)}.old"),
        ):
            assert session.ask("call", *attempt) == "EACCES"
        path.parent.chmod(0o777)
        path.chmod(0o444)
        assert session.ask("call", "unlink", SNAPSHOT) == "", "the control: the modes are what keeps it"
        session.tell("leave", 0)
        assert session.wait() == 0
    session.assert_nothing_is_left()


# -- who may ask --------------------------------------------------------------------------------------------------

KNOCK = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(20)
connection.connect({path!r})
try:
    connection.sendall(b'{{"reload":"trust","version":1}}\\n')
    print(connection.recv(1 << 16).decode()[:10])
except ConnectionError:
    print()
"""


def test_only_the_user_of_the_session_and_root_can_ask(where: Place, upstream: Upstream) -> None:
    with running(where, upstream.server("one")) as session:
        path = session.directory / "launcher.sock"
        assert (path.stat().st_uid, oct(path.stat().st_mode)) == (0, "0o140600")
        code = KNOCK.format(path=str(path))
        knock = ("setpriv", f"--reuid={session.uid_base}", "--clear-groups", "/usr/bin/python3", "-I", "-c", code)

        def said(*argv: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)

        for parent in (session.directory, *session.directory.parents):
            parent.chmod(parent.stat().st_mode | 0o055)
        assert "PermissionError" in said(*knock).stderr
        path.chmod(0o666)
        assert said(*knock).stdout == "\n", "its user is checked as well"
        assert said(*knock[3:]).stdout.startswith('{"needs_'), "the control"
        session.tell("leave", 0)
        assert session.wait() == 0


NONSENSE = {
    "garbage": b"\x00\xff\n",
    "another request": b'{"reload":"everything","version":1}\n',
    "a secret": b'{"reload":"trust","version":1,"secrets":{}}\n',
    "too long": b"x" * 4096,
    "nothing": b"",
}


def test_who_sends_nonsense_is_dropped_and_who_is_slow_holds_up_nobody(where: Place, upstream: Upstream) -> None:
    with running(where, upstream.server("one")) as session:
        path = str(session.directory / "launcher.sock")

        def connected() -> socket.socket:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(20)
            connection.connect(path)
            return connection

        for what, data in NONSENSE.items():
            with connected() as connection:
                connection.sendall(data)
                if not data:
                    connection.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    assert connection.recv(1) == b"", what
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(connected()) for _ in range(7)]
            for each in slow:
                each.sendall(b'{"rel')
            assert reload(where, session)[0] == 0
            full = stack.enter_context(connected())
            turned_away = stack.enter_context(connected())
            assert turned_away.recv(1) == b""
            for each in (*slow, full):  # some seconds later
                assert each.recv(1) == b""
        assert reload(where, session)[0] == 0
        assert session.ask("post", "one")["status"] == 200
        session.tell("leave", 0)
        assert session.wait() == 0
    assert session.sentences() == []


def test_no_such_session_is_3_and_a_word_that_is_none_2(where: Place, tmp_path: Path) -> None:
    def asked(session: str) -> tuple[int, str]:
        environment = {"HOME": str(where.home), "PATH": os.environ["PATH"]}
        done = subprocess.run(
            [*COMMAND, "trust", "reload", session], env=environment, check=False, capture_output=True, text=True
        )
        return done.returncode, done.stderr

    assert asked("20270301-00000000")[0] == 3
    assert asked("No Session")[0] == 2
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "launcher.sock"))
    stale.close()
    assert asked(str(tmp_path)) == (3, f"coding-agents: no session runs in {tmp_path}\n")


# -- SIGHUP -------------------------------------------------------------------------------------------------------


def test_without_a_terminal_a_hang_up_reloads(where: Place, upstream: Upstream) -> None:
    with running(where, upstream.server("one"), prefix=rig.WITHOUT_TERMINAL) as session:
        session.event(HelperReady, server="one")
        write(session, upstream.server("one"))
        session.signal(signal.SIGHUP)
        rig.wait_until(lambda: "taken" in session.stderr(), "the sentence")
        session.config.write_text("[[[")
        session.signal(signal.SIGHUP)
        rig.wait_until(lambda: "nothing was changed" in session.stderr(), "the sentence")
        assert session.ask("post", "one")["status"] == 200
        session.tell("leave", 5)
        assert session.wait() == 5
    first, second = session.sentences()
    assert first == "coding-agents: trust reload: one: taken, 0 connections kept, 0 closed"
    assert second.startswith("coding-agents: trust reload: nothing was changed: ")
    assert len(session.events(TrustReloaded)) == 1


def test_with_a_terminal_a_hang_up_ends_the_session_as_ever(where: Place, upstream: Upstream) -> None:
    with running(where, upstream.server("one"), prefix=rig.WITH_TERMINAL) as session:
        write(session, upstream.server("one"))
        session.signal(signal.SIGHUP)
        assert session.wait() == 128 + signal.SIGHUP
    assert session.events(TrustReloaded) == []
    session.assert_nothing_is_left()
