"""What a keeper makes of what a helper says: facts stamped and counted, health, probes, quotas, renewed secrets."""

import functools
import os
import select
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from codingagents.supervisor import health, helper_life, helpers, lifecycle
from codingagents.supervisor.lifecycle import State
from codingagents.supervisor.quota import Quota
from codingagents.supervisor.slots import Slot, bind_slot
from codingagents.trust.events import (
    FactsDropped,
    HelperDegraded,
    HelperDraining,
    HelperReady,
    HelperRecovered,
    HelperRefused,
    HelperRequest,
    HelperSecrets,
    HelperStarting,
    HelperStopped,
    LayerReport,
)
from codingagents.trust.vocabulary import Secret
from keeper_scene import REMOTE, SERVE, Scene


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
    assert starting == HelperStarting(server="github", user_id=1234, attempt=1, credential="without-pin")
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


def test_an_upstream_that_fails_degrades_and_recovers_a_helper(tmp_path: Path, slot: Slot) -> None:
    """Also under a load whose facts are over the quota: the state must not hide behind the requests."""
    go_on = tmp_path / "go-on"
    script = """
tell(**ready)
for _ in range(1000): tell(**request, mcp_name="x" * 20_000)  # of the price of twenty each
tell(fact="upstream-health", state="failing", error_type="dns_failed")
tell(fact="upstream-health", state="failing", error_type="dns_failed")
tell(fact="upstream-health", state="failing", error_type="tls_failed")
for line in lines:
    if os.path.exists(go_on): break
    number = json.loads(line)["number"]
    tell(fact="pong", number=number, connections=0, upstream_connections=0, requests=0, errors=0, refused=0)
tell(fact="upstream-health", state="ok", error_type=None)
tell(fact="upstream-health", state="ok", error_type=None)
for line in lines: pass
"""
    scene = Scene(tmp_path, slot, [f"go_on = {str(go_on)!r}{script}"])

    async def act(scene: Scene) -> None:
        await scene.until(HelperDegraded, 2)
        row = await scene.keeper.row()
        assert row.state == "degraded"
        assert (row.upstream, row.degraded) == ("failing", ["the upstream fails: tls_failed"])
        go_on.touch()
        await scene.keeper.row()  # its ping has the script look
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


def has_spoken(scene: Scene, patience: float = 0) -> bool:
    """Say whether the helper has sent what nobody has taken yet; nothing of ours goes on meanwhile."""
    life = scene.keeper._life
    assert life is not None
    return bool(select.select([life._channel._stream.socket], [], [], patience)[0])


def be_stopped(seconds: float) -> None:
    """As by SIGSTOP and SIGCONT: nothing of ours goes on, and time does."""
    time.sleep(seconds)


def test_a_supervisor_that_was_stopped_does_not_blame_its_helper(
    tmp_path: Path, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interval is over and the answer is there: which of them is seen first is chance, so it is tried often."""
    monkeypatch.setattr(health, "INTERVAL_SECONDS", 0.1)
    scene = Scene(tmp_path, slot, [SERVE])

    async def act(scene: Scene) -> None:
        await scene.until(HelperReady)
        stops = 0
        while stops < 8:
            if has_spoken(scene):
                be_stopped(2 * health.INTERVAL_SECONDS)
                stops += 1
            await trio.lowlevel.checkpoint()

    scene.play(act)
    assert scene.of(HelperDegraded) == []


def test_one_that_was_stopped_while_its_helper_got_ready_does_not_end_it(
    tmp_path: Path, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper_life, "_READY_SECONDS", 0.05)
    monkeypatch.setattr(lifecycle, "FIRST_BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(lifecycle, "RESTART_BUDGET", 100)
    scene = Scene(tmp_path, slot, [SERVE])

    async def act(scene: Scene) -> None:
        for life in range(1, 9):
            while scene.zygote.lives < life or scene.keeper._life is None:
                await trio.lowlevel.checkpoint()
            for _ in range(10):
                await trio.lowlevel.checkpoint()  # its specification is sent
            assert has_spoken(scene, 10)
            be_stopped(2 * helper_life._READY_SECONDS)
            await scene.until(HelperReady, life)
            os.kill(scene.keeper._life.child.pid, signal.SIGKILL)
            await scene.until(HelperStopped, life)

    scene.play(act)
    assert "was not ready" not in scene.path.read_text()


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
