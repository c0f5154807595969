"""SHELL: how a helper listens: http and https on loopback TCP, or a unix socket; and who its peers are.

The socket was bound by the supervisor and outlives this process. Decides nothing about requests.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from codingagents.proxies.peer_uid import PeerUid, allowed
from codingagents.proxies.sockets import set_options
from codingagents.rewrite.specs import HelperSpec, Listen
from codingagents.trust.errors import ConfigError
from codingagents.trust.linux import peer_of_unix_socket
from codingagents.trust.server_context import server_context

_BACKLOG = 512
_HANDSHAKE_SECONDS = 5.0  # of a client on the same machine; until then it is not counted as a connection
_SHUTDOWN_SECONDS = 2.0  # for a client's close alert, before its connection is closed without


def tls_context(spec: HelperSpec) -> ssl.SSLContext | None:
    """Return what an https listener needs, else None; `ConfigError` where certificate and kind of listener disagree."""
    if (spec.remote.listen == "https") != (spec.certificate is not None):
        raise ConfigError("a helper is given a certificate exactly where it listens on https")
    if spec.certificate is None:
        return None
    return server_context(spec.certificate.chain_pem, spec.certificate.key_pem)


async def listen(
    loop: asyncio.AbstractEventLoop,
    listener: socket.socket,
    factory: Callable[[], asyncio.BaseProtocol],
    kind: Listen,
    context: ssl.SSLContext | None,
) -> asyncio.Server:
    """Accept connections on `listener` from now on, over TLS where there is a `context`.

    Raises `ConfigError` where the inherited socket is not one for this `kind` of listener.
    """
    if (listener.family == socket.AF_UNIX) != (kind == "unix"):
        raise ConfigError(f"a helper that listens on {kind} was given a socket of family {listener.family}")
    if kind == "unix":
        return await loop.create_unix_server(factory, sock=listener, backlog=_BACKLOG)
    set_options(listener)
    if context is None:
        return await loop.create_server(factory, sock=listener, backlog=_BACKLOG)
    return await loop.create_server(
        factory, sock=listener, backlog=_BACKLOG, ssl=context,
        ssl_handshake_timeout=_HANDSHAKE_SECONDS, ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
    )  # fmt: skip


class Peers:
    """Says whose a client connection is, as the kernel tells it when asked."""

    def __init__(self, spec: HelperSpec, sock_diag: socket.socket | None) -> None:
        """Let through the agent's UID alone; `sock_diag` as in `peer_uid.PeerUid`."""
        self._agent_uid = spec.agent_uid
        self._tcp = None if spec.remote.listen == "unix" else PeerUid(sock_diag)

    def look(self, transport: asyncio.Transport) -> tuple[bool, int | None]:
        """Return (allowed, UID) of the peer of `transport`; a peer that is gone already is not allowed."""
        connection = transport.get_extra_info("socket")
        if connection is None:
            return False, None
        if connection.family == socket.AF_UNIX:
            uid = peer_of_unix_socket(connection)
            return uid == self._agent_uid, uid
        client, server = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        owner = self._tcp.owner(client, server) if self._tcp and client and server else None
        return allowed(owner, self._agent_uid), None if owner is None or not owner.inode else owner.uid
