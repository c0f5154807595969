"""CORE: what a helper needs of the machine, from its specification: ports to connect to, names to resolve, sockets.

Everything else is what `confinement` takes away. Knows no system call.
"""

from __future__ import annotations

from dataclasses import dataclass

from codingagents.rewrite.reach import is_address, split_host_port
from codingagents.rewrite.specs import RemoteSpec

DNS_PORT = 53
# What a helper has open besides connections: its channel, listener, event loop, netlink sockets.
_OWN_DESCRIPTORS = 64
# A client, the upstream connection that serves it, and as many again that idle or are being dialed.
_A_CONNECTION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """The bounds of one helper."""

    ports: tuple[int, ...]  # of TCP, to connect to
    resolves: bool  # a name: reads the resolver's files and asks over UDP
    descriptors: int
    connections: int


def needs_of(remote: RemoteSpec) -> Needs:
    """Return what the helper of `remote` needs; what it dials first is the proxy, or `connect_to`, or the host."""
    dialed = remote.proxy or remote.connect_to
    host, port = split_host_port(dialed) if dialed else (remote.host, remote.port)
    resolves = not is_address(host)
    return Needs(
        ports=tuple(sorted({port, DNS_PORT} if resolves else {port})),
        resolves=resolves,
        descriptors=_OWN_DESCRIPTORS + _A_CONNECTION * remote.limits.connections,
        connections=remote.limits.connections,
    )
