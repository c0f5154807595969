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


def tls_context(spec: HelperSpec) -> ssl.SSLContext | None:
    """Return what an https listener needs, else None; `ConfigError` where certificate and kind of listener disagree."""
    if (spec.remote.listen == "https") != (spec.certificate is not None):
        raise ConfigError("a helper is given a certificate exactly where it listens on https")
    if spec.certificate is None:
        return None
    return server_context(spec.certificate.chain_pem, spec.certificate.key_pem)


def check_family(listener: socket.socket, kind: Listen) -> None:
    """Raise `ConfigError` where the inherited socket is not one for this `kind` of listener."""
    if (listener.family == socket.AF_UNIX) != (kind == "unix"):
        raise ConfigError(f"a helper that listens on {kind} was given a socket of family {listener.family}")


async def listen(
    loop: asyncio.AbstractEventLoop, listener: socket.socket, factory: Callable[[], asyncio.BaseProtocol]
) -> asyncio.Server:
    """Accept connections without TLS on `listener` from now on."""
    if listener.family == socket.AF_UNIX:
        return await loop.create_unix_server(factory, sock=listener, backlog=_BACKLOG)
    set_options(listener)
    return await loop.create_server(factory, sock=listener, backlog=_BACKLOG)


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

    def is_agents(self, raw: socket.socket) -> bool:
        """Say the same of a TCP connection that has no transport yet."""
        try:
            owner = self._tcp.owner(raw.getpeername(), raw.getsockname()) if self._tcp else None
        except OSError:  # gone
            return False
        return allowed(owner, self._agent_uid)
