"""A real certificate authority for tests and the demo; nothing is kept in files unless a test writes it."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

KeyType = Literal["ec", "rsa", "ed25519"]
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

CA_KEY_USAGE = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)
_DAY = datetime.timedelta(days=1)


def make_key(key_type: KeyType = "ec") -> PrivateKey:
    if key_type == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if key_type == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Issued:
    """A certificate with its key and the issuers between it and the root (root excluded)."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)
    issuers: tuple[Issued, ...] = ()

    @cached_property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @cached_property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of its DER, hexadecimal."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    @property
    def chain_pem(self) -> str:
        """What a server sends: itself, then its issuers without the root."""
        return self.pem + "".join(issuer.pem for issuer in self.issuers)

    @property
    def key_pem(self) -> str:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    @cached_property
    def pin(self) -> str:
        """`sha256/<base64>`, by `cryptography` and so independent of the project's own DER walk."""
        return pin_of(self.certificate)

    def issue_ca(self, name: str, *, key: PrivateKey | None = None) -> Issued:
        return _issue(name, self, ca=True, key=key)

    def issue(
        self,
        names: Sequence[str] = ("localhost", "127.0.0.1"),
        *,
        key: PrivateKey | None = None,
        key_type: KeyType = "ec",
        expired: bool = False,
    ) -> Issued:
        """A server's certificate; `names` become entries of its SAN (none: no SAN).

        An address becomes an iPAddress, and whatever else, or begins with "dns:", a dNSName.
        """
        return _issue(
            names[0] if names else "localhost", self, key=key or make_key(key_type), names=names, expired=expired
        )


def pin_of(certificate: x509.Certificate) -> str:
    """Return the pin of a certificate's key."""
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return "sha256/" + base64.b64encode(hashlib.sha256(spki).digest()).decode()


def make_root(
    name: str = "Test Root", *, key: PrivateKey | None = None, without: Sequence[type[x509.ExtensionType]] = ()
) -> Issued:
    """A self-signed CA; `without` leaves extensions out."""
    return _issue(name, None, ca=True, key=key, without=without)


def _issue(
    name: str,
    issuer: Issued | None,
    *,
    ca: bool = False,
    key: PrivateKey | None = None,
    names: Sequence[str] = (),
    expired: bool = False,
    without: Sequence[type[x509.ExtensionType]] = (),
) -> Issued:
    key = key or make_key()
    signing = issuer.key if issuer else key
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 30 * _DAY)
        .not_valid_after(now + (-_DAY if expired else 30 * _DAY))
    )
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=ca, path_length=None), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), False),
    ]
    if ca:
        extensions.append((CA_KEY_USAGE, True))
    if names:
        extensions.append((x509.SubjectAlternativeName([_general_name(each) for each in names]), False))
    for extension, critical in extensions:
        if not isinstance(extension, tuple(without)):
            builder = builder.add_extension(extension, critical)
    digest = None if isinstance(signing, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    above = (issuer, *issuer.issuers) if issuer and issuer.certificate.issuer != issuer.certificate.subject else ()
    return Issued(builder.sign(signing, digest), key, above)


def _general_name(name: str) -> x509.GeneralName:
    if name.startswith("dns:"):
        return x509.DNSName(name.removeprefix("dns:"))
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
