"""A key whose curve is spelled out in parameters has the pin of its own bytes; OpenSSL 3 verifies no path with one."""

from __future__ import annotations

import pytest

from codingagents.trust.context import pinned_context
from codingagents.trust.der import spki_pin
from codingagents.trust.pins import Pin, Pinning, pinning
from explicit_curve import with_explicit_curve
from handshakes import REQUEST, connect, server_context
from pki import make_root

NAMED = make_root()
SPELLED = with_explicit_curve(NAMED)
OWN_PIN = spki_pin(SPELLED.der)


def test_the_two_spellings_are_one_key_with_two_pins() -> None:
    """`cryptography` would give both the pin of the named curve."""
    assert SPELLED.pin == NAMED.pin
    assert OWN_PIN != spki_pin(NAMED.der) == NAMED.pin


def test_an_anchor_is_pinned_by_its_own_bytes() -> None:
    assert pinning("enforce", [Pin(OWN_PIN, "root")]).narrow([NAMED.der, SPELLED.der]) == [SPELLED.der]


@pytest.mark.parametrize(
    "rules", [pinning("off", []), pinning("enforce", [Pin(OWN_PIN)]), pinning("enforce", [Pin(NAMED.pin)])]
)
def test_no_path_with_such_a_key_is_verified(rules: Pinning) -> None:
    """Also where the store is asked for it by name; the control has the same key in the usual spelling."""
    _, server, error = connect(pinned_context(SPELLED.pem, rules), server_context(SPELLED.issue()))
    assert "explicit ECC parameters" in str(error)
    assert server.received == b""
    assert connect(pinned_context(NAMED.pem, pinning("off", [])), server_context(NAMED.issue()))[1].received == REQUEST
