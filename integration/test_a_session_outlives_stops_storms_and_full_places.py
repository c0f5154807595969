"""What root or a neighbour does to a whole session: stops it for a while, kills all its helpers, fills its places."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import session_rig as rig
from codingagents.rewrite.places import AGENT_HOME, RUN_ROOT
from codingagents.supervisor.health import INTERVAL_SECONDS, SILENT_INTERVALS
from codingagents.trust.events import (
    ExecAllowed,
    HelperDegraded,
    HelperFailed,
    HelperReady,
    HelperStarting,
    HelperStopped,
    TrustSnapshot,
    ZygoteReplaced,
)
from session_rig import DOCKER_CAPABILITIES, Place, Session, every_mode
from session_upstream import Upstream

pytest_plugins = ("session_fixtures",)  # where, upstream

FILL_HOME = f"""
import errno
with open("{AGENT_HOME}/ballast", "wb", buffering=0) as file:
    for size in (1 << 20, 4096):
        try:
            while True: file.write(bytes(size))
        except OSError as error:
            assert error.errno == errno.ENOSPC
"""
STORM = tuple(f"s{number}" for number in range(10))
BACKOFFS = [100, 200, 400, 800, 1600, None]


def served(answer: dict[str, Any]) -> bool:
    return (answer["status"], answer.get("body")) == (200, "ok")


def test_a_supervisor_that_is_stopped_for_a_while_blames_nobody_for_it(where: Place, upstream: Upstream) -> None:
    """For longer than it waits for a helper's answers. Helpers serve meanwhile; what needs it waits, and goes on.

    That a helper which is stopped for as long is killed is in test_a_session_serves_while_parts_of_it_fail.
    """
    with (
        rig.start("pid1", where, upstream.server("one")) as first,
        rig.start("subreaper", where, upstream.server("one")) as second,
    ):
        for session in (first, second):
            assert session.answer() == "up"
            session.event(HelperReady)
            os.kill(session.supervisor(), signal.SIGSTOP)
        until = time.monotonic() + INTERVAL_SECONDS * (SILENT_INTERVALS + 1)
        while time.monotonic() < until:
            for session in (first, second):
                assert served(session.ask("post", "one"))
            time.sleep(0.2)
        for session in (first, second):
            session.tell("run", "/bin/true")  # decided by the one that is stopped
            os.kill(session.supervisor(), signal.SIGCONT)
            assert session.answer()["code"] == 0
        for session in (first, second):
            assert served(session.ask("post", "one"))
            assert session.events(HelperDegraded) == []
            assert session.events(HelperStopped) == []
            assert session.events(ZygoteReplaced) == []
            session.tell("leave", 0)
            assert session.wait() == 0
            assert session.verify().closed
    first.assert_nothing_is_left()


@every_mode
def test_ten_helpers_that_die_at_each_start_cost_nobody_else_anything(
    mode: str, where: Place, upstream: Upstream
) -> None:
    """Each has its backoffs and is given up; the one beside them, the control, serves all through the storm."""
    config = "".join(upstream.server(name) for name in (*STORM, "beside"))
    with rig.start(mode, where, config) as session:
        assert session.answer() == "up"
        session.event(HelperReady, server="beside")
        calm = threading.Event()
        killer = threading.Thread(target=kill_all_of_the_storm, args=(session, calm))
        killer.start()
        try:
            while len(session.events(HelperFailed)) < len(STORM):
                answer = session.ask("post", "beside")
                assert served(answer)
                assert answer["seconds"] < 5
                assert killer.is_alive(), "in vain"
        finally:
            calm.set()
            killer.join()
        stopped = session.events(HelperStopped)
        for name in STORM:
            mine = [event for event in stopped if event.server == name]
            assert [event.restart_in_ms for event in mine] == BACKOFFS
            assert {event.reason for event in mine} == {"killed by SIGKILL"}
            assert [event.attempt for event in session.events(HelperStarting) if event.server == name] == [
                *range(1, len(BACKOFFS) + 1)
            ]
        answers = session.ask("post_at_once", *([name] for name in STORM))
        assert [answer["status"] for answer in answers] == [503] * len(STORM)
        assert all("server_failed" in answer["body"] for answer in answers)
        assert {event.server for event in stopped} == set(STORM)
        assert session.events(ZygoteReplaced) == []
        assert session.ask("run", "/bin/true")["code"] == 0
        session.tell("leave", 5)
        assert session.wait() == 5
    assert session.verify().closed
    session.assert_nothing_is_left()


def kill_all_of_the_storm(session: Session, calm: threading.Event) -> None:
    """Kill each of these helpers as soon as it is there, until it is calm or no use."""
    names = {f"helper {name}" for name in STORM}
    until = time.monotonic() + 60
    while not calm.is_set() and time.monotonic() < until:
        for pid in session.pids():
            if rig.comm(pid) in names:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@every_mode
def test_an_agent_that_fills_the_sessions_own_places_stops_no_helper(
    mode: str, where: Place, upstream: Upstream
) -> None:
    """Its home lies in the tmpfs that the supervisor writes to as well: what cannot be kept there is said."""
    with rig.start(mode, where, upstream.server("one")) as session:
        assert session.answer() == "up"
        assert served(session.ask("post", "one"))
        assert session.ask("run", "/usr/bin/python3", "-I", "-c", FILL_HOME)["code"] == 0
        assert os.statvfs(f"/proc/{session.supervisor()}/root{RUN_ROOT}").f_bavail == 0
        os.kill(session.named("helper one"), signal.SIGKILL)
        rig.wait_until(lambda: len(session.events(HelperReady)) == 2, "the next helper")
        assert served(session.ask("post", "one"))
        assert [snapshot.file is None for snapshot in session.events(TrustSnapshot)] == [False, True]
        assert session.ask("run", "/bin/true")["code"] == 0
        session.tell("leave", 3)
        assert session.wait() == 3
    (sentence,) = session.sentences()
    assert sentence.startswith("coding-agents: there is no copy of what one trusts at ")
    assert session.verify().closed
    session.assert_nothing_is_left()


@pytest.mark.parametrize("options", ["size=4k", "nr_inodes=2", "nr_inodes=5", "nr_inodes=7", "nr_inodes=9"])
def test_a_session_for_whose_places_there_is_no_room_is_refused_with_a_sentence(
    where: Place, upstream: Upstream, options: str
) -> None:
    """Wherever in its start the room ends; as in a container, whose engine mounted what is too small."""
    with mounted(options), start_in_a_container(where, upstream) as session:
        assert session.wait() == 125
        sentences = session.stderr().splitlines()
        assert all(each.startswith("coding-agents: ") for each in sentences)
        assert sentences[0].endswith(": No space left on device")
        assert session.events(ExecAllowed) == []
        assert os.listdir(RUN_ROOT) == []
    assert session.verify().closed
    session.assert_nothing_is_left()


def test_control_with_room_the_same_session_starts(where: Place, upstream: Upstream) -> None:
    with mounted("size=1m"), start_in_a_container(where, upstream) as session:
        assert session.answer() == "up"
        assert served(session.ask("post", "one"))
        session.tell("leave", 0)
        assert session.wait() == 0
        assert session.sentences() == []


@contextlib.contextmanager
def mounted(options: str) -> Iterator[None]:
    """Have a tmpfs of these options where the session's own directories go."""
    os.makedirs(RUN_ROOT, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=0755,{options}", "too-small", RUN_ROOT], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", RUN_ROOT], check=True)


@contextlib.contextmanager
def start_in_a_container(where: Place, upstream: Upstream) -> Iterator[Session]:
    """Start one that may mount nothing itself."""
    config = upstream.server("one") + upstream.server("two", keys='listen = "unix"\nclient_auth = ["uid"]')
    with rig.start("subreaper", where, config, prefix=DOCKER_CAPABILITIES) as session:
        yield session
