"""CORE: the few fields of an X.509 certificate that trust is judged by, as the certificate's own bytes.

A strict walk over just enough DER (X.690; RFC 5280 section 4.1). `cryptography` re-encodes keys (an EC key with
explicit curve parameters comes out shorter), which changes the hash that a pin is; hence the raw bytes. Nothing is
verified here: the caller has a path that OpenSSL verified. No I/O.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import NamedTuple

from codingagents.trust.errors import TrustError

_INTEGER = 0x02
_UTC_TIME = 0x17
_GENERALIZED_TIME = 0x18
SEQUENCE = 0x30
_VERSION = 0xA0  # [0] EXPLICIT
_TIME = re.compile(r"\d{4}(?:0\d|1[0-2])[0-3]\d[0-2]\d[0-5]\d[0-5]\dZ", re.ASCII)  # RFC 5280: seconds, and Z


class Fields(NamedTuple):
    """Parts of a certificate, each a whole DER element as it stands there."""

    issuer: bytes
    validity: bytes
    subject: bytes
    spki: bytes


def fields(certificate: bytes) -> Fields:
    """Return the parts of a DER certificate, or raise `TrustError` for anything else."""
    content, end = element(certificate, 0, len(certificate), SEQUENCE)
    if end != len(certificate):
        raise TrustError("a certificate has bytes after its end")
    at, end = element(certificate, content, end, SEQUENCE)  # tbsCertificate
    if at < end and certificate[at] == _VERSION:
        _, at = element(certificate, at, end, _VERSION)
    _, at = element(certificate, at, end, _INTEGER)  # serialNumber
    _, at = element(certificate, at, end, SEQUENCE)  # signature
    parts = []
    for _ in Fields._fields:
        start = at
        _, at = element(certificate, at, end, SEQUENCE)
        parts.append(certificate[start:at])
    return Fields(*parts)


def spki_bytes(certificate: bytes) -> bytes:
    """Return the DER bytes of the SPKI in a DER certificate, or raise `TrustError` for anything else."""
    return fields(certificate).spki


def spki_pin(certificate: bytes) -> str:
    """Return the certificate's pin, `sha256/<base64>` of its SPKI (RFC 7469 section 2.4), or raise `TrustError`."""
    digest = hashlib.sha256(spki_bytes(certificate)).digest()
    return "sha256/" + base64.b64encode(digest).decode()


def certificate_sha256(certificate: bytes) -> str:
    """Return the SHA-256 of a DER certificate as 64 hexadecimal digits."""
    return hashlib.sha256(certificate).hexdigest()


def self_issued(certificate: bytes) -> bool:
    """Return whether subject and issuer are the same, as a root's are, or raise `TrustError`."""
    found = fields(certificate)
    return found.issuer == found.subject


def not_after(certificate: bytes) -> str:
    """Return until when a DER certificate is valid, as RFC 3339 in UTC, or raise `TrustError`."""
    validity = fields(certificate).validity
    at, end = element(validity, 0, len(validity), SEQUENCE)
    _, _, at = _time(validity, at, end)  # notBefore
    kind, text, _ = _time(validity, at, end)
    if kind == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text  # RFC 5280 section 4.1.2.5.1
    if not _TIME.fullmatch(text):
        raise TrustError("a certificate has a malformed date")
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}T{text[8:10]}:{text[10:12]}:{text[12:]}"


def _time(data: bytes, at: int, end: int) -> tuple[int, str, int]:
    """Return tag, text and end of the time at `at`."""
    kind = data[at] if at < end else 0
    content, after = element(data, at, end, _GENERALIZED_TIME if kind == _GENERALIZED_TIME else _UTC_TIME)
    return kind, data[content:after].decode("ascii", "replace"), after


def element(data: bytes, at: int, limit: int, tag: int) -> tuple[int, int]:
    """Return where the content of the element at `at` starts and ends; it must have `tag` and end by `limit`.

    Raises `TrustError`.
    """
    if at + 2 > limit or data[at] != tag:
        raise TrustError("a certificate is not DER of the expected shape")
    length, content = data[at + 1], at + 2
    if length >= 0x80:
        octets = length - 0x80
        content += octets
        # DER: a definite length, in as few octets as it needs; four are more than any certificate has.
        if not 1 <= octets <= 4 or content > limit or data[at + 2] == 0:
            raise TrustError("a certificate has a malformed length")
        length = int.from_bytes(data[at + 2 : content], "big")
        if length < 0x80:
            raise TrustError("a certificate has a malformed length")
    if length > limit - content:
        raise TrustError("a certificate is cut short")
    return content, content + length
