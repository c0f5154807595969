from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization

from codingagents.trust.der import certificate_sha256, not_after, self_issued, spki_bytes, spki_pin
from codingagents.trust.errors import TrustError
from pki import KeyType, make_key, make_root

ROOT = make_root()
LEAF = ROOT.issue()


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


def test_the_fingerprint_is_that_of_cryptography() -> None:
    assert certificate_sha256(LEAF.der) == LEAF.fingerprint


def test_a_root_names_itself_as_its_issuer() -> None:
    assert self_issued(ROOT.der)
    assert not self_issued(LEAF.der)


def validity(*times: bytes) -> bytes:
    return certificate(SERIAL + EMPTY * 2 + sequence(b"".join(times)) + EMPTY + SPKI)


def utc(text: bytes) -> bytes:
    return b"\x17" + bytes([len(text)]) + text


def generalized(text: bytes) -> bytes:
    return b"\x18" + bytes([len(text)]) + text


NOW = utc(b"261124000000Z")


def test_the_end_is_read_from_a_real_certificate() -> None:
    assert not_after(LEAF.der) == f"{LEAF.certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (utc(b"491231235959Z"), "2049-12-31T23:59:59Z"),
        (utc(b"500101000000Z"), "1950-01-01T00:00:00Z"),
        (generalized(b"20500101000000Z"), "2050-01-01T00:00:00Z"),
        (generalized(b"99991231235959Z"), "9999-12-31T23:59:59Z"),
    ],
)
def test_the_end_is_read_in_both_its_forms(end: bytes, expected: str) -> None:
    assert not_after(validity(NOW, end)) == expected
    assert not_after(validity(generalized(b"20260101000000Z"), end)) == expected


@pytest.mark.parametrize(
    "times",
    [
        (),
        (NOW,),
        (NOW, SERIAL),
        (NOW, utc(b"2701010000Z")),  # no seconds
        (NOW, utc(b"270101000000+0100")),
        (NOW, utc(b"271301000000Z")),
        (NOW, generalized(b"270101000000Z")),
        (NOW, generalized(b"20270101000000.5Z")),
        (NOW, utc(b"2701\xb20000000Z")),
    ],
)
def test_any_other_end_is_refused(times: tuple[bytes, ...]) -> None:
    with pytest.raises(TrustError):
        not_after(validity(*times))
