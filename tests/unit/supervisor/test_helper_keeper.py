"""What a keeper makes of processes in its helper's place: facts stamped, nonsense and silence ended, restarts counted.

Helpers themselves, and how a zygote makes them, are in integration/test_helper_*.
"""

import functools
import json
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
from codingagents.supervisor import health, helper_life, helpers, lifecycle, zygote_client
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
    HelperDegraded,
    HelperDraining,
    HelperFailed,
    HelperReady,
    HelperRecovered,
    HelperRefused,
    HelperRequest,
    HelperSecrets,
    HelperStarting,
    HelperStopped,
    LayerReport,
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
lines = channel.makefile()
spec = json.loads(lines.readline())
def tell(**fact):
    channel.sendall(json.dumps(fact).encode() + b"\\n")
ready = {"fact": "ready", "open_fds": ["socket"]}
request = {"fact": "request", "method": "POST", "status": 200, "error_type": None,
    "request_bytes": 1, "response_bytes": 2, "duration_ms": 3}
"""
# Until the channel is closed: answers pings, counting what it never did.
SERVE = """
tell(**ready)
pong = {"fact": "pong", "connections": 2, "upstream_connections": 1, "requests": 5, "errors": 3, "refused": 1}
for line in lines:
    command = json.loads(line)
    if command["command"] == "ping":
        tell(**pong, number=command["number"])
"""


PONG = """
tell(fact="pong", number=1, connections=0, upstream_connections=0, requests=0, errors=0, refused=0)
time.sleep(60)
"""


class SpawningZygote:
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
    monkeypatch.setattr(helper_life, "_CLOSED_SECONDS", 0.2)
    monkeypatch.setattr(helpers, "MAX_BACKOFF_SECONDS", 0.1)


def test_a_helper_is_told_its_specification_and_its_facts_are_stamped(tmp_path: Path, slot: Slot) -> None:
    script = """
assert spec["uid"] == spec["gid"] == 1234 and spec["agent_uid"] == 7 and spec["bearer"] == "bearer"
assert spec["secrets"] == {"TOKEN": "t0ken"}, "it gets only what its headers name"
assert spec["listen_port"] == socket.socket(fileno=4).getsockname()[1]
tell(**ready)
tell(**request)
tell(fact="refused", reason="uid", peer_user_id=5)
for line in lines: pass
"""
    scene = Scene(tmp_path, slot, [script])

    async def act(scene: Scene) -> None:
        await scene.until(HelperRefused)
        assert scene.keeper.state is State.READY

    scene.play(act)
    starting, ready, layers, request, refused, draining, stopped = scene.events
    assert starting == HelperStarting(server="github", user_id=1234, attempt=1)
    assert isinstance(ready, HelperReady)
    assert (ready.server, ready.user_id, ready.open_fds) == ("github", 1234, ["socket"])
    assert ready.listen == slot.origin
    assert isinstance(request, HelperRequest)
    assert (request.server, request.http_request_method, request.http_response_status_code) == ("github", "POST", 200)
    assert isinstance(refused, HelperRefused)
    assert draining == HelperDraining(server="github", deadline_ms=5000)
    assert isinstance(layers, LayerReport)
    assert (layers.role, layers.server) == ("helper", "github")
    assert {row.observed_by for row in layers.layers} == {"observed"}, "it reported none itself"
    assert isinstance(stopped, HelperStopped)
    assert (stopped.process_pid, stopped.exit_code, stopped.reason) == (ready.process_pid, 143, "killed by SIGTERM")
    assert stopped.restart_in_ms is None


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
        ("tell(fact='secrets-taken', names=[])\ntime.sleep(60)", "sent what is no fact: secrets were answered for"),
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


def test_an_upstream_that_fails_degrades_and_recovers_a_helper(tmp_path: Path, slot: Slot) -> None:
    """Also under a load whose facts are over the quota: the state must not hide behind the requests."""
    script = """
tell(**ready)
for _ in range(6000): tell(**request)
tell(fact="upstream-health", state="failing", error_type="dns_failed")
tell(fact="upstream-health", state="failing", error_type="dns_failed")
tell(fact="upstream-health", state="failing", error_type="tls_failed")
for line in lines:
    if json.loads(line)["number"] == 3: break
    if json.loads(line)["number"] == 2:
        tell(fact="pong", number=2, connections=0, upstream_connections=0, requests=0, errors=0, refused=0)
tell(fact="upstream-health", state="ok", error_type=None)
tell(fact="upstream-health", state="ok", error_type=None)
for line in lines: pass
"""
    scene = Scene(tmp_path, slot, [script])

    async def act(scene: Scene) -> None:
        await scene.until(HelperDegraded, 2)
        row = await scene.keeper.row()
        assert row.state == "degraded"
        assert (row.upstream, row.degraded) == ("failing", ["the upstream fails: tls_failed"])
        await scene.keeper.row()  # its ping lets the script go on
        await scene.until(HelperRecovered)
        assert (await scene.keeper.row()).state == "ready"

    scene.play(act)
    reasons = [event.reason for event in scene.events if isinstance(event, HelperDegraded)]
    assert reasons == ["the upstream fails: dns_failed", "the upstream fails: tls_failed"]
    assert len(scene.of(HelperRecovered)) == 1
    assert scene.of(FactsDropped)


def test_a_flood_of_changes_is_bounded(tmp_path: Path, slot: Slot) -> None:
    """A helper that is not ours any more cannot fill the log with them; nothing is said that is not so."""
    script = """
tell(**ready)
for _ in range(500):
    tell(fact="upstream-health", state="failing", error_type="dns_failed")
    tell(fact="upstream-health", state="ok", error_type=None)
sys.exit(0)
"""
    scene = Scene(tmp_path, slot, [script, SERVE])

    async def act(scene: Scene) -> None:
        await scene.until(HelperStopped)

    scene.play(act)
    said = len(scene.of(HelperDegraded)) + len(scene.of(HelperRecovered))
    assert 20 <= said < 60
    assert sum(event.dropped for event in scene.events if isinstance(event, FactsDropped)) == 1000 - said


def test_a_late_answer_to_the_probe_degrades_and_silence_kills(
    tmp_path: Path, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper whose loop hangs holds its listening socket, and would let clients wait for ever."""
    monkeypatch.setattr(health, "INTERVAL_SECONDS", 0.2)
    script = """
tell(**ready)
lines.readline()
second = json.loads(lines.readline())["number"]
tell(fact="pong", number=second, connections=0, upstream_connections=0, requests=0, errors=0, refused=0)
time.sleep(60)
"""
    scene = Scene(tmp_path, slot, [script, SERVE])

    async def act(scene: Scene) -> None:
        await scene.until(HelperStopped)
        await scene.until(HelperReady, 2)

    scene.play(act)
    kinds = [type(event) for event in scene.events if not isinstance(event, HelperReady | LayerReport)]
    assert kinds[:5] == [HelperStarting, HelperDegraded, HelperRecovered, HelperDegraded, HelperStopped]
    assert HelperDegraded(server="github", reason="it answers its probe late") in scene.events
    (stopped, _) = scene.of(HelperStopped)
    assert isinstance(stopped, HelperStopped)
    assert (stopped.exit_code, stopped.reason) == (137, "did not answer its probe")
    assert stopped.restart_in_ms == 100


def test_a_helper_that_answers_its_probe_lives_on(tmp_path: Path, slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above: many intervals, no event."""
    monkeypatch.setattr(health, "INTERVAL_SECONDS", 0.05)
    scene = Scene(tmp_path, slot, [SERVE])

    async def act(scene: Scene) -> None:
        await scene.until(HelperReady)
        assert scene.keeper._life is not None
        while scene.keeper._life._probe.answered < 10:  # noqa: ASYNC110 -- `play` has the patience
            await trio.sleep(0.01)
        row = await scene.keeper.row()
        assert (row.state, row.requests, row.errors, row.refused) == ("ready", 5, 3, 1)
        assert (row.connections, row.upstream_connections, row.restarts) == (2, 1, 0)
        assert row.pid == scene.keeper._life.child.pid

    scene.play(act)
    assert scene.of(HelperDegraded) == []


def test_counts_are_of_the_session(tmp_path: Path, slot: Slot) -> None:
    scene = Scene(tmp_path, slot, [SERVE])

    async def act(scene: Scene) -> None:
        await scene.until(HelperReady)
        assert (await scene.keeper.row()).requests == 5
        assert scene.keeper._life is not None
        os.kill(scene.keeper._life.child.pid, signal.SIGKILL)
        await scene.until(HelperReady, 2)
        row = await scene.keeper.row()
        assert (row.requests, row.errors, row.refused, row.restarts, row.connections) == (10, 6, 2, 1, 2)

    scene.play(act)


def test_a_helper_that_never_gets_ready_is_ended(tmp_path: Path, slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper_life, "_READY_SECONDS", 0.2)
    scene = Scene(tmp_path, slot, ["time.sleep(60)", SERVE])

    async def act(scene: Scene) -> None:
        await scene.until(HelperStopped)

    scene.play(act)
    stopped = scene.of(HelperStopped)[0]
    assert isinstance(stopped, HelperStopped)
    assert stopped.reason == "was not ready within 0 seconds"


def test_renewed_secrets_reach_the_live_helper_and_the_next(tmp_path: Path, slot: Slot) -> None:
    """A refused value is not what the next one starts with; another server's is not sent at all."""
    script = """
tell(**ready)
for line in lines:
    command = json.loads(line)
    if command["command"] == "new-secrets":
        assert command["secrets"].keys() == {"TOKEN"}
        value = command["secrets"]["TOKEN"]
        tell(fact="secrets-taken", names=["TOKEN"], problem=None if value == "good" else "it is bad")
        if value == "worse": sys.exit(3)
"""
    check = "tell(fact='refused', reason=spec['secrets']['TOKEN'], peer_user_id=None)\n"
    scene = Scene(tmp_path, slot, [script, check + SERVE])

    async def act(scene: Scene) -> None:
        await scene.until(HelperReady)
        scene.keeper.renew({"OTHER": Secret("unasked")})
        for value in ("good", "bad", "worse"):
            scene.keeper.renew({"TOKEN": Secret(value), "OTHER": Secret("unasked")})
        await scene.until(HelperRefused)

    scene.play(act)
    assert [event.problem for event in scene.events if isinstance(event, HelperSecrets)] == [
        None,
        "it is bad",
        "it is bad",
    ]
    assert scene.of(HelperRefused) == [HelperRefused(server="github", reason="good", peer_user_id=None)]


def test_what_is_over_the_quota_is_counted_at_the_latest_when_the_helper_ends(
    tmp_path: Path, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper_life, "Quota", functools.partial(Quota, rate=0.0, burst=3.0))
    scene = Scene(tmp_path, slot, ["tell(**ready)\nfor _ in range(10): tell(**request)\nsys.exit(0)", SERVE])

    async def act(scene: Scene) -> None:
        await scene.until(HelperStopped)

    scene.play(act)
    assert len(scene.of(HelperRequest)) == 3
    dropped = [event.dropped for event in scene.events if isinstance(event, FactsDropped)]
    assert dropped == [7]


def test_long_facts_use_the_quota_up_sooner(tmp_path: Path, slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper that is not ours any more cannot fill the disk with long lines; short facts are the control."""
    monkeypatch.setattr(helper_life, "Quota", functools.partial(Quota, rate=0.0, burst=100.0))
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
