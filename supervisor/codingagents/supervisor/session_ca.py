"""SHELL: a certificate authority for one session, for helpers that listen on https: made, used and forgotten at once.

Its key never leaves `issue`, and its certificate can vouch for nothing but this machine's loopback (name constraints).
Decides nothing about who trusts it. Imported only where a server listens on https: `cryptography.x509` is slow to load.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from codingagents.rewrite import places
from codingagents.rewrite.specs import ListenCertificate
from codingagents.trust.vocabulary import Secret

_NAME: Final = "localhost"
_ADDRESSES: Final = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))
_BEFORE: Final = datetime.timedelta(hours=1)  # for a client whose clock is behind
_LIFE: Final = datetime.timedelta(days=90)  # longer than a session


def issue(session: str, servers: Iterable[str], now: datetime.datetime) -> tuple[str, dict[str, ListenCertificate]]:
    """Return the authority's certificate (PEM), and a certificate with a key of its own for each server.

    All are for localhost, 127.0.0.1 and ::1. `now` has a time zone.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    authority = _authority(session, key, now)
    issued = {name: _leaf(name, authority, key, now) for name in servers}
    return _pem(authority), issued


def _authority(session: str, key: ec.EllipticCurvePrivateKey, now: datetime.datetime) -> x509.Certificate:
    name = _named(f"{places.SESSION_AUTHORITY} {session}")
    addresses = [x509.IPAddress(ipaddress.ip_network(address)) for address in _ADDRESSES]
    constraints = x509.NameConstraints([x509.DNSName(_NAME), *addresses], None)
    return (
        _builder(name, name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(constraints, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    server: str, authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey, now: datetime.datetime
) -> ListenCertificate:
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.DNSName(_NAME), *map(x509.IPAddress, _ADDRESSES)])
    certificate = (
        _builder(_named(f"coding-agents helper {server}"), authority.subject, key.public_key(), now)
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return ListenCertificate(chain_pem=_pem(certificate), key_pem=Secret(pem.decode()))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + _LIFE)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
