"""A session's own authority: real handshakes with what it issued, and what it can never vouch for."""

import datetime
import socket
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from codingagents.rewrite.specs import ListenCertificate
from codingagents.supervisor import session_ca
from codingagents.trust.server_context import server_context
from codingagents.trust.vocabulary import Secret

NOW = datetime.datetime.now(datetime.UTC)
AUTHORITY, LEAVES = session_ca.issue("s-1", ["one", "two"], NOW)


def serving(certificate: ListenCertificate) -> ssl.SSLContext:
    return server_context(certificate.chain_pem, certificate.key_pem)


def greet(name: str, server: ssl.SSLContext, authority: str = AUTHORITY) -> None:
    """Shake hands as a client that trusts only `authority` and wants `name`."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with ours:
            client = ssl.create_default_context(cadata=authority)
            client.wrap_socket(ours, server_hostname=name).close()
    finally:
        thread.join()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
@pytest.mark.parametrize("server", ["one", "two"])
def test_clients_reach_each_helper_by_every_name_of_loopback(name: str, server: str) -> None:
    greet(name, serving(LEAVES[server]))


@pytest.mark.parametrize("name", ["example.test", "127.0.0.2", "api.localhost"])
def test_a_leaf_is_for_nothing_else(name: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid for"):
        greet(name, serving(LEAVES["one"]))


def test_each_server_has_a_key_of_its_own() -> None:
    """A helper that is not ours any more cannot speak as another."""
    assert LEAVES["one"].key_pem != LEAVES["two"].key_pem
    assert "PRIVATE KEY" not in AUTHORITY + LEAVES["one"].chain_pem


def signed_by_the_authoritys_key(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ssl.SSLContext]:
    """Return an authority whose key we kept, and a server with a certificate for `name` that it signed."""
    kept: list[ec.EllipticCurvePrivateKey] = []
    generate = ec.generate_private_key

    def keeping(curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        kept.append(generate(curve))
        return kept[-1]

    with monkeypatch.context() as patched:
        patched.setattr(ec, "generate_private_key", keeping)
        authority, _ = session_ca.issue("s-2", [], NOW)
    key = generate(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "forged")]))
        .issuer_name(x509.load_pem_x509_certificate(authority.encode()).subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(hours=1))
        .not_valid_after(NOW + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(kept[0], hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    chain = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return authority, server_context(chain, Secret(pem))


def test_not_even_its_key_could_vouch_for_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients are told to trust it, so the constraint is what stands between a stolen key and the world."""
    authority, server = signed_by_the_authoritys_key("example.test", monkeypatch)
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        greet("example.test", server, authority)
    authority, server = signed_by_the_authoritys_key("localhost", monkeypatch)
    greet("localhost", server, authority)  # the control


def test_nobody_trusts_it_after_its_time() -> None:
    authority, leaves = session_ca.issue("s-1", ["one"], NOW - datetime.timedelta(days=91))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        greet("localhost", serving(leaves["one"]), authority)
