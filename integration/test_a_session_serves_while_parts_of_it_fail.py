"""Helpers are killed, upstreams are mute or the wrong ones, a neighbour is stopped: the rest goes on as before."""

from __future__ import annotations

import datetime
import json
import os
import signal
from typing import Any

import pytest

import session_rig as rig
from codingagents.rewrite.specs import RenewedSecrets
from codingagents.trust import wire
from codingagents.trust.events import (
    Event,
    HelperDegraded,
    HelperDraining,
    HelperFailed,
    HelperReady,
    HelperRequest,
    HelperSecrets,
    HelperStarting,
    HelperStopped,
    PinMismatch,
    SessionEnded,
    UpstreamFailed,
    ZygoteReplaced,
)
from codingagents.trust.vocabulary import Secret
from session_rig import Place, Session, every_mode
from session_upstream import TOKEN, Upstream

pytest_plugins = ("session_fixtures",)  # where, upstream


OK = {"status": 200, "body": "ok"}


def answered(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key in {"status", "body", "error"}}


def code_of(answer: dict[str, Any]) -> str:
    """Return the stable code in an answer that the helper made itself."""
    return str(json.loads(answer["body"])["error"]["data"]["code"])


def lives(session: Session, server: str) -> int:
    return sum(event.server == server for event in session.events(HelperReady))


def time_of(session: Session, event: Event) -> datetime.datetime:
    return next(datetime.datetime.fromisoformat(record.time) for record in session.records() if record.event == event)


@every_mode
@pytest.mark.parametrize("below", ["/stream", "/hold"])
def test_a_helper_that_is_killed_mid_request_is_back_within_its_backoff(
    mode: str, below: str, where: Place, upstream: Upstream
) -> None:
    """Its client sees a broken connection and never a clean end; the next one waits and is served."""
    with rig.start(mode, where, upstream.server("one")) as session:
        assert session.answer() == "up"
        first = session.event(HelperReady)
        if below == "/stream":
            assert session.ask("begin", "one", below) == {"status": 200, "line": "data: first\n"}
            os.kill(session.named("helper one"), signal.SIGKILL)
            broken = session.ask("finish", "one")["error"]
        else:
            session.tell("post", "one", below)
            rig.wait_until(lambda: upstream.received, "the request at the upstream")
            os.kill(session.named("helper one"), signal.SIGKILL)
            broken = session.answer()["error"]
        assert broken in {"IncompleteRead", "RemoteDisconnected", "ConnectionResetError"}
        assert answered(session.ask("post", "one")) == OK

        stopped = session.event(HelperStopped)
        assert (stopped.exit_code, stopped.reason) == (128 + signal.SIGKILL, "killed by SIGKILL")
        assert stopped.restart_in_ms == 100
        again = session.event(HelperStarting, attempt=2)
        assert (again.server, again.user_id) == ("one", first.user_id)
        ready = session.events(HelperReady)[1]
        assert ready.process_pid != first.process_pid
        assert ready.listen == first.listen  # the client's configuration stays true
        assert time_of(session, again) - time_of(session, stopped) >= datetime.timedelta(milliseconds=100)
        assert time_of(session, ready) - time_of(session, stopped) < datetime.timedelta(seconds=2)
        session.tell("leave", 0)
        assert session.wait() == 0
    assert session.verify().closed
    session.assert_nothing_is_left()


@every_mode
def test_a_zygote_that_is_killed_is_replaced_and_no_helper_notices(mode: str, where: Place, upstream: Upstream) -> None:
    """The next helper is made by the new one."""
    with rig.start(mode, where, upstream.server("one") + upstream.server("two")) as session:
        assert session.answer() == "up"
        before = {name: session.event(HelperReady, server=name).process_pid for name in ("one", "two")}
        former = session.named("helper zygote")
        os.kill(former, signal.SIGKILL)
        replaced = session.event(ZygoteReplaced)
        assert replaced.reason == "killed by SIGKILL"
        rig.wait_until(lambda: session.named("helper zygote") != former, "a new zygote")
        assert session.events(HelperStopped) == []
        assert answered(session.ask("post", "one")) == OK
        os.kill(session.named("helper one"), signal.SIGKILL)
        assert answered(session.ask("post", "one")) == OK
        assert session.events(HelperReady)[-1].process_pid not in before.values()
        assert [event.server for event in session.events(HelperStopped)] == ["one"]
        assert answered(session.ask("post", "two")) == OK
        session.tell("leave", 0)
        assert session.wait() == 0
    assert session.verify().closed
    session.assert_nothing_is_left()


@every_mode
def test_a_zygote_that_hangs_is_replaced(mode: str, where: Place, upstream: Upstream) -> None:
    """It keeps its channel open, and would let a helper's place stay empty for ever. Those that are there serve."""
    with rig.start(mode, where, upstream.server("one") + upstream.server("two")) as session:
        assert session.answer() == "up"
        for name in ("one", "two"):
            session.event(HelperReady, server=name)
        os.kill(session.named("helper zygote"), signal.SIGSTOP)
        assert answered(session.ask("post", "one")) == OK
        os.kill(session.named("helper one"), signal.SIGKILL)
        session.event(HelperStarting, server="one", attempt=2)
        while not session.events(ZygoteReplaced):
            assert answered(session.ask("post", "two")) == OK
        session.event(ZygoteReplaced, reason="killed by SIGKILL")
        rig.wait_until(lambda: lives(session, "one") == 2, "the next helper")
        assert answered(session.ask("post", "one")) == OK
        assert lives(session, "two") == 1


def test_a_helper_that_hangs_is_degraded_and_replaced(where: Place, upstream: Upstream) -> None:
    """Its listening socket takes connections all the while; without the probe their clients would wait for ever."""
    with rig.start("subreaper", where, upstream.server("one")) as session:
        assert session.answer() == "up"
        first = session.event(HelperReady)
        os.kill(session.named("helper one"), signal.SIGSTOP)
        session.tell("post", "one")
        degraded = session.event(HelperDegraded)
        assert degraded.reason == "it answers its probe late"
        stopped = rig.wait_until(lambda: session.events(HelperStopped), "its end", patience=30)[0]
        assert (stopped.process_pid, stopped.reason) == (first.process_pid, "did not answer its probe")
        session.answer()  # what the one that hung had accepted is lost; what came later is not
        assert answered(session.ask("post", "one")) == OK


@every_mode
def test_a_server_that_failed_is_answered_for_and_the_session_lives_on(
    mode: str, where: Place, upstream: Upstream
) -> None:
    """Over each kind of listener; its neighbour and the agent are not touched."""
    kinds = ("http", "https", "unix")
    keys = {kind: f'listen = "{kind}"' for kind in kinds} | {"unix": 'listen = "unix"\nclient_auth = ["uid"]'}
    config = "".join(upstream.server(kind, keys=keys[kind]) for kind in kinds) + upstream.server("beside")
    with rig.start(mode, where, config) as session:
        assert session.answer() == "up"
        for kind in (*kinds, "beside"):
            assert answered(session.ask("post", kind)) == OK
        for life in range(1, 7):
            for kind in kinds:
                rig.wait_until(lambda: lives(session, kind) == life, "the next helper")  # noqa: B023 -- called at once
                os.kill(session.named(f"helper {kind}"), signal.SIGKILL)
        for kind in kinds:
            session.event(HelperFailed, server=kind)
            answer = session.ask("post", kind)
            assert (answer["status"], code_of(answer)) == (503, "server_failed")
        assert answered(session.ask("post", "beside")) == OK
        session.tell("leave", 4)
        assert session.wait() == 4
    assert session.verify().closed
    session.assert_nothing_is_left()


def test_a_renewed_secret_is_attached_from_the_next_request_on(where: Place, upstream: Upstream) -> None:
    """By the live helper, by the next one, and never in the log; what the session does not have is not taken."""
    new = "renewed-token-of-this-session-9876543210"
    with rig.start("subreaper", where, upstream.server("one")) as session:
        assert session.answer() == "up"
        assert answered(session.ask("post", "one")) == OK
        assert session.control is not None
        renewed = RenewedSecrets(secrets={"TOKEN": Secret(new), "FOREIGN": Secret("x" * 20)})
        session.control.sendall(wire.encode(renewed, reveal_secrets=True))
        taken = session.event(HelperSecrets)
        assert (taken.server, taken.names, taken.problem) == ("one", ["TOKEN"], None)
        assert new.encode() not in upstream.received
        session.ask("post", "one")
        assert upstream.received.count(f"Bearer {new}".encode()) == 1
        os.kill(session.named("helper one"), signal.SIGKILL)
        rig.wait_until(lambda: len(session.events(HelperReady)) == 2, "the next helper")
        session.ask("post", "one")
        assert upstream.received.count(f"Bearer {new}".encode()) == 2
        session.ask("run", "/bin/echo", TOKEN, new)
        session.tell("leave", 0)
        assert session.wait() == 0
    assert session.sentences() == ["coding-agents: secrets that this session does not have were not renewed: FOREIGN"]
    log = session.log.read_text()
    assert new not in log
    assert TOKEN not in log
    assert log.count("[secret TOKEN]") >= 2


@every_mode
def test_helpers_are_drained_at_the_end(mode: str, where: Place, upstream: Upstream) -> None:
    with rig.start(mode, where, upstream.server("one")) as session:
        assert session.answer() == "up"
        assert answered(session.ask("post", "one")) == OK
        session.tell("leave", 0)
        assert session.wait() == 0
    draining, stopped = session.event(HelperDraining), session.event(HelperStopped)
    assert (draining.server, draining.deadline_ms) == ("one", 6000)
    assert (stopped.exit_code, stopped.restart_in_ms) == (0, None)
    assert time_of(session, draining) <= time_of(session, stopped)


def test_control_the_same_stream_ends_cleanly_where_nobody_is_killed(where: Place, upstream: Upstream) -> None:
    """Without this the test above could be content with a client that always complains."""
    with rig.start("pid1", where, upstream.server("one")) as session:
        assert session.answer() == "up"
        session.ask("begin", "one", "/stream")
        upstream.release.set()
        assert session.ask("finish", "one")["error"] is None


@every_mode
def test_an_upstream_that_never_answers_costs_only_who_asked_it(mode: str, where: Place, upstream: Upstream) -> None:
    """504 within connect_seconds where it accepts and never speaks TLS, within idle_seconds where it never answers."""
    with Upstream(tls=False) as mute:
        config = upstream.server("slow", limits="idle_seconds = 2") + mute.server("mute", limits="connect_seconds = 1")
        with rig.start(mode, where, config) as session:
            assert session.answer() == "up"
            session.ask("post", "slow")  # connections are warm, so that the times below are those of the limits
            requests = [["mute"], ["slow", "/hold"], ["mute"], ["slow"], ["slow"]]
            mute1, held, mute2, fine1, fine2 = session.ask("post_at_once", *requests)
            for answer in (mute1, mute2):
                assert (answer["status"], code_of(answer)) == (504, "connect_timeout")
                assert 1 <= answer["seconds"] < 2
            assert (held["status"], code_of(held)) == (504, "upstream_timeout")
            assert 2 <= held["seconds"] < 4
            for answer in (fine1, fine2):  # by the very helper that holds the other request
                assert answered(answer) == OK
                assert answer["seconds"] < 1
            failed = session.event(UpstreamFailed, error_type="connect_timeout")
            assert failed.server == "mute"
            assert session.event(HelperRequest, error_type="upstream_timeout").server == "slow"
            assert session.events(HelperStopped) == []


@every_mode
def test_wrong_pins_are_refused_before_a_byte_and_the_server_beside_works(
    mode: str, where: Place, upstream: Upstream
) -> None:
    """The judge is the other server's own record: it was reached, and was sent nothing of HTTP."""
    with Upstream() as impostor:
        config = upstream.server("right") + impostor.server("wrong", pins="wrong")
        with rig.start(mode, where, config) as session:
            assert session.answer() == "up"
            right, wrong = session.ask("post_at_once", ["right"], ["wrong"])
            assert answered(right) == OK
            assert (wrong["status"], code_of(wrong)) == (502, "pin_mismatch")
            assert (impostor.connections, impostor.received) == (1, b"")
            mismatch = session.event(PinMismatch)
            assert mismatch.server == "wrong"
            assert f"{impostor.pin} at root" in mismatch.seen
            assert not any(pin.startswith(impostor.pin) for pin in mismatch.expected)
            assert answered(session.ask("post", "right")) == OK
            assert TOKEN.encode() in upstream.received  # the control: there it was sent


@every_mode
def test_two_sessions_at_the_same_time_know_nothing_of_each_other(mode: str, where: Place, upstream: Upstream) -> None:
    """Each has its own helpers, identities and log, and the end of one is not noticed by the other."""
    with (
        rig.start(mode, where, upstream.server("one")) as first,
        rig.start(mode, where, upstream.server("one")) as second,
    ):
        for session in (first, second):
            assert session.answer() == "up"
            assert answered(session.ask("post", "one")) == OK
        assert first.ask("endpoint", "one") != second.ask("endpoint", "one")
        first.signal(signal.SIGTERM)
        assert first.wait() == 128 + signal.SIGTERM
        rig.wait_until(lambda: not first.pids(), "the end of the first session")
        assert answered(second.ask("post", "one")) == OK
        assert second.events(HelperStopped) == []
        second.tell("leave", 3)
        assert second.wait() == 3
    for session, code in ((first, 128 + signal.SIGTERM), (second, 3)):
        assert session.verify().closed
        assert [event.exit_code for event in session.events(SessionEnded)] == [code]
        session.assert_nothing_is_left()
