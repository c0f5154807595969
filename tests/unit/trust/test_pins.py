from __future__ import annotations

import base64
from datetime import date

import pytest

from codingagents.trust.errors import ConfigError, TrustError
from codingagents.trust.pins import (
    Pin,
    PinMatch,
    PinMismatchError,
    parse_fingerprint,
    parse_pin,
    pinning,
    verified_path,
)
from codingagents.trust.vocabulary import PinMode, PinPosition
from pki import make_root

ROOT = make_root()
INTERMEDIATE = ROOT.issue_ca("Test Intermediate")
LEAF = INTERMEDIATE.issue()
OTHER = make_root("Other Root")
PATH = verified_path([LEAF.der, INTERMEDIATE.der, ROOT.der])
SEEN = (f"{LEAF.pin} at leaf", f"{INTERMEDIATE.pin} at intermediate", f"{ROOT.pin} at root")


@pytest.mark.parametrize("text", [LEAF.pin, LEAF.pin.replace("sha256/", "sha256//")])
def test_a_pin_is_read_in_its_canonical_form_and_in_curls(text: str) -> None:
    assert parse_pin(text, "leaf") == Pin(LEAF.pin, "leaf")


def test_a_hash_that_begins_with_a_slash_is_not_taken_for_curls_form() -> None:
    text = "sha256/" + base64.b64encode(b"\xff" * 32).decode()
    assert text.startswith("sha256//")
    assert parse_pin(text).digest == text
    assert parse_pin(text.replace("sha256/", "sha256//")).digest == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256/",
        LEAF.pin.removeprefix("sha256/"),
        LEAF.pin.replace("sha256", "sha1"),
        LEAF.pin.replace("sha256", "SHA256"),
        LEAF.pin[:-1],
        LEAF.pin + "=",
        LEAF.pin + "\n",
        "sha256/" + base64.b64encode(b"x" * 31).decode(),
        "sha256/" + base64.b64encode(b"x" * 33).decode(),
        "sha256/" + "A" * 42 + "B=",  # spare bits set
        "sha256/" + "é" * 44,
        "sha256///" + "A" * 43 + "=",
    ],
)
def test_a_malformed_pin_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="44 characters"):
        parse_pin(text)


def test_a_certificates_pin_is_read_in_every_usual_spelling() -> None:
    digest = LEAF.fingerprint
    pairs = [digest[index : index + 2] for index in range(0, 64, 2)]
    for text in (digest, digest.upper(), ":".join(pairs), ":".join(pairs).upper()):
        assert parse_fingerprint(text, "leaf") == Pin(digest, "leaf")
    assert str(Pin(digest, "leaf")) == f"cert_sha256 {digest} at leaf"


@pytest.mark.parametrize(
    "text",
    [
        "",
        LEAF.fingerprint[:-1],
        LEAF.fingerprint + "0",
        LEAF.fingerprint[:40],
        "sha256/" + LEAF.fingerprint,
        "g" * 64,
        ":".join(LEAF.fingerprint[index : index + 4] for index in range(0, 64, 4)),
        LEAF.fingerprint[:2] + ":" + LEAF.fingerprint[2:],
        LEAF.fingerprint + "\n",
        "\uff11" * 64,
    ],
)
def test_a_malformed_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        parse_fingerprint(text)


POSITIONS: list[PinPosition] = ["any", "leaf", "intermediate", "root"]


@pytest.mark.parametrize("at", POSITIONS)
@pytest.mark.parametrize(
    ("pin", "place"), [(LEAF.pin, "leaf"), (INTERMEDIATE.pin, "intermediate"), (ROOT.pin, "root"), (OTHER.pin, "none")]
)
def test_a_pin_matches_at_its_position_only(pin: str, place: str, at: PinPosition) -> None:
    policy = pinning("enforce", [Pin(pin, at)])
    if place != "none" and at in ("any", place):
        assert policy.check(PATH) == PinMatch((Pin(pin, at),), PATH)
    else:
        with pytest.raises(PinMismatchError) as refused:
            policy.check(PATH)
        assert refused.value.expected == (pin if at == "any" else f"{pin} at {at}",)
        assert refused.value.seen == SEEN


@pytest.mark.parametrize(("at", "matches"), [("any", True), ("leaf", True), ("root", True), ("intermediate", False)])
def test_the_only_certificate_of_a_path_is_leaf_and_root(at: PinPosition, matches: bool) -> None:
    rules, path = pinning("report", [Pin(ROOT.pin, at)]), verified_path([ROOT.der])
    assert bool(rules.check(path).pins) is matches
    assert rules.seen(path) == (f"{ROOT.pin} at leaf+root",)


def test_certificates_are_named_as_seen_where_one_is_pinned() -> None:
    rules = pinning("enforce", [Pin(OTHER.pin), Pin(OTHER.fingerprint, "root")])
    with pytest.raises(PinMismatchError) as refused:
        rules.check(PATH)
    assert refused.value.expected == (OTHER.pin, f"cert_sha256 {OTHER.fingerprint} at root")
    assert refused.value.seen == (
        *SEEN,
        f"cert_sha256 {LEAF.fingerprint} at leaf",
        f"cert_sha256 {INTERMEDIATE.fingerprint} at intermediate",
        f"cert_sha256 {ROOT.fingerprint} at root",
    )


def test_all_pins_that_match_are_collected_and_all_that_were_expected_are_named() -> None:
    match = pinning("enforce", [Pin(OTHER.pin), Pin(LEAF.pin), Pin(ROOT.pin, "root")]).check(PATH)
    assert match.pins == (Pin(LEAF.pin), Pin(ROOT.pin, "root"))
    with pytest.raises(PinMismatchError) as refused:
        pinning("enforce", [Pin(OTHER.pin), Pin(LEAF.pin, "root")]).check(PATH)
    for part in (OTHER.pin, f"{LEAF.pin} at root", *SEEN):
        assert part in str(refused.value)


@pytest.mark.parametrize("mode", ["report", "off"])
def test_only_enforce_refuses_a_path_without_a_pin(mode: PinMode) -> None:
    assert pinning(mode, [Pin(OTHER.pin)]).check(PATH) == PinMatch((), PATH)


@pytest.mark.parametrize("path", [[], [LEAF.der, b"junk"]])
def test_a_path_that_cannot_be_read_is_none(path: list[bytes]) -> None:
    with pytest.raises(TrustError):
        verified_path(path)


def test_enforcing_nothing_is_refused_when_it_is_said() -> None:
    with pytest.raises(ConfigError, match="at least one pin"):
        pinning("enforce", [])
    assert pinning("report", []).check(PATH).pins == ()


@pytest.mark.parametrize(
    ("mode", "inspects", "refuses"), [("enforce", True, True), ("report", True, False), ("off", False, False)]
)
def test_the_mode_decides_what_is_inspected_and_refused(mode: PinMode, inspects: bool, refuses: bool) -> None:
    policy = pinning(mode, [Pin(LEAF.pin)])
    assert (policy.inspects, policy.refuses) == (inspects, refuses)


def test_no_credential_without_a_matched_pin_unless_it_is_said() -> None:
    matched = PinMatch((Pin(LEAF.pin),), PATH)
    policy = pinning("enforce", [Pin(LEAF.pin)])
    assert policy.allows_credential(matched)
    assert not policy.allows_credential(PinMatch((), PATH))
    assert not policy.allows_credential(None)
    assert not pinning("report", [Pin(LEAF.pin)]).allows_credential(matched)
    lax = pinning("report", [Pin(LEAF.pin)], credential_without_pin=True)
    assert lax.allows_credential(PinMatch((), PATH))
    assert lax.allows_credential(None)


def test_an_anchor_that_is_no_root_is_intermediate_and_root() -> None:
    assert verified_path([LEAF.der, INTERMEDIATE.der]).places == (("leaf",), ("intermediate", "root"))
    assert PATH.places == (("leaf",), ("intermediate",), ("root",))
    assert verified_path([LEAF.der]).places == (("leaf", "root"),)


def test_a_bypass_passes_and_is_named_only_where_no_pin_does() -> None:
    bypasses = {ROOT.fingerprint: "corp", LEAF.fingerprint: "not an anchor here"}
    policy = pinning("enforce", [Pin(OTHER.pin)], bypasses=bypasses)
    passed = policy.check(PATH)
    assert passed == PinMatch((), PATH, "corp")
    assert (policy.allows_credential(passed), policy.credential_rule(passed)) == (False, "withheld")
    matched = pinning("enforce", [Pin(LEAF.pin)], bypasses=bypasses).check(PATH)
    assert (matched.bypass, matched.pins) == (None, (Pin(LEAF.pin),))
    with pytest.raises(PinMismatchError):
        policy.check(verified_path([LEAF.der, INTERMEDIATE.der]))


@pytest.mark.parametrize(
    ("mode", "matches", "said", "rule"),
    [
        ("enforce", True, False, "pinned"),
        ("enforce", True, True, "pinned"),
        ("enforce", False, False, "withheld"),
        ("enforce", False, True, "without-pin"),
        ("report", True, False, "withheld"),
        ("report", True, True, "without-pin"),
        ("off", False, False, "withheld"),
        ("off", False, True, "without-pin"),
    ],
)
def test_what_becomes_of_the_credential_and_why(mode: PinMode, matches: bool, said: bool, rule: str) -> None:
    policy = pinning(mode, [Pin(LEAF.pin)], credential_without_pin=said)
    match = PinMatch((Pin(LEAF.pin),) if matches else (), PATH)
    assert policy.credential_rule(match) == rule
    assert policy.allows_credential(match) == (rule != "withheld")


@pytest.mark.parametrize(
    ("mode", "bypasses", "said", "may"),
    [
        ("enforce", {}, False, True),
        ("enforce", {ROOT.fingerprint: "corp"}, False, False),
        ("enforce", {ROOT.fingerprint: "corp"}, True, True),
        ("report", {}, False, False),
        ("off", {}, False, False),
        ("off", {}, True, True),
    ],
)
def test_a_client_certificate_is_shown_only_where_all_that_pass_are_pinned(
    mode: PinMode, bypasses: dict[str, str], said: bool, may: bool
) -> None:
    policy = pinning(mode, [Pin(LEAF.pin)], bypasses=bypasses, credential_without_pin=said)
    assert policy.may_show_certificate is may


def test_pins_hold_to_the_end_of_the_day_they_expire() -> None:
    policy = pinning("enforce", [Pin(LEAF.pin)], expires=date(2027, 3, 1))
    assert not policy.expired(date(2027, 3, 1))
    assert policy.expired(date(2027, 3, 2))
    assert not pinning("enforce", [Pin(LEAF.pin)]).expired(date(9999, 1, 1))
    assert not pinning("off", [], expires=date(2027, 3, 1)).expired(date(2027, 3, 2))


ANCHORS = [ROOT.der, OTHER.der]


def test_anchors_are_narrowed_where_every_pin_is_enforced_at_the_root() -> None:
    assert pinning("enforce", [Pin(ROOT.pin, "root"), Pin(LEAF.pin, "root")]).narrow(ANCHORS) == [ROOT.der]


@pytest.mark.parametrize("mode", ["report", "off"])
def test_anchors_are_not_narrowed_where_a_path_without_a_pin_may_pass(mode: PinMode) -> None:
    assert pinning(mode, [Pin(ROOT.pin, "root")]).narrow(ANCHORS) == ANCHORS


@pytest.mark.parametrize("at", ["any", "leaf", "intermediate"])
def test_anchors_are_not_narrowed_where_a_pin_may_match_under_another_one(at: PinPosition) -> None:
    assert pinning("enforce", [Pin(ROOT.pin, "root"), Pin(ROOT.pin, at)]).narrow(ANCHORS) == ANCHORS


def test_a_pinned_certificate_and_a_bypass_are_not_narrowed_away() -> None:
    policy = pinning("enforce", [Pin(ROOT.fingerprint, "root")], bypasses={OTHER.fingerprint: "corp"})
    assert policy.narrow([*ANCHORS, INTERMEDIATE.der]) == ANCHORS
    assert pinning("enforce", [Pin(ROOT.fingerprint, "root")]).narrow(ANCHORS) == [ROOT.der]


@pytest.mark.parametrize(
    ("pin", "closed"),
    [
        (Pin(ROOT.pin), True),
        (Pin(ROOT.pin, "root"), True),
        (Pin(ROOT.fingerprint, "root"), True),
        (Pin(ROOT.pin, "intermediate"), False),
        (Pin(ROOT.pin, "leaf"), False),
        (Pin(LEAF.pin), False),
    ],
)
def test_anchors_close_the_pins_where_each_is_pinned_as_an_anchor(pin: Pin, closed: bool) -> None:
    policy = pinning("enforce", [pin])
    assert policy.closed_by([ROOT.der]) is closed
    assert not policy.closed_by(ANCHORS)
    assert pinning("report", [pin]).closed_by(ANCHORS)
    assert pinning("enforce", [Pin(ROOT.pin)], bypasses={OTHER.fingerprint: "corp"}).closed_by(ANCHORS)


@pytest.mark.parametrize("mode", ["enforce", "report"])
def test_a_pinned_only_store_holds_what_the_pins_name(mode: PinMode) -> None:
    policy = pinning(mode, [Pin(INTERMEDIATE.pin), Pin(ROOT.pin, "root")])
    anchors = [*ANCHORS, INTERMEDIATE.der, b"junk"]
    assert policy.narrow(anchors, pinned_only=True) == [ROOT.der, INTERMEDIATE.der]


def test_a_store_without_anchors_is_refused() -> None:
    for policy, anchors in (
        (pinning("enforce", [Pin(LEAF.pin, "root")]), ANCHORS),
        (pinning("off", []), list[bytes]()),
    ):
        with pytest.raises(TrustError, match="no trust anchor"):
            policy.narrow(anchors)
