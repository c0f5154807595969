"""CORE: what one certificate says, as `cryptography` reads it: import it where that is wanted only, it is slow to load.

Its key is hashed as its own bytes (`trust.der`), never encoded anew. Verifies no path and judges nothing. No I/O, no
clock.
"""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterable, Iterator
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from codingagents.rewrite.certificates import CertificateFacts
from codingagents.trust.der import spki_pin
from codingagents.trust.errors import TrustError

_NAMES = {x509.DNSName: "DNS", x509.IPAddress: "IP", x509.UniformResourceIdentifier: "URI", x509.RFC822Name: "email"}
_USES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "any",
}
_UNREADABLE = (ValueError, TypeError, x509.InvalidVersion, x509.UnsupportedGeneralNameType, x509.DuplicateExtension)
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


def describe(certificate: bytes) -> CertificateFacts:
    """Return what a DER certificate says, or raise `TrustError` where it cannot be read."""
    spki = spki_pin(certificate)
    with _read():
        return _facts(x509.load_der_x509_certificate(certificate), certificate, spki)


def is_issued_by(certificate: bytes, issuer: bytes) -> bool:
    """Return whether `issuer` has the name and the key that `certificate` was signed with; `TrustError`."""
    with _read():
        return _is_issued_by(x509.load_der_x509_certificate(certificate), x509.load_der_x509_certificate(issuer))


@contextlib.contextmanager
def _read() -> Iterator[None]:
    """Turn what `cryptography` raises, also of a part that it reads only when asked for, into a `TrustError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of serial numbers and the like: what matters is checked by who asks
            yield
    except _UNREADABLE as error:
        raise TrustError(f"a certificate cannot be read ({error}); get it again from whoever issued it") from None


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, InvalidSignature, TypeError, UnsupportedAlgorithm):
        # Other names, another key; or what cannot be verified: by its name alone anybody could claim to be below a CA.
        return False
    return True


def _extension(parsed: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return parsed.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _facts(parsed: x509.Certificate, certificate: bytes, spki: str) -> CertificateFacts:
    sans = _extension(parsed, x509.SubjectAlternativeName)
    constraints = _extension(parsed, x509.BasicConstraints)
    within = _extension(parsed, x509.NameConstraints)
    uses = _extension(parsed, x509.ExtendedKeyUsage)
    kind, bits = _key(parsed)
    return CertificateFacts(
        subject=parsed.subject.rfc4514_string(),
        issuer=parsed.issuer.rfc4514_string(),
        sans=_names(sans or ()),
        not_before=parsed.not_valid_before_utc,
        not_after=parsed.not_valid_after_utc,
        sha256=hashlib.sha256(certificate).hexdigest(),
        spki=spki,
        is_ca=constraints is not None and constraints.ca,
        path_length=None if constraints is None else constraints.path_length,
        permitted=_names((within and within.permitted_subtrees) or ()),
        excluded=_names((within and within.excluded_subtrees) or ()),
        extended_key_usage=tuple(map(_use, uses or ())),
        key_kind=kind,
        key_bits=bits,
        signature_hash=_signature_hash(parsed),
        self_signed=_is_issued_by(parsed, parsed),
    )


def _names(names: Iterable[x509.GeneralName]) -> tuple[str, ...]:
    return tuple(
        f"{_NAMES[type(each)]}:{each.value}" if type(each) in _NAMES else f"other:{type(each).__name__}"
        for each in names
    )


def _use(use: x509.ObjectIdentifier) -> str:
    return _USES.get(use, use.dotted_string)


def _key(parsed: x509.Certificate) -> tuple[str, int]:
    try:
        key = parsed.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "other", 0
    match key:
        case rsa.RSAPublicKey():
            return "RSA", key.key_size
        case ec.EllipticCurvePublicKey():
            return "EC", key.key_size
        case ed25519.Ed25519PublicKey():
            return "Ed25519", 256
        case ed448.Ed448PublicKey():
            return "Ed448", 456
        case _:
            return "other", 0


def _signature_hash(parsed: x509.Certificate) -> str | None:
    try:
        found = parsed.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    return None if found is None else found.name
