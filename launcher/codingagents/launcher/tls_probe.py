"""SHELL: the certificates that a server shows, fetched over a throw-away connection: nothing is verified, nothing sent.

A TLS handshake and its end; no byte of HTTP goes to the server. For commands that show a person whom they would trust.
Decides nothing about trust.
"""

from __future__ import annotations

import ssl
import sys
from typing import Any

from codingagents.launcher.dialing import Handshake, Route, connected
from codingagents.rewrite.reach import split_host_port
from codingagents.trust.errors import TrustError

DEFAULT_SECONDS = 10.0


def fetch_chain(
    host: str,
    port: int,
    *,
    server_name: str,
    connect_to: str | None = None,
    proxy: str | None = None,
    timeout: float = DEFAULT_SECONDS,
) -> list[bytes]:
    """Return the certificates as DER, the leaf first, in the order in which the server sent them.

    `connect_to` and `proxy` are HOST:PORT, as a `RemoteSpec` has them; `timeout` is in seconds and for all of it. A
    server that demands a client certificate shows its own before it ends the handshake, and they are returned all the
    same. Raises `AgentError` where the server cannot be reached, `TrustError` where it does not speak TLS.
    """
    if connect_to is not None:
        host, port = split_host_port(connect_to)
    return chain_sent(Route(host, port, "any", proxy), server_name, timeout)


def chain_sent(route: Route, server_name: str, seconds: float = DEFAULT_SECONDS) -> list[bytes]:
    """Return what `fetch_chain` returns of the server at the end of `route`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with connected(route, seconds) as wire:
        handshake = Handshake(context, server_name)
        try:
            handshake.run(wire)
        except ssl.SSLError as error:
            if chain := _chain_as_sent(handshake.tls):
                return chain
            reason = error.reason or "it closed the connection"
            raise TrustError(f"{route.place} does not answer with TLS: {reason}") from None
        if chain := _chain_as_sent(handshake.tls):
            return chain
        raise TrustError(f"{route.place} shows no certificate")


def _chain_as_sent(tls: ssl.SSLObject) -> list[bytes]:
    if sys.version_info >= (3, 13):  # pragma: no cover -- the other branch, on the other interpreter
        return [bytes(each) for each in tls.get_unverified_chain() or ()]
    import _ssl  # noqa: PLC0415 -- private to the branch that needs its constant

    inner: Any = tls._sslobj  # type: ignore[attr-defined]  # noqa: SLF001 -- no public getter before 3.13
    return [each.public_bytes(_ssl.ENCODING_DER) for each in inner.get_unverified_chain() or ()]
