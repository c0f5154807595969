"""SHELL: one client connection as an asyncio protocol: gives what comes to its `Relay`, does what that decides.

Is the relay's `Surroundings`; its `ClientEnd` is the transport itself, or a thin cover over one of TLS. No decision
about content here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from codingagents.proxies.connection import Connection
from codingagents.proxies.departures import Departures
from codingagents.proxies.dial import DialFailed
from codingagents.proxies.facts_out import FactsOut
from codingagents.proxies.relay import Relay
from codingagents.proxies.surroundings import ClientEnd, RelayConfig
from codingagents.proxies.upstream import Upstream
from codingagents.trust.answers import render
from codingagents.trust.facts import AnyFact, Refused


class House(Protocol):
    """What all clients of one helper share: its server."""

    loop: asyncio.AbstractEventLoop
    config: RelayConfig
    upstream: Upstream
    buffer: memoryview
    out: FactsOut
    departures: Departures

    def admit(self, client: Client) -> bool:
        """Count `client` in, or say that there are too many."""

    def discharge(self, client: Client) -> None:
        """Count `client` out."""

    def look(self, transport: asyncio.Transport) -> tuple[bool, int | None]:
        """Return (allowed, UID) of a peer."""


class Client:
    """One client connection; `PlainClient` and `TlsClient` differ in how data comes.

    They are asyncio's protocols by their methods alone, as `connection.Connection` is.
    """

    relay: Relay
    emit: Callable[[AnyFact], None]

    def __init__(self, house: House) -> None:
        """Belong to `house`."""
        self._house = house
        self._upstream = house.upstream
        self._dial: asyncio.Task[None] | None = None
        self._admitted = False
        self._watched = -1  # the descriptor

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport, after the handshake where there is one."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's derive from no class of asyncio
        self.emit = self._house.out.put
        end = self._end(self._transport)
        self.relay = Relay(self._house.config, end, self, self._house.loop.time)
        self._admitted = self._house.admit(self)
        if not self._admitted:
            self.emit(Refused(reason="too_many_connections", peer_user_id=None))
            end.write(render("too_many_connections", self._house.config.server, close=True))
            end.close()

    def _end(self, transport: asyncio.Transport) -> ClientEnd:
        return transport

    def eof_received(self) -> None:
        """Take the client's end of stream."""
        self.relay.client_closed()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the loss of the connection."""
        self.relay.client_closed()
        self._house.discharge(self)

    def pause_writing(self) -> None:
        """Pass back-pressure to the relay."""
        self.relay.client_full(True)

    def resume_writing(self) -> None:
        """Pass the end of back-pressure to the relay."""
        self.relay.client_full(False)

    def peer(self) -> tuple[bool, int | None]:
        """Ask the kernel who the client is."""
        return self._house.look(self._transport)

    def watch(self, on: bool) -> None:
        """Have the client looked after while nothing is read from it."""
        if not on:
            self._house.departures.forget(self._watched, self.relay.client_closed)
            return
        raw = self._transport.get_extra_info("socket")
        self._watched = -1 if raw is None else raw.fileno()
        if self._watched >= 0:  # else it is lost, which is told next
            self._house.departures.watch(self._watched, self.relay.client_closed)

    def connect(self, *, fresh: bool) -> Connection | None:
        """Return an idle connection, or begin to make one."""
        connection = None if fresh else self._upstream.take()
        if connection is None:
            self._dial = self._house.loop.create_task(self._dial_for_relay())
        else:
            connection.owner = self.relay
        return connection

    async def _dial_for_relay(self) -> None:
        try:
            connection = await self._upstream.dial()
        except DialFailed as failure:
            self.relay.upstream_failed(failure.code)
            return
        except Exception:
            self._transport.abort()  # a fault of ours leaves no client waiting for nobody
            raise
        connection.owner = self.relay
        self.relay.upstream_ready(connection)

    def cancel_connect(self) -> None:
        """Stop making a connection."""
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None


class PlainClient(Client):
    """A client on TCP or on a unix socket."""

    def data_received(self, data: bytes) -> None:
        """Take data."""
        if self._admitted:
            self.relay.client_data(data)


class LostTransport(asyncio.Transport):
    """Stands for the transport of a connection that is lost: takes everything, does nothing.

    A TLS transport of uvloop's and its protocol hold each other, and a quarter of a megabyte of buffers that Python's
    collector, which counts objects, does not see: a protocol that keeps its transport keeps them all, for minutes.
    """

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take data that goes nowhere."""

    def pause_reading(self) -> None:
        """Do nothing."""

    def resume_reading(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""

    def is_closing(self) -> bool:
        """Say that no request may be sent here."""
        return True


LOST = LostTransport()


class TlsClient(Client):
    """A client over TLS.

    A buffered protocol, because for a plain one uvloop lets OpenSSL read into a new 256 KiB object each time, which the
    allocator maps, shrinks and unmaps: three system calls and a page fault for every piece.
    """

    def _end(self, transport: asyncio.Transport) -> ClientEnd:
        self._cover = _TlsEnd(transport)
        return self._cover

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the loss of the connection, and let go of its buffers."""
        super().connection_lost(exc)
        self._transport = LOST
        self._cover.hold(LOST)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer of all connections: what is read into it is taken out before the next one reads."""
        return self._house.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take data."""
        if self._admitted:
            self.relay.client_data(self._house.buffer[:nbytes].tobytes())


class _TlsEnd:
    """A TLS transport as `ClientEnd`."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.hold(transport)

    def hold(self, transport: asyncio.Transport) -> None:
        self.write = transport.write
        self.close = transport.close
        self.abort = transport.abort
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        # There is no half-closed state, but closing does what it is wanted for: the close alert follows what was
        # written, and what the client still sends is read and thrown away until its own alert, for a limited time.
        self.write_eof = transport.close
