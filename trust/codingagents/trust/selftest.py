"""SHELL: tries the pin check on this machine's OpenSSL and interpreter before a helper may serve.

The private ways that `context` relies on could change under it; this would be seen here. It makes one memory
file, because a certificate chain can only be loaded by path, and no network connection.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable

from codingagents.trust.context import pinned_context
from codingagents.trust.der import spki_pin
from codingagents.trust.errors import TrustError
from codingagents.trust.pem import parse_pem
from codingagents.trust.pins import Pin, PinMismatchError, Pinning, parse_pin, pinning

ContextMaker = Callable[[str, Pinning], ssl.SSLContext]

_NAME = "self-test.invalid"
# A throw-away identity, public on purpose: only the contexts made below trust it, and only for the length of a test.
_CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBSDCB76ADAgECAgEBMAoGCCqGSM49BAMCMBwxGjAYBgNVBAMMEXNlbGYtdGVz
dC5pbnZhbGlkMCAXDTAwMDEwMTAwMDAwMFoYDzk5OTkxMjMxMDAwMDAwWjAcMRow
GAYDVQQDDBFzZWxmLXRlc3QuaW52YWxpZDBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABDlF2xZVetx9yBGXhPjWjOwEntASmofN8VUaY4igxbg0R5EQfVFo6N7+nL8w
7E06b6cNYCoSKwlSdyLTsAdNDpqjIDAeMBwGA1UdEQQVMBOCEXNlbGYtdGVzdC5p
bnZhbGlkMAoGCCqGSM49BAMCA0gAMEUCIQC/wpdx00RN4Vs2/dyXlCM1AnqXR0ne
K5JIFx/olG3NqwIgdQ6fWQVHGmRkQVmasD3l2hQvA1WtnYxxi6GFwEl/720=
-----END CERTIFICATE-----
"""
_PUBLIC_TEST_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgns3O4SLTWW2jCs5N
uswhPmti01uFzh+m5QHEjVORKxehRANCAAQ5RdsWVXrcfcgRl4T41ozsBJ7QEpqH
zfFVGmOIoMW4NEeREH1RaOje/py/MOxNOm+nDWAqEisJUnci07AHTQ6a
-----END PRIVATE KEY-----
"""
_WRONG_PIN = parse_pin("sha256/" + "A" * 43 + "=")
_REQUEST = b"request"
_MAX_FLIGHTS = 10  # a handshake takes two or three


def self_test(make_context: ContextMaker = pinned_context) -> None:
    """Raise `TrustError` unless a right pin is let through and a wrong one refused with nothing sent.

    Takes about 5 ms; once before the helpers are cloned is enough, for they share code and library.
    """
    right_pin = Pin(spki_pin(parse_pem(_CERTIFICATE)[0]))
    try:
        reached = _received(make_context(_CERTIFICATE, pinning("enforce", [right_pin]))) == _REQUEST
    except ssl.SSLError as error:
        raise TrustError(f"the TLS self-test failed: a server with the right pin was refused: {error}") from error
    if not reached:
        raise TrustError("the TLS self-test failed: a server with the right pin did not get what was sent")
    try:
        received = _received(make_context(_CERTIFICATE, pinning("enforce", [_WRONG_PIN])))
    except ssl.SSLError as error:
        if isinstance(error.__cause__, PinMismatchError):
            return
        raise TrustError(f"the TLS self-test failed: a wrong pin was refused, but not as one: {error}") from error
    raise TrustError(f"the TLS self-test failed: a server with the wrong pin received {len(received)} bytes")


def _received(context: ssl.SSLContext) -> bytes:
    """Return what a server gets when a client of `context` sends it a request, or raise what the client raised."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname=_NAME)
    server = _server_context().wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_MAX_FLIGHTS):
        if _handshakes(client) & _handshakes(server):
            break
    client.write(_REQUEST)
    return server.read()


def _handshakes(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    descriptor = os.memfd_create("tls-self-test")
    try:
        os.write(descriptor, (_CERTIFICATE + _PUBLIC_TEST_KEY).encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context
