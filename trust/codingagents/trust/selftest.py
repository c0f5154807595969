"""SHELL: tries the pin check on this machine's OpenSSL and interpreter before a helper may serve.

The private ways that `context` relies on could change under it; this would be seen here. It makes no connection.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

from codingagents.trust.context import pinned_context
from codingagents.trust.der import certificate_sha256, spki_pin
from codingagents.trust.errors import TrustError
from codingagents.trust.identity import Identity, show
from codingagents.trust.pem import parse_pem
from codingagents.trust.pins import Pin, PinMismatchError, Pinning, parse_pin, pinning
from codingagents.trust.vocabulary import Secret

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
_IDENTITY = Identity(Secret(_CERTIFICATE), Secret(_PUBLIC_TEST_KEY))
_NOBODY = "0" * 64  # the hash of no certificate
_WRONG_KEY = parse_pin("sha256/" + "A" * 43 + "=")
_REQUEST = b"request"
_MAX_FLIGHTS = 10  # a handshake takes two or three


def self_test(make_context: ContextMaker = pinned_context) -> None:
    """Raise `TrustError` unless right pins and a bypass are let through, and wrong ones refused with nothing sent.

    Takes about 7 ms; once before the helpers are cloned is enough, for they share code and library.
    """
    (der,) = parse_pem(_CERTIFICATE)
    certificate = certificate_sha256(der)
    let_through = {
        "the right key": pinning("enforce", [Pin(spki_pin(der))]),
        "the right certificate": pinning("enforce", [Pin(certificate)]),
        "an override": pinning("enforce", [_WRONG_KEY], bypasses={certificate: "self-test"}),
    }
    wrong = pinning("enforce", [_WRONG_KEY, Pin(_NOBODY)], bypasses={_NOBODY: "self-test"})
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    show(serving, _IDENTITY, "the certificate of the TLS self-test")
    for what, rules in let_through.items():
        try:
            reached = _received(make_context(_CERTIFICATE, rules), serving) == _REQUEST
        except ssl.SSLError as error:
            raise TrustError(f"the TLS self-test failed: a server with {what} was refused: {error}") from error
        if not reached:
            raise TrustError(f"the TLS self-test failed: a server with {what} did not get what was sent")
    try:
        received = _received(make_context(_CERTIFICATE, wrong), serving)
    except ssl.SSLError as error:
        if isinstance(error.__cause__, PinMismatchError):
            return
        raise TrustError(f"the TLS self-test failed: a wrong pin was refused, but not as one: {error}") from error
    raise TrustError(f"the TLS self-test failed: a server with the wrong pin received {len(received)} bytes")


def _received(context: ssl.SSLContext, serving: ssl.SSLContext) -> bytes:
    """Return what a server gets when a client of `context` sends it a request, or raise what the client raised."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname=_NAME)
    server = serving.wrap_bio(to_server, to_client, server_side=True)
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
