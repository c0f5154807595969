"""A session is stopped or killed at every point of its start: nothing of it is left then, and its log is whole."""

from __future__ import annotations

import functools
import os
import signal
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import session_rig as rig
from codingagents.trust.events import AgentStarted, SessionEnded
from session_rig import Place, Session, every_mode
from session_upstream import Upstream

pytest_plugins = ("session_fixtures",)  # where


AT_ONCE = 2  # sessions; more would only slow one another down
TERMS = 40  # points in time from nothing to one and a half times the start
KILLS = 10
PLAIN = 12  # one after the other: plain directories serve one session at a time
STOPPED = 128 + signal.SIGTERM


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


@pytest.fixture(scope="module")
def config(upstream: Upstream) -> str:
    return upstream.server("one") + upstream.server("two")


@functools.cache
def start_seconds(mode: str, where: Place, config: str) -> float:
    """How long it takes until the agent runs, with as many sessions at once as in the tests."""

    def once(_: int) -> float:
        begun = time.monotonic()
        with rig.start(mode, where, config) as session:
            assert session.answer() == "up"
            return time.monotonic() - begun

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return statistics.median(pool.map(once, range(2 * AT_ONCE)))


def sweep(
    mode: str, where: Place, config: str, count: int, stop: Callable[[Session], object]
) -> list[tuple[float, int, Session]]:
    """Start `count` sessions, call `stop` on each a little later after its start, and return (delay, code, session)."""
    longest = 1.5 * start_seconds(mode, where, config)

    def once(number: int) -> tuple[float, int, Session]:
        delay = longest * number / (count - 1)
        with rig.start(mode, where, config) as session:
            time.sleep(delay)
            stop(session)
            code = session.wait()
            session.assert_nothing_is_left()
        return delay, code, session

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(once, range(count)))


def assert_log_is_whole(session: Session, code: int) -> None:
    """A log, where the session had come to have one, tells of the end and verifies."""
    if session.log.exists():
        assert session.verify().closed
        (ended,) = session.events(SessionEnded)
        assert ended.exit_code == code


@every_mode
def test_sigterm_at_any_moment_of_the_start(mode: str, where: Place, config: str) -> None:
    """Exit 143, nothing left; the points reach from before the first instruction to a running agent."""
    ends = sweep(mode, where, config, TERMS, lambda session: session.signal(signal.SIGTERM))
    for delay, code, session in ends:
        assert code == STOPPED, f"after {delay:.3f} s: {session.stderr()}"
        assert session.sentences() == []
        assert_log_is_whole(session, STOPPED)
    # The sweep would prove little if it did not reach both ends.
    assert not ends[0][2].log.exists()
    assert ends[-1][2].events(AgentStarted)


@every_mode
def test_sigterm_to_the_supervisor_after_each_line_of_its_log(mode: str, where: Place, config: str) -> None:
    """As an engine does it, which knows no launcher."""
    with rig.start(mode, where, config) as session:
        session.event(AgentStarted)
        lines = len(session.records())

    def once(number: int) -> int:
        with rig.start(mode, where, config) as session:
            rig.wait_until(
                lambda: session.log.exists() and session.log.read_bytes().count(b"\n") >= number, "a line", pause=0.001
            )
            os.kill(session.supervisor(), signal.SIGTERM)
            assert session.wait() == STOPPED
            session.assert_nothing_is_left()
        assert_log_is_whole(session, STOPPED)
        return len(session.records())

    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert lines > 5
        list(pool.map(once, range(1, lines + 1)))


def test_sigterm_at_any_moment_where_nothing_can_be_mounted(where: Place, config: str) -> None:
    """With Docker's default Linux capabilities the session's directories are plain ones, which nobody else removes."""
    with rig.start("subreaper", where, config, prefix=rig.DOCKER_CAPABILITIES) as session:
        assert session.answer() == "up"
        assert os.listdir("/run/coding-agents") != []  # the control: there is something to remove
        session.signal(signal.SIGTERM)
        assert session.wait() == STOPPED
        session.assert_nothing_is_left()
    for number in range(PLAIN):
        delay = 1.5 * start_seconds("subreaper", where, config) * number / (PLAIN - 1)
        with rig.start("subreaper", where, config, prefix=rig.DOCKER_CAPABILITIES) as session:
            time.sleep(delay)
            session.signal(signal.SIGTERM)
            assert session.wait() == STOPPED, f"after {delay:.3f} s: {session.stderr()}"
            session.assert_nothing_is_left()
        assert session.sentences() == []
        assert_log_is_whole(session, STOPPED)


@every_mode
def test_the_death_of_the_launcher_at_any_moment(mode: str, where: Place, config: str) -> None:
    """The end of its control channel ends the session, in order."""

    def stop(session: Session) -> None:
        if session.control is not None:
            session.control.close()
        else:
            session.signal(signal.SIGKILL)

    for _, code, session in sweep(mode, where, config, KILLS, stop):
        assert code == (125 if session.control is not None else 128 + signal.SIGKILL)
        assert_log_is_whole(session, 125)


@every_mode
def test_the_death_of_the_supervisor_at_any_moment(mode: str, where: Place, config: str) -> None:
    """PID 1 takes everyone along; a subreaper's children die by the kernel's signal or by end of file."""

    def stop(session: Session) -> None:
        pid = session.process.pid if mode == "subreaper" else next(iter(session.supervisors()), 0)
        if pid:
            os.kill(pid, signal.SIGKILL)
        else:
            session.signal(signal.SIGTERM)

    ends = sweep(mode, where, config, KILLS, stop)
    codes = [code for _, code, _ in ends]
    assert set(codes) <= {128 + signal.SIGKILL, STOPPED}
    assert codes.count(128 + signal.SIGKILL) >= KILLS // 2
    assert any(session.events(AgentStarted) for _, _, session in ends)


def test_what_a_killed_supervisor_left_in_plain_directories_is_taken_over(where: Place, upstream: Upstream) -> None:
    """Its lock went with it, and only with it: beside one that lives, a second session is refused."""
    config = upstream.server("one") + upstream.server("two", keys='listen = "unix"\nclient_auth = ["uid"]')
    with rig.start("subreaper", where, config, prefix=rig.DOCKER_CAPABILITIES) as session:
        assert session.answer() == "up"
        assert session.ask("post", "two")["status"] == 200
        with rig.start("subreaper", where, config, prefix=rig.DOCKER_CAPABILITIES) as second:
            assert second.wait() == 125
            assert "another session runs here" in second.stderr()
        assert session.ask("post", "two")["status"] == 200  # and nothing was taken from the first
        os.kill(session.process.pid, signal.SIGKILL)
        session.wait()
        rig.wait_until(lambda: not session.pids(), "the end of every process of the session")
    left = "/run/coding-agents/mcp/two.sock"
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(left)  # the control: there is something left, and it is harmless
    with rig.start("subreaper", where, config, prefix=rig.DOCKER_CAPABILITIES) as heir:
        assert heir.answer() == "up"
        assert heir.ask("post", "one")["status"] == heir.ask("post", "two")["status"] == 200
        heir.tell("leave", 0)
        assert heir.wait() == 0
    heir.assert_nothing_is_left()


def test_directories_that_no_session_left_are_not_touched(where: Place, config: str) -> None:
    kept = "/run/coding-agents/somebody-elses"
    os.makedirs(kept)
    try:
        with rig.start("subreaper", where, config, prefix=rig.DOCKER_CAPABILITIES) as session:
            assert session.wait() == 125
            assert "no session left it so" in session.stderr()
        assert os.listdir("/run/coding-agents") == ["somebody-elses"]
    finally:
        os.removedirs(kept)
