"""What a keeper makes of processes in its helper's place: nonsense and silence ended, restarts counted, stops heard.

Helpers themselves, and how a zygote makes them, are in integration/test_helper_*.
"""

import json
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from codingagents.supervisor import helper_layers, helper_life, helpers, lifecycle, zygote_client
from codingagents.supervisor.helper_life import Look
from codingagents.supervisor.helpers import HelperKeeper
from codingagents.supervisor.lifecycle import State
from codingagents.supervisor.processes import Children
from codingagents.supervisor.reaper import Reaper
from codingagents.supervisor.slots import Slot, bind_slot
from codingagents.supervisor.zygote_client import Zygote
from codingagents.trust.errors import ProcessError
from codingagents.trust.events import (
    EventsGap,
    HelperFailed,
    HelperReady,
    HelperStarting,
    HelperStopped,
    LayerReport,
)
from codingagents.trust.vocabulary import Secret
from keeper_scene import PONG, REMOTE, SERVE, Scene, SilentZygoteProcess, SpawningZygote, confined


@pytest.fixture
def slot() -> Iterator[Slot]:
    slot = bind_slot(REMOTE, 1234, Secret("bearer"))
    yield slot
    slot.listener.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper_life, "_CLOSED_SECONDS", 0.2)
    monkeypatch.setattr(helpers, "MAX_BACKOFF_SECONDS", 0.1)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("tell(fact='pin-mismatch')\ntime.sleep(60)", "sent what is no fact: "),
        ("tell(fact='ready', open_fds=[], server='other')\ntime.sleep(60)", "sent what is no fact: "),
        ("tell(**ready)\ntell(**ready)\ntime.sleep(60)", "sent what is no fact: ready twice"),
        ("channel.sendall(b'x' * 70_000)\ntime.sleep(60)", "sent what is no fact: a line is over the limit"),
        (
            "tell(fact='upstream-health', state='ok', error_type=None)\ntime.sleep(60)",
            "sent what is no fact: it was not",
        ),
        ("tell(fact='secrets-taken', names=[])\ntime.sleep(60)", "sent what is no fact: it was not ready"),
        (PONG, "sent what is no fact: a ping 1 was answered that was not asked"),
        ("channel.shutdown(socket.SHUT_RDWR)\ntime.sleep(60)", "killed by SIGKILL"),
    ],
)
def test_a_helper_that_speaks_nonsense_or_falls_silent_is_killed(
    tmp_path: Path, slot: Slot, script: str, reason: str
) -> None:
    scene = Scene(tmp_path, slot, [script, SERVE])

    async def act(scene: Scene) -> None:
        await scene.until(HelperStopped)
        await scene.until(HelperStarting, 2)

    scene.play(act)
    stopped = scene.of(HelperStopped)[0]
    assert isinstance(stopped, HelperStopped)
    assert stopped.exit_code == 128 + signal.SIGKILL
    assert stopped.reason.startswith(reason)
    assert stopped.restart_in_ms is not None


@pytest.mark.parametrize(
    ("look", "missing"),
    [
        (lambda _: replace(confined(1234), memory_owner=1234), "non_dumpable"),
        (lambda _: confined(0), "uid_drop"),
        (helper_layers.look, "uid_drop"),
    ],
)
def test_a_helper_that_is_not_confined_as_it_says_never_serves(
    tmp_path: Path, slot: Slot, look: Look, missing: str
) -> None:
    """The last is the script as it is, seen by the supervisor's own eyes. That one is given up, too: nobody serves."""
    scene = Scene(tmp_path, slot, [SERVE], look)

    async def act(scene: Scene) -> None:
        await scene.until(HelperStopped)
        assert scene.keeper.state is not State.READY

    scene.play(act)
    stopped = scene.of(HelperStopped)[0]
    assert isinstance(stopped, HelperStopped)
    assert stopped.exit_code == 128 + signal.SIGKILL
    assert stopped.reason.startswith(f"was seen without what must confine it: {missing}")
    assert stopped.restart_in_ms is not None
    assert scene.of(HelperReady) == []
    layers = scene.of(LayerReport)[0]
    assert isinstance(layers, LayerReport)
    assert {row.layer: row.state for row in layers.layers}[missing] == "unavailable"


def test_a_reason_that_a_helper_gives_is_the_one_recorded(tmp_path: Path, slot: Slot) -> None:
    scene = Scene(tmp_path, slot, ["tell(fact='failed', reason='no anchors')\nsys.exit(4)", SERVE])

    async def act(scene: Scene) -> None:
        await scene.until(HelperReady)

    scene.play(act)
    stopped = scene.of(HelperStopped)[0]
    assert isinstance(stopped, HelperStopped)
    assert (stopped.exit_code, stopped.reason) == (4, "no anchors")


def get(connection: socket.socket) -> tuple[bytes, bytes]:
    """Ask, read to the end, and return (head, body)."""
    connection.settimeout(10)
    connection.sendall(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
    data = b""
    while piece := connection.recv(65536):
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return head, body


def test_a_helper_that_keeps_ending_is_given_up_and_answered_for(
    tmp_path: Path, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "FIRST_BACKOFF_SECONDS", 0.01)
    scene = Scene(tmp_path, slot, ["sys.exit(9)"])
    port = slot.port

    def ask() -> tuple[bytes, bytes]:
        with socket.create_connection(("127.0.0.1", port)) as client:
            return get(client)

    async def act(scene: Scene) -> None:
        await scene.until(HelperFailed)
        head, body = await trio.to_thread.run_sync(ask)
        assert head.startswith(b"HTTP/1.1 503 ")
        assert json.loads(body)["error"]["data"]["code"] == "server_failed"
        assert scene.keeper.state is State.FAILED
        row = await scene.keeper.row()
        assert (row.state, row.pid, row.restarts, row.uptime_seconds) == ("failed", None, 5, None)

    scene.play(act)
    delays = [event.restart_in_ms for event in scene.events if isinstance(event, HelperStopped)]
    assert delays == [10, 20, 40, 80, 160, None]
    assert scene.zygote.lives == 6
    failed = scene.events[-1]
    assert isinstance(failed, HelperFailed)
    assert failed.reason == "too many restarts; last: exited with 9"
    with socket.socket() as impostor:
        impostor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="Address already in use"):
            impostor.bind(("127.0.0.1", port))  # what the agent sends there would be the impostor's


def test_a_helper_that_never_gets_ready_is_ended(tmp_path: Path, slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper_life, "_READY_SECONDS", 0.2)
    scene = Scene(tmp_path, slot, ["time.sleep(60)", SERVE])

    async def act(scene: Scene) -> None:
        await scene.until(HelperStopped)

    scene.play(act)
    stopped = scene.of(HelperStopped)[0]
    assert isinstance(stopped, HelperStopped)
    assert stopped.reason == "was not ready within 0 seconds"


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another UID needs root")
def test_what_a_helper_forked_does_not_outlive_it(tmp_path: Path, slot: Slot) -> None:
    """It would serve beside the next helper, with the same secrets and the same listening socket, and say nothing."""
    script = f"""
os.setresuid({slot.uid}, {slot.uid}, {slot.uid})
if os.fork() == 0:
    os.setsid()
    time.sleep(60)
tell(**ready)
sys.exit(3)
"""
    scene = Scene(tmp_path, slot, [script, SERVE])

    async def act(scene: Scene) -> None:
        await scene.until(HelperReady, 1)
        with trio.fail_after(10):
            while not scene.keeper._children.signal_users({slot.uid}, 0):  # noqa: ASYNC110 -- nothing announces it
                await trio.sleep(0.001)
        await scene.until(HelperReady, 2)
        assert scene.keeper._children.signal_users({slot.uid}, 0) == 0

    scene.play(act)


def test_a_full_disk_delays_a_helper_and_costs_it_no_restarts(tmp_path: Path, slot: Slot) -> None:
    scene = Scene(tmp_path, slot, [SERVE])
    kept = os.dup(scene.descriptor)
    os.dup2(os.open("/dev/full", os.O_WRONLY), scene.descriptor)

    async def act(scene: Scene) -> None:
        await scene.until_lost(lifecycle.RESTART_BUDGET + 2)
        assert scene.zygote.lives == 0, "what cannot be recorded is not made"
        os.dup2(kept, scene.descriptor)
        await scene.until(HelperReady)

    scene.play(act)
    gap, starting, *_ = scene.events
    assert isinstance(gap, EventsGap)
    assert gap.lost_kinds.keys() == {"helper.starting"}
    assert gap.lost > lifecycle.RESTART_BUDGET
    assert starting == HelperStarting(server="github", user_id=1234, attempt=1, credential="without-pin")
    assert scene.of(HelperFailed) == []


def test_a_stop_while_the_disk_is_full_is_heard(tmp_path: Path, slot: Slot) -> None:
    scene = Scene(tmp_path, slot, [SERVE])
    os.dup2(os.open("/dev/full", os.O_WRONLY), scene.descriptor)

    async def act(scene: Scene) -> None:
        await scene.until_lost(1)

    scene.play(act)
    assert scene.keeper.state is State.STOPPED
    assert scene.zygote.lives == 0


def test_a_stop_while_the_zygote_works_is_not_recorded_as_a_fault(tmp_path: Path, slot: Slot) -> None:
    """As `ending` does it: stop the keeper, then close the zygote, which never answered."""
    scene = Scene(tmp_path, slot, [SERVE])
    process = SilentZygoteProcess()
    with process.theirs:

        async def act(scene: Scene) -> None:
            scene.keeper._zygote = zygote = Zygote(process, Children())
            await scene.until(HelperStarting)
            await trio.testing.wait_all_tasks_blocked()
            await scene.keeper.stop(1)
            zygote.close()

        scene.play(act)
    (stopped,) = scene.of(HelperStopped)
    assert isinstance(stopped, HelperStopped)
    assert (stopped.process_pid, stopped.reason, stopped.restart_in_ms) == (0, "stopped before it was made", None)


def test_a_secret_that_did_not_come_is_named_before_anything_starts(slot: Slot) -> None:
    with pytest.raises(ProcessError, match=r"server github needs secrets that did not come: TOKEN"):
        HelperKeeper(
            slot,
            zygote=SpawningZygote(Children(), []),
            children=Children(),
            reaper=Reaper(Children()),
            log=None,  # type: ignore[arg-type]  # nothing is recorded: it fails before
            agent_uid=7,
            secrets={"OTHER": Secret("x")},
            trust=None,  # type: ignore[arg-type]  # likewise
        )


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_ones(
    slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One helper's process must never be taken for another server's."""
    monkeypatch.setattr(zygote_client, "_CLONE_SECONDS", 0.1)
    process = SilentZygoteProcess()
    ours, theirs = socket.socketpair()

    async def scene() -> None:
        zygote = Zygote(process, Children())
        with pytest.raises(ProcessError, match="does not answer"):
            await zygote.clone("one", theirs, slot.listener)
        with pytest.raises(ProcessError, match="does not answer"):
            await zygote.clone("two", theirs, slot.listener)
        zygote.close()

    with ours, theirs, process.theirs:
        trio.run(scene)
        process.theirs.setblocking(False)
        assert b'"one"' in process.theirs.recv(4096)
        assert process.theirs.recv(4096) == b"", "the second request was not even sent"
