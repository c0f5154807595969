"""What a server's helpers are given to trust, and what the launcher is answered, whatever becomes of a helper."""

import hashlib

import msgspec
import pytest

from codingagents.rewrite.specs import (
    ControlTrust,
    HeaderTemplate,
    NewTrust,
    OverrideSpec,
    PinSpec,
    RemoteSpec,
    TlsSpec,
)
from codingagents.supervisor.helper_trust import HelperTrust, credential_rule, overrides_pins, reloaded, starting
from codingagents.trust.errors import WireError
from codingagents.trust.events import HelperStarting, TrustReloaded
from codingagents.trust.facts import TrustTaken
from codingagents.trust.vocabulary import PinMode

OLD = TlsSpec(server_name="a.test", anchors_pem="old", store="host")
NEW = TlsSpec(server_name="a.test", anchors_pem="new", store="host")
OLD_SHA, NEW_SHA = (hashlib.sha256(text).hexdigest() for text in (b"old", b"new"))


def with_helper() -> HelperTrust:
    """Return the trust of a server whose helper is ready."""
    trust = HelperTrust("one", OLD)
    assert trust.given() is OLD
    assert trust.started(OLD_SHA) == []
    return trust


def test_a_set_that_is_taken_holds_and_is_answered_with_its_connections() -> None:
    trust = with_helper()
    trust.renew(NEW)
    assert trust.offered() == NewTrust(tls=NEW)
    answer = trust.answered(TrustTaken(store_sha256=NEW_SHA, kept=2, closed=1))
    assert answer == ControlTrust(server="one", store_sha256=NEW_SHA, kept=2, closed=1)
    assert trust.held is trust.tls is NEW
    assert reloaded(answer) == TrustReloaded(server="one", store_sha256=NEW_SHA, kept=2, closed=1, problem=None)


def test_a_set_that_is_refused_gives_way_to_the_former() -> None:
    trust = with_helper()
    trust.renew(NEW)
    trust.offered()
    answer = trust.answered(TrustTaken(store_sha256=OLD_SHA, problem="no anchors"))
    assert answer == ControlTrust(server="one", store_sha256=OLD_SHA, problem="no anchors")
    assert trust.given() is OLD


def test_a_reason_is_cut_to_what_the_launcher_takes() -> None:
    """A helper that is taken over must not end the session by a line over the launcher's limit."""
    trust = with_helper()
    for problem, told in (("x" * 60_000, "x" * 500), ("", "no reason")):
        trust.renew(NEW)
        trust.offered()
        assert trust.answered(TrustTaken(store_sha256=OLD_SHA, problem=problem)).problem == told


@pytest.mark.parametrize(
    "lie",
    [TrustTaken(store_sha256=OLD_SHA), TrustTaken(store_sha256=NEW_SHA, problem="no"), TrustTaken(store_sha256="")],
)
def test_an_answer_that_names_another_store_is_none(lie: TrustTaken) -> None:
    trust = with_helper()
    trust.renew(NEW)
    trust.offered()
    with pytest.raises(WireError, match="holds the trust anchors"):
        trust.answered(lie)


def test_an_answer_to_nothing_is_refused() -> None:
    trust = with_helper()
    with pytest.raises(WireError, match="was not made"):
        trust.answered(TrustTaken(store_sha256=OLD_SHA))
    trust.renew(NEW)
    trust.offered()
    trust.answered(TrustTaken(store_sha256=NEW_SHA))
    with pytest.raises(WireError, match="was not made"):
        trust.answered(TrustTaken(store_sha256=NEW_SHA))


@pytest.mark.parametrize("loaded", [None, "", OLD_SHA[:-1] + "?", NEW_SHA])
def test_a_helper_that_loaded_something_else_does_not_start(loaded: str | None) -> None:
    trust = HelperTrust("one", OLD)
    trust.given()
    with pytest.raises(WireError, match="and was given"):
        trust.started(loaded)


def test_a_helper_that_ends_before_it_answers_is_answered_for_by_the_next() -> None:
    trust = with_helper()
    trust.renew(NEW)
    trust.offered()
    assert trust.given() is NEW
    assert trust.started(NEW_SHA) == [ControlTrust(server="one", store_sha256=NEW_SHA)]
    assert trust.given() is NEW
    assert trust.started(NEW_SHA) == []


def test_a_set_that_no_helper_can_start_with_is_refused_and_the_next_gets_the_former() -> None:
    trust = with_helper()
    trust.renew(NEW)  # while there is none
    trust.given()
    (answer,) = trust.failed("no anchors")
    assert answer.problem == "a helper could not start with it: no anchors"
    assert answer.store_sha256 == OLD_SHA
    assert trust.given() is OLD
    assert trust.failed("killed by SIGKILL") == []
    assert trust.started(OLD_SHA) == []


def test_what_comes_while_a_helper_starts_waits_for_its_own_answer() -> None:
    trust = HelperTrust("one", OLD)
    trust.given()
    trust.renew(NEW)
    trust.offered()
    assert trust.started(OLD_SHA) == []
    assert trust.answered(TrustTaken(store_sha256=NEW_SHA)).problem is None


def test_one_that_gives_up_owes_nothing_more() -> None:
    trust = with_helper()
    trust.renew(NEW)
    assert [answer.problem for answer in trust.give_up("failed")] == ["failed"]
    assert trust.give_up("failed") == []
    assert trust.refusal("y" * 600).problem == "y" * 500


REMOTE = RemoteSpec(
    name="one",
    scheme="https",
    host="a.test",
    port=443,
    path="/",
    headers=[HeaderTemplate(name="Authorization", template="Bearer ${T}")],
    tls=OLD,
)


@pytest.mark.parametrize(
    ("mode", "without_pin", "rule"),
    [
        ("enforce", False, "pinned"),
        ("enforce", True, "pinned"),
        ("report", False, "withheld"),
        ("report", True, "without-pin"),
        ("off", False, "withheld"),
        ("off", True, "without-pin"),
    ],
)
def test_what_is_recorded_of_the_credential_follows_from_the_configuration(
    mode: PinMode, without_pin: bool, rule: str
) -> None:
    tls = msgspec.structs.replace(OLD, pin_mode=mode, credential_without_pin=without_pin)
    assert credential_rule(REMOTE, tls) == rule
    assert credential_rule(msgspec.structs.replace(REMOTE, headers=[]), tls) == "none"


def test_a_start_says_what_is_not_asked_for() -> None:
    overrides = [
        OverrideSpec(name="corp", anchors=["0" * 64], override_pins=True),
        OverrideSpec(name="lab", anchors=["1" * 64]),
    ]
    tls = msgspec.structs.replace(OLD, pins=[PinSpec(spki="sha256/x")], overrides=overrides)
    assert starting(msgspec.structs.replace(REMOTE, tls=tls), 7, 2) == HelperStarting(
        server="one", user_id=7, attempt=2, pin_mode="enforce", credential="pinned", overrides_pins=["corp"]
    )
    plain = starting(msgspec.structs.replace(REMOTE, tls=None), 7, 1)
    assert (plain.pin_mode, plain.credential, plain.overrides_pins) == ("off", "without-pin", [])
    assert overrides_pins(None) == []
