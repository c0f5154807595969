"""Clients that trust servers as peers do, with Python's own TLS: the controls, which show that an attack works.

Each sends `REQUEST` to whom it trusts, and shows its client certificate to whoever asks. What is wrong with each is
said where it is made; none of it is ours.
"""

from __future__ import annotations

import fnmatch
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection
from contextlib import closing
from typing import Any

from cryptography import x509

import pki

REQUEST = b"POST /mcp HTTP/1.1\r\nHost: upstream.test\r\nAuthorization: Bearer naive\r\nContent-Length: 0\r\n\r\n"
PATIENCE = 20.0  # seconds; only a failing test waits that long

Accepts = Callable[[ssl.SSLSocket], bool]


def tcp(port: int, proxy: str | None, host: str = "127.0.0.1") -> socket.socket:
    """Connect to a port of this machine, through an HTTP proxy where there is one."""
    if proxy is None:
        return socket.create_connection((host, port), timeout=PATIENCE)
    name, _, number = proxy.rpartition(":")
    raw = socket.create_connection((name, int(number)), timeout=PATIENCE)
    raw.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += raw.recv(1)
    assert head.startswith((b"HTTP/1.0 200", b"HTTP/1.1 200")), head
    return raw


def context(store_pem: str, identity: pki.Issued | None = None) -> ssl.SSLContext:
    """Return a client's usual context: chain and name are verified, by any authority of the store."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(cadata=store_pem)
    if identity is not None:
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(identity.key_pem + identity.chain_pem)
            file.flush()
            made.load_cert_chain(file.name)
    return made


def without_verification(made: ssl.SSLContext) -> ssl.SSLContext:
    """Let a pin be all that counts: `aiohttp.Fingerprint`, `curl --insecure --pinnedpubkey`."""
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def without_names(made: ssl.SSLContext) -> ssl.SSLContext:
    """Let the client compare names itself, as many did before their TLS library could."""
    made.check_hostname = False
    return made


def anybody(_tls: ssl.SSLSocket) -> bool:
    """Trust whom OpenSSL trusts."""
    return True


def has_sent(pins: Collection[str]) -> Accepts:
    """Look for a pin in all that the server sent, verified or not; after the handshake."""
    return lambda tls: any(pki.pin_of(x509.load_der_x509_certificate(each)) in pins for each in sent_by(tls))


def sent_by(tls: ssl.SSLSocket) -> list[bytes]:
    """Return the certificates that the server sent, as DER."""
    if sys.version_info >= (3, 13):
        return list(tls.get_unverified_chain())
    import _ssl  # noqa: PLC0415 -- private to the branch that needs its constant

    inner: Any = tls._sslobj  # type: ignore[attr-defined]  # no public getter before 3.13
    return [each.public_bytes(_ssl.ENCODING_DER) for each in inner.get_unverified_chain()]


def names_itself(name: str) -> Accepts:
    """Look for the name among those of the certificate, whatever kind they are, `*` standing for anything."""

    def accepts(tls: ssl.SSLSocket) -> bool:
        found: Any = tls.getpeercert()
        return any(fnmatch.fnmatch(name, value) for _, value in found["subjectAltName"])

    return accepts


def ask(port: int, proxy: str | None, made: ssl.SSLContext, name: str, accepts: Accepts = anybody) -> bytes:
    """Do the handshake; if the server is accepted, send the request and return its answer; b"" where it is not."""
    with closing(tcp(port, proxy)) as raw, made.wrap_socket(raw, server_hostname=name) as tls:
        if not accepts(tls):
            return b""
        tls.sendall(REQUEST)
        return tls.recv(1 << 16)


def twice(port: int, proxy: str | None, made: ssl.SSLContext, name: str) -> list[list[Any]]:
    """Connect two times, the second by the session of the first; return the verified path of each."""
    session, paths = None, []
    for _ in range(2):
        with closing(tcp(port, proxy)) as raw, made.wrap_socket(raw, server_hostname=name, session=session) as tls:
            tls.sendall(REQUEST)
            assert tls.recv(1 << 16)
            session = tls.session
            inner: Any = tls if sys.version_info >= (3, 13) else tls._sslobj  # type: ignore[attr-defined]  # as above
            paths.append(list(inner.get_verified_chain() or ()))
    return paths


def opened(url: str, variables: dict[str, str]) -> bool:
    """Be a client that takes trust, key log and proxy from its environment, and say whether `url` answered."""
    program = f"import urllib.request as u; u.urlopen({url!r}, timeout={PATIENCE})"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=variables, stderr=subprocess.DEVNULL, check=False).returncode == 0
