"""What a keeper makes of processes in its helper's place: facts stamped, nonsense and silence ended, restarts counted.

Helpers themselves, and how a zygote makes them, are in integration/test_helper_*.
"""

import functools
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from codingagents.rewrite.specs import HeaderTemplate, RemoteSpec
from codingagents.supervisor import helpers, lifecycle, zygote_client
from codingagents.supervisor.early import ZygoteProcess
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.helpers import HelperKeeper
from codingagents.supervisor.lifecycle import State
from codingagents.supervisor.processes import Child, Children
from codingagents.supervisor.quota import Quota
from codingagents.supervisor.reaper import Reaper
from codingagents.supervisor.slots import Slot, bind_slot
from codingagents.supervisor.zygote_client import Zygote
from codingagents.trust import checkpoint
from codingagents.trust.encoding import decode_line
from codingagents.trust.errors import ProcessError
from codingagents.trust.events import (
    AnyEvent,
    EventsGap,
    FactsDropped,
    HelperFailed,
    HelperReady,
    HelperRefused,
    HelperRequest,
    HelperStarting,
    HelperStopped,
)
from codingagents.trust.vocabulary import Secret, SessionId

SESSION = SessionId("s-1")
KEY = checkpoint.new_key(b"\1" * 32)
REMOTE = RemoteSpec(
    name="github",
    scheme="https",
    host="example.test",
    port=443,
    path="/mcp",
    headers=[HeaderTemplate(name="Authorization", template="Bearer ${TOKEN}")],
)
SECRETS = {"TOKEN": Secret("t0ken"), "OTHER": Secret("another server's")}

# A helper's beginning: it reads its specification, as one line, from descriptor 3.
HELPER = """
import json, os, socket, sys, time
channel = socket.socket(fileno=3)
lines = channel.makefile("rw")
spec = json.loads(lines.readline())
def tell(**fact):
    print(json.dumps(fact), file=lines, flush=True)
ready = {"fact": "ready", "open_fds": ["socket"]}
request = {"fact": "request", "method": "POST", "status": 200, "error_type": None,
    "request_bytes": 1, "response_bytes": 2, "duration_ms": 3}
"""
SERVE = "tell(**ready)\nlines.readline()\n"  # until the channel is closed


class SpawningZygote(Zygote):
    """Makes a helper of a script instead of a clone; each life gets the next script, the last one for ever."""

    def __init__(self, children: Children, scripts: list[str]) -> None:
        self._children = children
        self._scripts = scripts
        self.lives = 0

    async def clone(self, server: str, channel: socket.socket, listener: socket.socket) -> Child:
        script = self._scripts[min(self.lives, len(self._scripts) - 1)]
        self.lives += 1
        await trio.lowlevel.checkpoint()
        fds = {2: 2, 3: channel.fileno(), 4: listener.fileno()}
        return self._children.spawn([sys.executable, "-I", "-c", HELPER + script], env={}, fds=fds)


class Scene:
    """A keeper in its surroundings; `script` is what its helpers do."""

    def __init__(self, directory: Path, slot: Slot, scripts: list[str]) -> None:
        self.path = directory / "events.jsonl"
        self.descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        sign = functools.partial(checkpoint.sign_checkpoint, KEY, session=SESSION)
        log = EventLog(self.descriptor, SESSION, sign)
        children = Children()
        self.reaper = Reaper(children)
        self.zygote = SpawningZygote(children, scripts)
        self.keeper = HelperKeeper(
            slot,
            zygote=self.zygote,
            children=children,
            reaper=self.reaper,
            log=log,
            agent_uid=7,
            secrets=SECRETS,
        )

    @property
    def events(self) -> list[AnyEvent]:
        return [decode_line(line).event for line in self.path.read_bytes().splitlines()]

    def of(self, kind: type) -> list[AnyEvent]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, kind: type, count: int = 1) -> None:
        with trio.fail_after(10):
            while len(self.of(kind)) < count:  # noqa: ASYNC110 -- the log announces nothing
                await trio.sleep(0.01)

    def play(self, act: Callable[["Scene"], Awaitable[None]]) -> None:
        """Run the keeper while `act` goes on, then stop it; it must end by itself."""

        async def scene() -> None:
            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    await nursery.start(self.reaper.run)
                    nursery.start_soon(self.keeper.run)
                    await act(self)
                    await self.keeper.stop(5.0)
                    await self.keeper.ended.wait()
                    nursery.cancel_scope.cancel()

        trio.run(scene)


@pytest.fixture
def slot() -> Iterator[Slot]:
    slot = bind_slot(REMOTE, 1234, Secret("bearer"))
    yield slot
    slot.listener.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helpers, "_CLOSED_SECONDS", 0.2)
    monkeypatch.setattr(helpers, "MAX_BACKOFF_SECONDS", 0.1)


def test_a_helper_is_told_its_specification_and_its_facts_are_stamped(tmp_path: Path, slot: Slot) -> None:
    script = """
assert spec["uid"] == spec["gid"] == 1234 and spec["agent_uid"] == 7 and spec["bearer"] == "bearer"
assert spec["secrets"] == {"TOKEN": "t0ken"}, "it gets only what its headers name"
assert spec["listen_port"] == socket.socket(fileno=4).getsockname()[1]
tell(**ready)
tell(**request)
tell(fact="refused", reason="uid", peer_user_id=5)
lines.readline()
"""
    scene = Scene(tmp_path, slot, [script])

    async def act(scene: Scene) -> None:
        await scene.until(HelperRefused)
        assert scene.keeper.state is State.READY

    scene.play(act)
    starting, ready, request, refused, stopped = scene.events
    assert starting == HelperStarting(server="github", user_id=1234, attempt=1)
    assert isinstance(ready, HelperReady)
    assert (ready.server, ready.user_id, ready.open_fds) == ("github", 1234, ["socket"])
    assert ready.listen == f"127.0.0.1:{slot.port}"
    assert isinstance(request, HelperRequest)
    assert (request.server, request.http_request_method, request.http_response_status_code) == ("github", "POST", 200)
    assert isinstance(refused, HelperRefused)
    assert isinstance(stopped, HelperStopped)
    assert (stopped.process_pid, stopped.exit_code, stopped.reason) == (ready.process_pid, 143, "killed by SIGTERM")
    assert stopped.restart_in_ms is None


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("tell(fact='pin-mismatch')\ntime.sleep(60)", "sent what is no fact: "),
        ("tell(fact='ready', open_fds=[], server='other')\ntime.sleep(60)", "sent what is no fact: "),
        ("tell(**ready)\ntell(**ready)\ntime.sleep(60)", "sent what is no fact: ready twice"),
        ("lines.write('x' * 70_000)\nlines.flush()\ntime.sleep(60)", "sent what is no fact: a line is over the limit"),
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


def test_a_reason_that_a_helper_gives_is_the_one_recorded(tmp_path: Path, slot: Slot) -> None:
    scene = Scene(tmp_path, slot, ["tell(fact='failed', reason='no anchors')\nsys.exit(4)", SERVE])

    async def act(scene: Scene) -> None:
        await scene.until(HelperReady)

    scene.play(act)
    stopped = scene.of(HelperStopped)[0]
    assert isinstance(stopped, HelperStopped)
    assert (stopped.exit_code, stopped.reason) == (4, "no anchors")


def test_a_helper_that_keeps_ending_is_given_up_and_its_port_is_closed(
    tmp_path: Path, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "FIRST_BACKOFF_SECONDS", 0.01)
    scene = Scene(tmp_path, slot, ["sys.exit(9)"])
    port = slot.port

    async def act(scene: Scene) -> None:
        await scene.until(HelperFailed)

    scene.play(act)
    delays = [event.restart_in_ms for event in scene.events if isinstance(event, HelperStopped)]
    assert delays == [10, 20, 40, 80, 160, None]
    assert scene.zygote.lives == 6
    failed = scene.events[-1]
    assert isinstance(failed, HelperFailed)
    assert failed.reason == "too many restarts; last: exited with 9"
    with socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(("127.0.0.1", port))
    with socket.socket() as impostor:
        impostor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="Address already in use"):
            impostor.bind(("127.0.0.1", port))  # what the agent sends there would be the impostor's
        slot.listener.close()
        impostor.bind(("127.0.0.1", port))


def test_what_is_over_the_quota_is_counted_at_the_latest_when_the_helper_ends(
    tmp_path: Path, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helpers, "Quota", functools.partial(Quota, rate=0.0, burst=3.0))
    scene = Scene(tmp_path, slot, ["tell(**ready)\nfor _ in range(10): tell(**request)\nsys.exit(0)", SERVE])

    async def act(scene: Scene) -> None:
        await scene.until(HelperStopped)

    scene.play(act)
    assert len(scene.of(HelperRequest)) == 2
    dropped = [event.dropped for event in scene.events if isinstance(event, FactsDropped)]
    assert dropped == [8]


def test_long_facts_use_the_quota_up_sooner(tmp_path: Path, slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper that is not ours any more cannot fill the disk with long lines; short facts are the control."""
    monkeypatch.setattr(helpers, "Quota", functools.partial(Quota, rate=0.0, burst=100.0))
    script = "tell(**ready)\nfor _ in range(20): tell(**{**request, 'method': 'x' * %d})\nsys.exit(0)"
    scene = Scene(tmp_path, slot, [script % 60_000, script % 4, SERVE])

    async def act(scene: Scene) -> None:
        await scene.until(HelperStopped, 2)

    scene.play(act)
    sizes = Counter(len(event.http_request_method) for event in scene.events if isinstance(event, HelperRequest))
    assert sizes == {60_000: 1, 4: 20}
    assert [event.dropped for event in scene.events if isinstance(event, FactsDropped)] == [19]


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
        await trio.sleep(0.8)  # eight tries: more than the restart budget
        assert scene.zygote.lives == 0, "what cannot be recorded is not made"
        os.dup2(kept, scene.descriptor)
        await scene.until(HelperReady)

    scene.play(act)
    gap, starting, *_ = scene.events
    assert isinstance(gap, EventsGap)
    assert gap.lost_kinds.keys() == {"helper.starting"}
    assert gap.lost > 5
    assert starting == HelperStarting(server="github", user_id=1234, attempt=1)
    assert scene.of(HelperFailed) == []


def test_a_stop_while_the_disk_is_full_is_heard(tmp_path: Path, slot: Slot) -> None:
    scene = Scene(tmp_path, slot, [SERVE])
    os.dup2(os.open("/dev/full", os.O_WRONLY), scene.descriptor)

    async def act(scene: Scene) -> None:
        await trio.sleep(0.05)

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
        )


class SilentZygoteProcess(ZygoteProcess):
    """The zygote's channel without a zygote; `theirs` is its end."""

    def __init__(self) -> None:
        self.channel, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.child = Child(1, -1)


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
