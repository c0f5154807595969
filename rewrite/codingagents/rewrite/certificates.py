"""CORE: certificates as files hold them: PEM among text, DER, PKCS#7, TRUSTED CERTIFICATE; and what one of them says.

`parse_certificates` returns DER and nothing else of the file: a private key in it is refused, never copied. It is
strict about the frame and, but for PKCS#7, loads no library; what a certificate means is told by `certificate_facts`,
which does. Verifies nothing and judges nobody. No I/O, no clock.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from codingagents.trust import der
from codingagents.trust.errors import TrustError

MAX_CERTIFICATES = 2000  # Debian's store has about 142
MAX_CERTIFICATE = 64 * 1024  # bytes of DER

_BEGIN, _END, _DASHES = b"-----BEGIN ", b"-----END ", b"-----"
_KEY = b"PRIVATE KEY-----"
_PKCS7_LABELS = (b"PKCS7", b"PKCS #7 SIGNED DATA", b"CMS")
_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")  # the OID that a PKCS#7 file of certificates starts with
_OBJECT_IDENTIFIER, _REJECTED = 0x06, 0xA0  # tags of DER; the second is [0]
# Trust settings (X509_CERT_AUX) name uses by OID: any, and TLS servers.
_SERVER_USES = (bytes.fromhex("0604551d2500"), bytes.fromhex("06082b06010505070301"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """What a certificate says of itself. Every text is the certificate's: escape it before it meets a terminal."""

    subject: str  # RFC 4514
    issuer: str
    sans: tuple[str, ...]  # `DNS:…`, `IP:…`, `URI:…`, `email:…`
    not_before: datetime.datetime  # UTC, as the next
    not_after: datetime.datetime
    sha256: str  # of the DER, 64 hexadecimal digits
    spki: str  # `sha256/<base64>`, of the certificate's own bytes
    is_ca: bool  # by its basic constraints
    path_length: int | None
    permitted: tuple[str, ...]  # name constraints, as `sans`
    excluded: tuple[str, ...]
    extended_key_usage: tuple[str, ...]  # names, or OIDs without one; empty: any
    key_kind: str  # RSA, EC, Ed25519, Ed448, or "other"
    key_bits: int  # 0 where unknown
    signature_hash: str | None  # as `sha256`; None where the algorithm has none of its own, or is unknown
    self_signed: bool

    @property
    def fingerprint(self) -> str:
        """The `sha256` for a person to compare and to type: one word, in groups of four digits."""
        return ":".join(self.sha256[at : at + 4] for at in range(0, 64, 4))


def parse_certificates(content: bytes, file: str) -> list[bytes]:
    """Return the certificates in `content` as DER, each once, in order; `TrustError` names `file` and the remedy.

    Read are PEM with any text around the blocks (RFC 7468), one DER certificate, and PKCS#7 as PEM or DER. Of a TRUSTED
    CERTIFICATE the certificate is kept and its trust settings are dropped, unless they reject TLS servers or do not
    name them among its uses: then the file is refused. Refused as well: a private key anywhere, any other block, a
    block without its END line, an empty file, and more than `MAX_CERTIFICATES`.
    """
    if _KEY in content:
        raise TrustError(f"{file} holds a private key; keep it elsewhere and give a file of certificates only")
    found: dict[bytes, None] = {}
    for certificate in _all(content, file):
        if len(certificate) > MAX_CERTIFICATE:
            raise TrustError(f"{file}: a certificate is over the limit of {MAX_CERTIFICATE} bytes")
        try:
            der.spki_bytes(certificate)
        except TrustError as error:
            raise TrustError(f"{file}: certificate {len(found) + 1} cannot be parsed: {error}") from None
        found[certificate] = None
        if len(found) > MAX_CERTIFICATES:
            raise TrustError(f"{file} holds more than {MAX_CERTIFICATES} certificates")
    if not found:
        raise TrustError(f"{file} holds no certificate; PEM, DER and PKCS#7 (.p7b) files are understood")
    return list(found)


def to_pem(certificates: list[bytes] | tuple[bytes, ...]) -> str:
    """Return DER certificates as PEM text."""
    return "".join(
        f"-----BEGIN CERTIFICATE-----\n{_wrapped(each)}\n-----END CERTIFICATE-----\n" for each in certificates
    )


def describe(certificate: bytes) -> CertificateFacts:
    """Return what a DER certificate says, or raise `TrustError` where it cannot be read."""
    from codingagents.rewrite import certificate_facts  # noqa: PLC0415 -- slow to load, and most commands need no facts

    return certificate_facts.describe(certificate)


def is_issued_by(certificate: bytes, issuer: bytes) -> bool:
    """Return whether `issuer` has the name and the key that `certificate` was signed with; both are DER."""
    from codingagents.rewrite import certificate_facts  # noqa: PLC0415 -- likewise

    return certificate_facts.is_issued_by(certificate, issuer)


def _wrapped(certificate: bytes) -> str:
    text = base64.b64encode(certificate).decode()
    return "\n".join(text[at : at + 64] for at in range(0, len(text), 64))


def _all(content: bytes, file: str) -> Iterator[bytes]:
    if _BEGIN in content:
        for label, body in _blocks(content, file):
            yield from _of_block(label, body, file)
    elif content[:1] == b"\x30":
        yield from _pkcs7(content, file) if _SIGNED_DATA in content[:32] else [content]


def _blocks(content: bytes, file: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield (label, DER) of each PEM block; a line at a time, so that no input costs more than its length."""
    label, body = None, bytearray()
    count = 0
    for line in map(bytes.strip, content.removeprefix(b"\xef\xbb\xbf").splitlines()):
        if line.startswith(_BEGIN) and line.endswith(_DASHES):
            if label is not None:
                break
            label, body, count = line[len(_BEGIN) : -len(_DASHES)], bytearray(), count + 1
        elif label is not None and line == _END + label + _DASHES:
            try:
                yield label, binascii.a2b_base64(bytes(body), strict_mode=True)
            except binascii.Error:
                raise TrustError(f"{file}: block {count} ({_shown(label)}) is not valid base64") from None
            label = None
        elif label is not None:
            body += line
    if label is not None or count != content.count(_BEGIN):
        raise TrustError(f"{file}: a PEM block has no matching END line, or does not start its line")


def _of_block(label: bytes, body: bytes, file: str) -> Iterator[bytes]:
    if label == b"TRUSTED CERTIFICATE":
        yield _normalised(body, file)
    elif label in (b"CERTIFICATE", b"X509 CERTIFICATE"):
        yield body
    elif label in _PKCS7_LABELS:
        yield from _pkcs7(body, file)
    else:
        raise TrustError(f"{file} holds a PEM block {_shown(label)}; only certificates belong in a trust store")


def _pkcs7(content: bytes, file: str) -> list[bytes]:
    from cryptography.hazmat.primitives.serialization import Encoding, pkcs7  # noqa: PLC0415 -- slow to load

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # BER where DER was asked for is read all the same
        try:
            return [each.public_bytes(Encoding.DER) for each in pkcs7.load_der_pkcs7_certificates(content)]
        except ValueError:
            raise TrustError(f"{file}: the PKCS#7 data cannot be parsed, or holds no certificate") from None


def _normalised(block: bytes, file: str) -> bytes:
    """Return the certificate of a TRUSTED CERTIFICATE whose settings (X509_CERT_AUX, if any) allow TLS servers."""
    try:
        _, end = der.element(block, 0, len(block), der.SEQUENCE)
        certificate = block[:end]
        trusted, rejected = _uses(block[end:])
    except TrustError as error:
        raise TrustError(f"{file}: a TRUSTED CERTIFICATE cannot be parsed: {error}") from None
    # As OpenSSL has it: a rejection is final, and a list of uses excludes every other one.
    if rejected & set(_SERVER_USES) or (trusted and not trusted & set(_SERVER_USES)):
        raise TrustError(
            f"{file}: the trust settings of a TRUSTED CERTIFICATE reject it for TLS servers; "
            "remove it, or drop its settings knowingly: openssl x509 -in FILE -out NEW"
        )
    return certificate


def _uses(auxiliary: bytes) -> tuple[set[bytes], set[bytes]]:
    """Return the OIDs (as DER) that an X509_CERT_AUX trusts the certificate for, and those that it rejects."""
    found: tuple[set[bytes], set[bytes]] = (set(), set())
    if not auxiliary:
        return found
    at, end = der.element(auxiliary, 0, len(auxiliary), der.SEQUENCE)
    if end != len(auxiliary):
        raise TrustError("there are bytes after its end")
    for tag, uses in ((der.SEQUENCE, found[0]), (_REJECTED, found[1])):
        if at < end and auxiliary[at] == tag:
            inner, at = der.element(auxiliary, at, end, tag)
            while inner < at:
                _, after = der.element(auxiliary, inner, at, _OBJECT_IDENTIFIER)
                uses.add(auxiliary[inner:after])
                inner = after
    return found


def _shown(label: bytes) -> str:
    return repr(label[:40].decode("ascii", "backslashreplace"))
