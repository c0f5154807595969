"""Trust that is renewed under a keeper: taken, refused, crashed over, lied about; always answered, never worse."""

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from codingagents.rewrite.specs import ClientCertificate, ControlTrust, TlsSpec
from codingagents.supervisor import helper_life, lifecycle
from codingagents.supervisor.helpers import needed_secrets
from codingagents.supervisor.slots import Slot, bind_slot
from codingagents.trust.events import (
    HelperReady,
    HelperStarting,
    HelperStopped,
    Layer,
    LayerReport,
    TrustReloaded,
    TrustSnapshot,
    UpstreamTrusted,
)
from codingagents.trust.vocabulary import Secret
from keeper_scene import REMOTE, SERVE, Scene

OLD, NEW = (TlsSpec(server_name="a.test", anchors_pem=text, store="host", pin_mode="off") for text in ("old", "new"))
OLD_SHA, NEW_SHA = (hashlib.sha256(tls.anchors_pem.encode()).hexdigest() for tls in (OLD, NEW))

# What a helper of ours does with trust; `answer` and `at_start` are a script's own.
HONEST = """
import hashlib
import os
def sha(tls):
    return hashlib.sha256(tls["anchors_pem"].encode()).hexdigest()
holds = sha(spec["remote"]["tls"])
ready["store_sha256"] = holds
"""
OBEY = (
    HONEST
    + """
tell(**ready)
for line in lines:
    command = json.loads(line)
    if command["command"] == "ping":
        tell(fact="pong", number=command["number"], connections=0, upstream_connections=0, requests=0, errors=0,
            refused=0)
    if command["command"] == "new-trust":
        holds = sha(command["tls"])
        tell(fact="trust-taken", store_sha256=holds, kept=3, closed=1)
"""
)
REFUSE = OBEY.replace("holds = sha(command", "tried = sha(command").replace("kept=3, closed=1", "problem='no anchors'")
# Killed as soon as it is told of new trust, before it answers.
DIE = OBEY.replace("holds = sha(command", "os.kill(os.getpid(), 9); holds = sha(command")
# One that cannot even start with the new set.
PICKY = HONEST + "\nif spec['remote']['tls']['anchors_pem'] == 'new':\n    sys.exit(4)\n" + OBEY
UNASKED = HONEST + "tell(**ready)\ntell(fact='trust-taken', store_sha256=holds)\ntime.sleep(60)"


@pytest.fixture
def slot() -> Iterator[Slot]:
    slot = bind_slot(msgspec.structs.replace(REMOTE, tls=OLD), 1234, Secret("bearer"))
    yield slot
    slot.listener.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper_life, "_CLOSED_SECONDS", 0.2)
    monkeypatch.setattr(lifecycle, "FIRST_BACKOFF_SECONDS", 0.01)


async def answered(scene: Scene, count: int = 1) -> None:
    with trio.fail_after(10):
        while len(scene.answers) < count:  # noqa: ASYNC110 -- a list announces nothing
            await trio.sleep(0.01)


async def renew_ready(scene: Scene) -> None:
    await scene.until(HelperReady)
    scene.keeper.renew_trust(NEW)
    await answered(scene)


def in_file(directory: Path) -> str:
    return (directory / "github.pem").read_text()


def test_a_set_that_is_taken_is_recorded_shown_and_answered(tmp_path: Path, slot: Slot) -> None:
    scene = Scene(tmp_path, slot, [OBEY])
    scene.play(renew_ready)
    assert scene.answers == [ControlTrust(server="github", store_sha256=NEW_SHA, kept=3, closed=1)]
    (reloaded,) = scene.of(TrustReloaded)
    assert reloaded == TrustReloaded(server="github", store_sha256=NEW_SHA, kept=3, closed=1, problem=None)
    snapshots = scene.of(TrustSnapshot)
    assert [event.store_sha256 for event in snapshots if isinstance(event, TrustSnapshot)] == [OLD_SHA, NEW_SHA]
    assert scene.events.index(snapshots[1]) < scene.events.index(reloaded), "what cannot be recorded is not done"
    assert in_file(tmp_path) == "new"
    assert scene.trust_changes


def test_the_rows_that_changed_with_it_are_reported_anew_and_as_its_own_words(tmp_path: Path, slot: Slot) -> None:
    row = msgspec.to_builtins(
        Layer(layer="tls_pins", wanted="off", state="disabled", mechanism="", probe="", observed_by="observed")
    )
    scene = Scene(tmp_path, slot, [OBEY.replace("kept=3, closed=1", f"layers=[{row}]")])
    scene.play(renew_ready)
    report = scene.of(LayerReport)[-1]
    assert isinstance(report, LayerReport)
    assert [(row.layer, row.state, row.observed_by) for row in report.layers] == [
        ("tls_pins", "disabled", "self-reported")
    ]
    (reloaded,) = scene.of(TrustReloaded)
    assert scene.events.index(report) > scene.events.index(reloaded)


def test_a_set_that_is_refused_changes_nothing_also_for_the_next_helper(tmp_path: Path, slot: Slot) -> None:
    scene = Scene(tmp_path, slot, [REFUSE, OBEY])

    async def act(scene: Scene) -> None:
        await renew_ready(scene)
        assert in_file(tmp_path) == "old"
        row = await scene.keeper.row()
        assert row.pid is not None
        os.kill(row.pid, signal.SIGKILL)
        await scene.until(HelperReady, 2)

    scene.play(act)
    assert scene.answers == [ControlTrust(server="github", store_sha256=OLD_SHA, problem="no anchors")]
    assert [event.store_sha256 for event in scene.of(TrustSnapshot) if isinstance(event, TrustSnapshot)] == [
        *(OLD_SHA, NEW_SHA, OLD_SHA),
    ]


def test_what_cannot_be_recorded_is_not_offered(tmp_path: Path, slot: Slot) -> None:
    scene = Scene(tmp_path, slot, [OBEY])

    async def act(scene: Scene) -> None:
        await scene.until(HelperReady)
        kept = os.dup(scene.descriptor)
        os.dup2(os.open("/dev/full", os.O_WRONLY), scene.descriptor)
        scene.keeper.renew_trust(NEW)
        os.dup2(kept, scene.descriptor)
        (answer,) = scene.answers
        assert answer.problem == "the event log cannot be written, and nobody would know of it; make room"
        scene.keeper.renew_trust(NEW)
        await answered(scene, 2)

    scene.play(act)
    assert [answer.store_sha256 for answer in scene.answers] == [OLD_SHA, NEW_SHA]


def test_a_helper_that_dies_over_the_answer_is_answered_for_by_the_next(tmp_path: Path, slot: Slot) -> None:
    scene = Scene(tmp_path, slot, [DIE, OBEY])
    scene.play(renew_ready)
    assert scene.answers == [ControlTrust(server="github", store_sha256=NEW_SHA)]
    assert len(scene.of(HelperReady)) == 2
    assert in_file(tmp_path) == "new"


def test_a_set_that_no_helper_starts_with_gives_way_to_the_last_good_one(tmp_path: Path, slot: Slot) -> None:
    scene = Scene(tmp_path, slot, [DIE, PICKY])

    async def act(scene: Scene) -> None:
        await renew_ready(scene)
        await scene.until(HelperReady, 2)

    scene.play(act)
    (answer,) = scene.answers
    assert answer.store_sha256 == OLD_SHA
    assert answer.problem == "a helper could not start with it: exited with 4"
    assert in_file(tmp_path) == "old"
    assert len(scene.of(HelperStarting)) == 3


def test_one_that_is_renewed_while_it_starts_is_told_after(tmp_path: Path, slot: Slot) -> None:
    """Also where the zygote was still making it."""
    scene = Scene(tmp_path, slot, [OBEY])

    async def act(scene: Scene) -> None:
        scene.keeper.renew_trust(NEW)  # its first specification is already being told, or is not yet
        await answered(scene)
        newest = msgspec.structs.replace(NEW, anchors_pem="newest")
        scene.zygote.meanwhile = lambda: scene.keeper.renew_trust(newest)
        row = await scene.keeper.row()
        assert row.pid is not None
        os.kill(row.pid, signal.SIGKILL)
        await answered(scene, 2)
        assert in_file(tmp_path) == "newest"

    scene.play(act)
    assert [answer.problem for answer in scene.answers] == [None, None]
    assert scene.answers[1].kept == 3, "the second was not told by a command"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (HONEST + "ready['store_sha256'] = '0' * 64\ntell(**ready)\ntime.sleep(60)", "it holds the trust anchors 0"),
        ("tell(**ready)\ntime.sleep(60)", "it holds the trust anchors None"),
        (HONEST + "tell(fact='trust-taken', store_sha256=holds)\ntime.sleep(60)", "it was not ready"),
        (UNASKED, "an offer was answered that was not made"),
        (OBEY.replace("kept=3, closed=1", "kept=-1"), "malformed message"),
        (OBEY.replace("kept=3, closed=1)", ")\n        tell(fact='trust-taken', store_sha256=holds)"), "an offer was"),
        (OBEY.replace("holds = sha(command", "tried = sha(command"), "it holds the trust anchors"),
        (
            HONEST
            + "tell(**ready)\ntell(fact='upstream-trusted', address='a', tls_version='TLSv1.3', anchored_by='host',"
            " anchor_sha256='', leaf_sha256='0' * 64, leaf_not_after='?', pins=[], credential='none')\ntime.sleep(60)",
            "the end of a certificate is no time",
        ),
    ],
)
def test_a_helper_that_lies_about_its_trust_is_killed(tmp_path: Path, slot: Slot, script: str, reason: str) -> None:
    scene = Scene(tmp_path, slot, [script + "\ntime.sleep(60)", OBEY])  # it does not end by itself

    async def act(scene: Scene) -> None:
        await scene.until(TrustSnapshot)
        if script is not UNASKED:
            scene.keeper.renew_trust(NEW)
        await scene.until(HelperStopped)
        await scene.until(HelperReady, scene.zygote.lives)

    scene.play(act)
    stopped = scene.of(HelperStopped)[0]
    assert isinstance(stopped, HelperStopped)
    assert stopped.exit_code == 128 + signal.SIGKILL
    assert stopped.reason.startswith(f"sent what is no fact: {reason}")


def test_a_helper_that_gave_up_or_has_no_tls_is_answered_at_once(tmp_path: Path, slot: Slot) -> None:
    scene = Scene(tmp_path, slot, ["sys.exit(9)"])

    async def act(scene: Scene) -> None:
        scene.keeper.renew_trust(NEW)
        await answered(scene)
        with trio.fail_after(10):
            while scene.keeper.state is not lifecycle.State.FAILED:  # noqa: ASYNC110 -- likewise
                await trio.sleep(0.01)
        scene.keeper.renew_trust(NEW)

    scene.play(act)
    assert [answer.problem for answer in scene.answers] == [
        "a helper could not start with it: exited with 9",
        "its helper is failed, and serves no more in this session",
    ]
    plain = bind_slot(REMOTE, 1234, Secret("bearer"))
    other = Scene(tmp_path, plain, [SERVE])
    other.keeper.renew_trust(NEW)
    assert [answer.problem for answer in other.answers] == ["it is reached without TLS"]
    plain.listener.close()


def test_what_a_helper_saw_of_its_server_is_watched_and_recorded(tmp_path: Path, slot: Slot) -> None:
    seen = (
        "tell(**ready)\ntell(fact='upstream-trusted', address='a', tls_version='TLSv1.3', anchored_by='host',"
        " anchor_sha256='', leaf_sha256='0' * 64, leaf_not_after='2027-03-05T00:00:00Z', pins=[], credential='none')"
    )
    scene = Scene(tmp_path, slot, [HONEST + seen + "\ntime.sleep(60)"])

    async def act(scene: Scene) -> None:
        await scene.until(UpstreamTrusted)

    scene.play(act)
    (leaf,) = scene.keeper.trust.ends()
    assert (leaf.what, leaf.text) == ("leaf", "2027-03-05T00:00:00Z")
    assert len(scene.trust_changes) == 1


def test_a_client_certificate_is_among_the_secrets_that_a_helper_needs() -> None:
    tls = msgspec.structs.replace(OLD, client_certificate=ClientCertificate(chain="CHAIN", key="KEY"))
    assert needed_secrets(msgspec.structs.replace(REMOTE, tls=tls)) == {"TOKEN", "CHAIN", "KEY"}
    assert needed_secrets(REMOTE) == {"TOKEN"}
