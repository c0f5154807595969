from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codingagents.trust.errors import ConfigError, TrustError
from codingagents.trust.pins import Pin, PinMismatchError, parse_fingerprint, parse_pin, pinning, verified_path
from codingagents.trust.vocabulary import PinPosition
from pki import make_root

ROOT = make_root()
FIRST = ROOT.issue_ca("First")
SECOND = FIRST.issue_ca("Second")
LEAF = SECOND.issue()
PATH = [LEAF, SECOND, FIRST, ROOT]
OTHERS = [make_root(f"Other {index}") for index in range(2)]
POSITIONS: list[PinPosition] = ["any", "leaf", "intermediate", "root"]

digests = [digest for each in [*PATH, *OTHERS] for digest in (each.pin, each.fingerprint)]
pins = st.builds(Pin, st.sampled_from(digests), st.sampled_from(POSITIONS))
bypasses = st.dictionaries(st.sampled_from([each.fingerprint for each in [*PATH, *OTHERS]]), st.just("corp"))


def stands(pin: Pin, length: int) -> bool:
    """By the words of the definition: the pinned key or certificate is in the path, at the pin's place."""
    path = [(each.pin, each.fingerprint) for each in PATH[:length]]
    inner = path[1:] if length < len(PATH) else path[1:-1]  # an anchor that is no root is an intermediate as well
    places = {"any": path, "leaf": path[:1], "intermediate": inner, "root": path[-1:]}
    return any(pin.digest in each for each in places[pin.at])


@given(st.lists(pins, min_size=1, max_size=5), st.integers(1, 4), bypasses)
def test_a_path_passes_exactly_where_a_pin_stands_in_its_place_or_below_a_bypass(
    wanted: list[Pin], length: int, bypassed: dict[str, str]
) -> None:
    path = verified_path([each.der for each in PATH[:length]])
    policy = pinning("enforce", wanted, bypasses=bypassed)
    standing = {pin for pin in wanted if stands(pin, length)}
    if standing or PATH[length - 1].fingerprint in bypassed:
        match = policy.check(path)
        assert set(match.pins) == standing
        assert policy.allows_credential(match) == bool(standing)
    else:
        with pytest.raises(PinMismatchError) as refused:
            policy.check(path)
        assert set(refused.value.expected) == {str(pin) for pin in wanted}
        assert len(refused.value.seen) == length * (1 if all(pin.is_key for pin in wanted) else 2)


@given(st.lists(pins, min_size=1, max_size=5), st.integers(1, 4), bypasses)
def test_narrowing_never_takes_away_the_anchor_of_a_path_that_would_pass(
    wanted: list[Pin], length: int, bypassed: dict[str, str]
) -> None:
    policy = pinning("enforce", wanted, bypasses=bypassed)
    anchor = PATH[length - 1]
    if any(stands(pin, length) for pin in wanted) or anchor.fingerprint in bypassed:
        assert anchor.der in policy.narrow([anchor.der, *(each.der for each in OTHERS)])


@given(st.lists(pins, min_size=1, max_size=5), st.integers(1, 4), bypasses)
def test_a_path_below_anchors_that_close_the_pins_passes(
    wanted: list[Pin], length: int, bypassed: dict[str, str]
) -> None:
    """So that who may show a client certificate before the path is known shows it to no other."""
    policy = pinning("enforce", wanted, bypasses=bypassed)
    if policy.closed_by([PATH[length - 1].der]):
        policy.check(verified_path([each.der for each in PATH[:length]]))


@given(st.binary(min_size=32, max_size=32))
def test_every_digest_has_one_canonical_text(digest: bytes) -> None:
    text = "sha256/" + base64.b64encode(digest).decode()
    assert parse_pin(text).digest == text
    assert parse_pin("sha256//" + base64.b64encode(digest).decode()).digest == text


@given(st.text(max_size=60) | st.text("sha256/=A+", max_size=60))
def test_arbitrary_text_is_a_pin_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert len(parse_pin(text).digest) == 51


@given(st.text(max_size=70) | st.text("0123456789abcdefABCDEF:", min_size=60, max_size=100))
def test_arbitrary_text_is_a_fingerprint_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert parse_fingerprint(text).digest == text.replace(":", "").lower()


@given(st.binary(min_size=32, max_size=32), st.booleans(), st.booleans())
def test_every_digest_has_one_canonical_fingerprint(digest: bytes, colons: bool, upper: bool) -> None:
    text = digest.hex(":") if colons else digest.hex()
    assert parse_fingerprint(text.upper() if upper else text).digest == digest.hex()


@given(st.lists(st.binary(max_size=40), max_size=3))
def test_arbitrary_bytes_for_a_path_are_a_trust_error(path: list[bytes]) -> None:
    with pytest.raises(TrustError):
        verified_path(path)
