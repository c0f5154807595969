"""SHELL: connections to one upstream: resolves, dials the address that was judged, checks trust, keeps idle ones.

A connection whose path was not accepted never exists for the relay: the handshake itself fails (`trust.context`),
before any byte of a request. Does not parse HTTP and never repeats a request. Every failure is one `DialFailed` with a
code of `answers.ANSWERS`, and one fact.
"""

from __future__ import annotations

import asyncio
import mmap
import select
import socket
import ssl
from typing import Protocol, cast

from codingagents.proxies.addresses import Reach, may_dial, split_host_port
from codingagents.proxies.facts_out import FactsOut
from codingagents.proxies.peer_uid import PeerUid
from codingagents.rewrite.specs import RemoteSpec
from codingagents.trust import facts
from codingagents.trust.context import PinnedContext, pin_match
from codingagents.trust.pins import PinMismatchError

MAX_AGE_SECONDS = 600.0  # of a connection: trust is looked at anew at least so often
# Servers of MCP SDKs close idle connections after 5 s (uvicorn, Node), and a POST that meets the close cannot be
# repeated.
IDLE_SECONDS = 4.0
_ACCEPT_SECONDS = 0.001  # between two looks at whether the server has accepted
_QUIET_SECONDS = 0.05  # idle for longer: look for an end of stream that the loop has not come to yet
_BUFFER_BYTES = 256 * 1024  # as much as uvloop takes off a socket at once
_MAX_DETAIL = 200


class DialFailed(Exception):  # noqa: N818 -- an outcome with a code, not an error of ours
    """No connection; `code` is a key of `answers.ANSWERS`, `detail` is for the record and holds no secret."""

    def __init__(self, code: str, detail: str) -> None:
        """Fail for `code`."""
        super().__init__(code)
        self.code = code
        self.detail = detail[:_MAX_DETAIL]


class Owner(Protocol):
    """Who uses a connection now: a relay."""

    def upstream_data(self, data: bytes) -> None:
        """Take data."""

    def upstream_closed(self, *, clean: bool) -> None:
        """Take the end of the stream; the connection is no longer the owner's."""

    def upstream_full(self, full: bool) -> None:
        """Take note that sending does not, or does again, keep up."""


class Connection(asyncio.BufferedProtocol):
    """One upstream connection; between two owners it lies in the pool. Is the relay's `UpstreamEnd`.

    A buffered protocol, because for a plain one uvloop lets OpenSSL read into a new 256 KiB object each time, which the
    allocator maps, shrinks and unmaps: three system calls and a page fault for every response.
    """

    def __init__(self, upstream: Upstream) -> None:
        """Belong to `upstream`, which trusts it after the handshake."""
        self._upstream = upstream
        self._ended = False
        self.owner: Owner | None = None
        self.trusted = False
        self.reused = False
        self.born = upstream.now()
        self.idle_since = self.born
        self.idle_seconds = IDLE_SECONDS

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport, after the handshake."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's derive from no class of asyncio
        self.write = self.transport.write
        self.pause_reading = self.transport.pause_reading
        self.resume_reading = self.transport.resume_reading

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer of all connections: what is read into it is taken out before the next one reads."""
        return self._upstream.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Pass data to the owner; nobody asked for what comes without one."""
        if self.owner is not None:
            self.owner.upstream_data(self._upstream.buffer[:nbytes].tobytes())
        else:
            self.close()

    def eof_received(self) -> None:
        """Take an end of stream in order; the transport then closes itself.

        Over TLS it is the close alert: uvloop does not call this for a bare end of the TCP stream, which anybody on the
        way could have made.
        """
        self._end(clean=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the loss of the connection."""
        self._end(clean=False)

    def _end(self, *, clean: bool) -> None:
        if self._ended:
            return
        self._ended = True
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.upstream_closed(clean=clean)
        else:
            self._upstream.forget(self)

    def pause_writing(self) -> None:
        """Pass back-pressure to the owner."""
        if self.owner is not None:
            self.owner.upstream_full(True)

    def resume_writing(self) -> None:
        """Pass the end of back-pressure to the owner."""
        if self.owner is not None:
            self.owner.upstream_full(False)

    def release(self, idle_seconds: int | None) -> None:
        """Give the connection back; the server may have said for how long it keeps it."""
        self.owner = None
        self.reused = True
        if idle_seconds is not None:
            self.idle_seconds = idle_seconds - 1.0
        self._upstream.keep(self)

    def close(self) -> None:
        """End the connection at once: what the server still does for it is cancelled."""
        self.owner = None
        self._ended = True
        self._upstream.forget(self)
        self.transport.abort()

    def usable(self, now: float) -> bool:
        """Say whether a request may be sent on this idle connection."""
        idle = now - self.idle_since
        if self.transport.is_closing() or now - self.born > MAX_AGE_SECONDS or idle > self.idle_seconds:
            return False
        if idle < _QUIET_SECONDS:
            return True
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)


class Upstream:
    """Makes and keeps the connections of one helper; one trust for all of them."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        remote: RemoteSpec,
        context: PinnedContext | None,
        out: FactsOut,
        *,
        keep_from: int | None = None,
    ) -> None:
        """Dial `remote`; `context` is None only for plain HTTP, which then reaches loopback addresses only.

        There a server that runs as the UID `keep_from` is refused: no pin shows who holds a loopback port.
        """
        self._loop = loop
        self._remote = remote
        self._context = context
        self._facts = out
        self._keep_from = keep_from
        self._peers = PeerUid() if context is None and keep_from is not None else None
        self._idle: list[Connection] = []
        self.buffer = memoryview(mmap.mmap(-1, _BUFFER_BYTES))  # pages exist once they are used, unlike a bytearray's
        self.now = loop.time
        if remote.connect_to is None:
            self._host, self._port = remote.host, remote.port
        else:
            self._host, self._port = split_host_port(remote.connect_to)
        self._reach: Reach = "public"
        if context is None:
            self._reach = "loopback"
        elif remote.allow_private or remote.connect_to is not None:
            self._reach = "any"

    def take(self) -> Connection | None:
        """Return an idle connection that may be used, the latest first, or None."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable(self.now()):
                return connection
            connection.close()
        return None

    def keep(self, connection: Connection) -> None:
        """Take back a connection that is between requests."""
        connection.idle_since = self.now()
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """Drop a connection from the idle ones."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close_idle(self, *, all_of_them: bool = False) -> None:
        """Close the idle connections that may not be used again."""
        for connection in list(self._idle):
            if all_of_them or not connection.usable(self.now()):
                connection.close()

    async def dial(self) -> Connection:
        """Return a fresh, trusted connection within connect_seconds, or raise `DialFailed`, which was reported then."""
        try:
            async with asyncio.timeout(self._remote.limits.connect_seconds):
                return await self._dial()
        except DialFailed as failure:
            self._report(failure)
            raise
        except TimeoutError:
            late = DialFailed("connect_timeout", f"nothing within {self._remote.limits.connect_seconds:g} s")
            self._report(late)
            raise late from None

    def _report(self, failure: DialFailed) -> None:
        if failure.code != "pin_mismatch":  # that has a fact of its own
            self._facts.put(facts.UpstreamFailed(error_type=failure.code, detail=failure.detail))

    async def _dial(self) -> Connection:
        failure = DialFailed("address_refused", f"{self._host} resolves to no address that may be dialed")
        for address in await self._resolve():
            if not may_dial(address, self._reach):
                continue
            try:
                return await self._connect(address)
            except ssl.SSLError as error:
                raise self._distrust(address, error) from None
            except OSError as error:
                reason = error.strerror or type(error).__name__
                failure = DialFailed("connect_failed", f"{address} port {self._port}: {reason}")
        raise failure

    async def _resolve(self) -> list[str]:
        try:
            found = await self._loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise DialFailed("dns_failed", f"{self._host}: {error}") from None
        return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))

    async def _connect(self, address: str) -> Connection:
        if self._context is None:
            _, connection = await self._loop.create_connection(lambda: Connection(self), address, self._port)
            if self._peers is not None:
                try:
                    await self._look_at_server(connection, self._peers)
                except BaseException:
                    connection.close()
                    raise
            connection.trusted = True  # there is nothing to pin: the configuration allowed plain HTTP to this machine
            return connection
        tls = self._remote.tls
        assert tls is not None
        transport, connection = await self._loop.create_connection(
            lambda: Connection(self), address, self._port, ssl=self._context, server_hostname=tls.server_name
        )
        match = pin_match(cast("ssl.SSLObject", transport.get_extra_info("ssl_object")))
        connection.trusted = self._context.pinning.allows_credential(match)
        return connection

    async def _look_at_server(self, connection: Connection, peers: PeerUid) -> None:
        there, here = (connection.transport.get_extra_info(name)[:2] for name in ("peername", "sockname"))
        # Until it is accepted it is nobody's, and whoever waits with that must not be sent anything meanwhile.
        while (owner := peers.owner(there, here)) is not None and owner.established and not owner.inode:  # noqa: ASYNC110 -- the kernel announces nothing
            await asyncio.sleep(_ACCEPT_SECONDS)
        if owner is None or not owner.established:
            raise DialFailed("connect_failed", f"{there[0]} port {there[1]}: closed before anything was sent")
        if owner.uid == self._keep_from:
            raise DialFailed("server_is_agent", f"{there[0]} port {there[1]} is held by UID {owner.uid}, the agent's")

    def _distrust(self, address: str, error: ssl.SSLError) -> DialFailed:
        mismatch = error.__cause__
        if isinstance(mismatch, PinMismatchError):
            self._facts.put(
                facts.PinMismatch(
                    address=f"{address} port {self._port}", expected=list(mismatch.expected), seen=list(mismatch.seen)
                )
            )
            return DialFailed("pin_mismatch", "")
        if isinstance(error, ssl.SSLCertVerificationError):
            return DialFailed("tls_untrusted", f"{address}: {error.verify_message or error.reason}")
        return DialFailed("tls_failed", f"{address}: {error.reason or type(error).__name__}")
