from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codingagents.trust.errors import ConfigError, TrustError
from codingagents.trust.pins import Pin, PinMismatchError, parse_pin, pinning, verified_path
from codingagents.trust.vocabulary import PinPosition
from pki import make_root

ROOT = make_root()
FIRST = ROOT.issue_ca("First")
SECOND = FIRST.issue_ca("Second")
LEAF = SECOND.issue()
PATH = [LEAF, SECOND, FIRST, ROOT]
OTHERS = [make_root(f"Other {index}") for index in range(2)]
POSITIONS: list[PinPosition] = ["any", "leaf", "intermediate", "root"]

pins = st.builds(Pin, st.sampled_from([each.pin for each in [*PATH, *OTHERS]]), st.sampled_from(POSITIONS))


def stands(pin: Pin, length: int) -> bool:
    """By the words of the definition: the pinned key is in the path, at the pin's place."""
    keys = [each.pin for each in PATH[:length]]
    inner = keys[1:] if length < len(PATH) else keys[1:-1]  # an anchor that is no root is an intermediate as well
    places = {"any": keys, "leaf": keys[:1], "intermediate": inner, "root": keys[-1:]}
    return pin.digest in places[pin.at]


@given(st.lists(pins, min_size=1, max_size=5), st.integers(1, 4))
def test_a_path_passes_exactly_where_a_pin_stands_in_its_place(wanted: list[Pin], length: int) -> None:
    path = verified_path([each.der for each in PATH[:length]])
    policy = pinning("enforce", wanted)
    standing = {pin for pin in wanted if stands(pin, length)}
    if standing:
        assert set(policy.check(path).pins) == standing
    else:
        with pytest.raises(PinMismatchError) as refused:
            policy.check(path)
        assert set(refused.value.expected) == {str(pin) for pin in wanted}
        assert len(refused.value.seen) == length


@given(st.lists(pins, min_size=1, max_size=5), st.integers(1, 4))
def test_narrowing_never_takes_away_the_anchor_of_a_path_that_would_pass(wanted: list[Pin], length: int) -> None:
    policy = pinning("enforce", wanted)
    anchor = PATH[length - 1].der
    if any(stands(pin, length) for pin in wanted):
        assert anchor in policy.narrow([anchor, *(each.der for each in OTHERS)])


@given(st.binary(min_size=32, max_size=32))
def test_every_digest_has_one_canonical_text(digest: bytes) -> None:
    text = "sha256/" + base64.b64encode(digest).decode()
    assert parse_pin(text).digest == text
    assert parse_pin("sha256//" + base64.b64encode(digest).decode()).digest == text


@given(st.text(max_size=60) | st.text("sha256/=A+", max_size=60))
def test_arbitrary_text_is_a_pin_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert len(parse_pin(text).digest) == 51


@given(st.lists(st.binary(max_size=40), max_size=3))
def test_arbitrary_bytes_for_a_path_are_a_trust_error(path: list[bytes]) -> None:
    with pytest.raises(TrustError):
        verified_path(path)
