from __future__ import annotations

import ssl

import pytest

from codingagents.trust.context import pinned_context
from codingagents.trust.errors import TrustError
from codingagents.trust.pem import parse_pem
from codingagents.trust.pins import Pinning, parse_pin, pinning
from codingagents.trust.selftest import self_test


def unpinned(anchors_pem: str, _pinning: Pinning) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=b"".join(parse_pem(anchors_pem)))
    return context


def test_it_passes_with_our_context() -> None:
    self_test()


def test_it_fails_where_a_wrong_pin_is_let_through() -> None:
    with pytest.raises(TrustError, match="wrong pin received 7 bytes"):
        self_test(unpinned)


def test_it_fails_where_even_the_right_pin_is_refused() -> None:
    with pytest.raises(TrustError, match="right key was refused"):
        self_test(lambda pem, _: pinned_context(pem, pinning("enforce", [parse_pin("sha256/" + "B" * 42 + "A=")])))


def test_it_fails_where_a_wrong_pin_is_refused_for_another_reason() -> None:
    made: list[Pinning] = []

    def untrusting_the_fourth_time(pem: str, pins: Pinning) -> ssl.SSLContext:
        made.append(pins)
        return unpinned(pem, pins) if len(made) < 4 else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    with pytest.raises(TrustError, match="wrong pin was refused, but not as one"):
        self_test(untrusting_the_fourth_time)


@pytest.mark.parametrize(
    ("ignores", "says"),
    [
        ("certificates", "right certificate was refused"),
        ("overrides", "an override was refused"),
        ("what overrides name", "wrong pin received 7 bytes"),
    ],
)
def test_it_fails_where_a_part_of_the_rules_is_ignored(ignores: str, says: str) -> None:
    wrong = parse_pin("sha256/" + "A" * 43 + "=")

    def forgetful(pem: str, rules: Pinning) -> ssl.SSLContext:
        certificate = any(not pin.digest.startswith("sha256/") for pin in rules.pins)
        if (ignores, certificate) == ("certificates", True) or (ignores == "overrides" and rules.bypasses):
            return pinned_context(pem, pinning("enforce", [wrong]))
        if ignores == "what overrides name" and rules.bypasses:
            return unpinned(pem, rules)
        return pinned_context(pem, rules)

    with pytest.raises(TrustError, match=says):
        self_test(forgetful)


def test_it_fails_where_the_request_does_not_arrive() -> None:
    class Silent(ssl.SSLObject):
        def write(self, data: object) -> int:
            return super().write(b"other")

    def silent(pem: str, pins: Pinning) -> ssl.SSLContext:
        context = unpinned(pem, pins)
        context.sslobject_class = Silent
        return context

    with pytest.raises(TrustError, match="did not get what was sent"):
        self_test(silent)


def test_a_handshake_that_never_ends_is_a_failure() -> None:
    class Stalled(ssl.SSLObject):
        def do_handshake(self) -> None:
            raise ssl.SSLWantReadError

    def stalled(pem: str, pins: Pinning) -> ssl.SSLContext:
        context = unpinned(pem, pins)
        context.sslobject_class = Stalled
        return context

    with pytest.raises(TrustError, match="right key was refused"):
        self_test(stalled)
