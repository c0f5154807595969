"""CORE: the SubjectPublicKeyInfo of an X.509 certificate, as the certificate's own bytes.

A strict walk over just enough DER (X.690; RFC 5280 section 4.1). `cryptography` re-encodes keys (an EC key with
explicit curve parameters comes out shorter), which changes the hash that a pin is; hence the raw bytes. Nothing is
verified here: the caller has a path that OpenSSL verified. No I/O.
"""

from __future__ import annotations

import base64
import hashlib

from codingagents.trust.errors import TrustError

_INTEGER = 0x02
_SEQUENCE = 0x30
_VERSION = 0xA0  # [0] EXPLICIT


def spki_pin(certificate: bytes) -> str:
    """Return the certificate's pin, `sha256/<base64>` of its SPKI (RFC 7469 section 2.4), or raise `TrustError`."""
    digest = hashlib.sha256(spki_bytes(certificate)).digest()
    return "sha256/" + base64.b64encode(digest).decode()


def spki_bytes(certificate: bytes) -> bytes:
    """Return the DER bytes of the SPKI in a DER certificate, or raise `TrustError` for anything else."""
    content, end = _element(certificate, 0, len(certificate), _SEQUENCE)
    if end != len(certificate):
        raise TrustError("a certificate has bytes after its end")
    at, end = _element(certificate, content, end, _SEQUENCE)  # tbsCertificate
    if at < end and certificate[at] == _VERSION:
        _, at = _element(certificate, at, end, _VERSION)
    _, at = _element(certificate, at, end, _INTEGER)  # serialNumber
    for _ in range(4):  # signature, issuer, validity, subject
        _, at = _element(certificate, at, end, _SEQUENCE)
    _, after = _element(certificate, at, end, _SEQUENCE)
    return certificate[at:after]


def _element(data: bytes, at: int, limit: int, tag: int) -> tuple[int, int]:
    """Return where the content of the element at `at` starts and ends; it must have `tag` and end by `limit`."""
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
