from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization

from codingagents.trust.der import spki_bytes, spki_pin
from codingagents.trust.errors import TrustError
from pki import KeyType, make_key, make_root

LEAF = make_root().issue()


@pytest.mark.parametrize("key_type", ["ec", "rsa", "ed25519"])
def test_the_pin_is_that_of_cryptography(key_type: KeyType) -> None:
    issued = make_root(key=make_key(key_type)).issue(key_type=key_type)
    assert spki_pin(issued.der) == issued.pin
    assert spki_bytes(issued.der) == issued.certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def sequence(content: bytes) -> bytes:
    assert len(content) < 0x80
    return b"\x30" + bytes([len(content)]) + content


EMPTY = sequence(b"")
SERIAL = b"\x02\x01\x05"
SPKI = sequence(b"\x05\x00")


def certificate(tbs: bytes) -> bytes:
    return sequence(sequence(tbs) + EMPTY)


def test_a_version_1_certificate_has_no_version_field() -> None:
    assert spki_bytes(certificate(SERIAL + EMPTY * 4 + SPKI)) == SPKI
    assert spki_bytes(certificate(b"\xa0\x03\x02\x01\x02" + SERIAL + EMPTY * 4 + SPKI)) == SPKI


@pytest.mark.parametrize(
    ("der", "says"),
    [
        (b"", "shape"),
        (b"\x30", "shape"),
        (b"\x31\x00", "shape"),
        (LEAF.der + b"\0", "after its end"),
        (LEAF.der[:-1], "cut short"),
        (certificate(b""), "shape"),
        (certificate(SERIAL + EMPTY * 4), "shape"),
        (certificate(SERIAL + EMPTY * 3 + SERIAL + SPKI), "shape"),
        (certificate(EMPTY * 5 + SPKI), "shape"),
        (certificate(SERIAL + EMPTY * 4 + b"\x30\x7f\x00"), "cut short"),
        (b"\x30\x80" + LEAF.der[4:] + b"\0\0", "length"),  # indefinite
        (b"\x30\x81\x05" + b"x" * 5, "length"),  # not minimal
        (b"\x30\x82\x00\x90" + b"x" * 0x90, "length"),
        (b"\x30\x85\x01\x00\x00\x00\x00" + b"x", "length"),
        (b"\x30\x82\x01", "length"),
    ],
)
def test_anything_else_than_a_der_certificate_is_refused(der: bytes, says: str) -> None:
    with pytest.raises(TrustError, match=says):
        spki_bytes(der)
