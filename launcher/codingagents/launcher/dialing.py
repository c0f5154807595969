"""SHELL: a connection to a server as a helper makes it, from the host and without a loop; and a TLS handshake on it.

The same addresses may be dialed (`rewrite.reach`), a proxy is asked in the same words (`rewrite.tunnel`). After the
handshake nothing is sent: there is no way to. Decides nothing about trust: the context does.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from typing import NamedTuple

from codingagents.rewrite import tunnel
from codingagents.rewrite.reach import Reach, is_address, may_dial, split_host_port
from codingagents.rewrite.specs import RemoteSpec
from codingagents.trust.errors import AgentError, TrustError

_CHUNK = 16 * 1024
_MAX_HANDSHAKE = 256 * 1024  # bytes that a server may send for it


class Route(NamedTuple):
    """Where to, which addresses may be dialed for it, and the "HOST:PORT" of a proxy on the way."""

    host: str
    port: int
    reach: Reach = "any"
    proxy: str | None = None

    @property
    def place(self) -> str:
        """Where to, for a person."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def route_of(remote: RemoteSpec) -> Route:
    """Return how a helper would reach an https server."""
    reach: Reach = "any" if remote.allow_private or remote.connect_to is not None else "public"
    host, port = (remote.host, remote.port) if remote.connect_to is None else split_host_port(remote.connect_to)
    return Route(host, port, reach, remote.proxy)


class Wire:
    """A connected socket that must be done with by a time of the monotonic clock."""

    def __init__(self, connection: socket.socket, place: str, deadline: float) -> None:
        """Speak over `connection`."""
        self.place = place
        self._connection = connection
        self._deadline = deadline

    def send(self, data: bytes) -> None:
        """Send all of `data`, unless the other side has gone: what it said before that is still to be read."""
        self._connection.settimeout(_left(self._deadline))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.sendall(data)

    def receive(self, size: int = _CHUNK) -> bytes:
        """Return what has come, b"" at the end."""
        self._connection.settimeout(_left(self._deadline))
        return self._connection.recv(size)


@contextlib.contextmanager
def connected(route: Route, seconds: float) -> Iterator[Wire]:
    """Lend a connection for at most `seconds`; `AgentError` says in a sentence how it failed, also within."""
    deadline = time.monotonic() + seconds
    try:
        with _dialed(route, deadline) as connection:
            wire = Wire(connection, route.place, deadline)
            if route.proxy is not None:
                _ask_proxy(wire, route)
            yield wire
    except TimeoutError:
        raise AgentError(f"{route.place} did not answer within {seconds:g} seconds; is it up, and reachable?") from None
    except OSError as error:
        raise AgentError(f"the connection to {route.place} broke: {error.strerror or error}") from None


class Handshake:
    """One TLS handshake of a client, in memory until `run`."""

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        """Speak as `context` has it."""
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._received, self._to_send, server_hostname=server_name)

    def run(self, wire: Wire) -> None:
        """Finish the handshake, or raise `ssl.SSLError`: then not even the rest of it is sent."""
        total = 0
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                wire.send(self._to_send.read())
                data = wire.receive()
                total += len(data)
                if total > _MAX_HANDSHAKE:
                    raise TrustError(f"{wire.place} sends too much for a TLS handshake") from None
                self._received.write(data) if data else self._received.write_eof()
            else:
                wire.send(self._to_send.read())
                return


def _dialed(route: Route, deadline: float) -> socket.socket:
    if route.proxy is None:
        host, port, reach = route.host, route.port, route.reach
    else:
        if is_address(route.host) and not may_dial(route.host, route.reach):
            raise AgentError(f"{route.host} is no address that may be asked of the proxy; see allow_private")
        (host, port), reach = split_host_port(route.proxy), "any"
    what = route.place if route.proxy is None else f"the proxy {route.proxy}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no host name"
        raise AgentError(f"the name of {what} cannot be resolved: {reason}") from None
    allowed = [(family, address) for family, _, _, _, address in found if may_dial(str(address[0]), reach)]
    if not allowed:
        raise AgentError(f"{what} resolves to no address that may be dialed; is allow_private = true missing?")
    problem: OSError | None = None
    for number, (family, address) in enumerate(dict.fromkeys(allowed)):
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(_left(deadline) / (len(allowed) - number))
            connection.connect(address)
        except OSError as error:
            connection.close()
            problem = error
        else:
            return connection
    if isinstance(problem, TimeoutError):
        raise problem
    raise AgentError(f"cannot connect to {what}: {problem.strerror if problem else 'no address'}") from None


def _ask_proxy(wire: Wire, route: Route) -> None:
    answer = tunnel.Answer()
    wire.send(tunnel.request(route.host, route.port))
    try:
        while not answer.feed(wire.receive(tunnel.MAX_ANSWER)):
            pass
    except tunnel.TunnelError as error:
        raise AgentError(f"the proxy {route.proxy} opens no way to {route.place}: {error}") from None


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
