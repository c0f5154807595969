"""SHELL: an upstream connection over TLS: OpenSSL in memory (`ssl.MemoryBIO`), on the loop's plain transport.

What the loop's own TLS does for a request costs as much again as OpenSSL, and 256 KiB for each connection (ADR 17).
Two protocols, one after the other: a `Handshake` holds the transport until `do_handshake` returned, which is where
`trust.context` checks the path; only then is there a `TlsConnection`, and a byte to be sent or passed on. Decides
nothing about trust. No close alert is sent: whoever ends a connection here wants nothing more from the server.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final, cast

from codingagents.proxies.connection import Connection, Home
from codingagents.trust.context import PinnedContext, PinnedTls, checked_io

_RECORD: Final = 16 * 1024  # bytes of plain text in a record at most (RFC 8446 5.1): a read takes all that is decrypted
_PIECE: Final = 2 * _RECORD  # as much is put into a BIO at once: it never becomes smaller again


class Handshake(asyncio.Protocol):
    """The protocol of a transport whose TLS handshake is not over."""

    def __init__(self, home: Home, context: PinnedContext, secured: asyncio.Future[TlsConnection | None]) -> None:
        """Make `secured` a connection of `home`, or fail it with `ssl.SSLError` or `OSError`.

        Once somebody else has done something with `secured`, nothing is sent any more.
        """
        self._home = home
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=context.server_name)
        self._secured: asyncio.Future[TlsConnection | None] | None = secured

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's derive from no class of asyncio
        self._go_on()

    def data_received(self, data: bytes) -> None:
        """Take the server's part."""
        self._incoming.write(data)
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the loss of the connection, or its end, which has no meaning yet."""
        self._fail(exc or ConnectionResetError())

    def _go_on(self) -> None:
        if self._secured is None or self._secured.done():
            return  # it has failed, or is not wanted any more
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._transport.write(self._outgoing.read())
        except ssl.SSLError as error:
            self._fail(error)
            self._transport.abort()  # not even the rest of a handshake goes to a server that is refused
        else:
            self._succeed()

    def _succeed(self) -> None:
        connection = TlsConnection(self._home, self._tls, self._incoming, self._outgoing)
        connection.connection_made(self._transport)
        self._transport.set_protocol(cast("asyncio.Protocol", connection))
        self._transport.write(self._outgoing.read())
        secured, self._secured = self._secured, None
        if secured is not None and not secured.done():
            secured.set_result(connection)
        connection.go_on()

    def _fail(self, error: Exception) -> None:
        secured, self._secured = self._secured, None  # an error knows the frames that know this object
        if secured is not None and not secured.done():
            secured.set_exception(error)


class TlsConnection(Connection):
    """A `Connection` whose bytes pass through OpenSSL.

    Its stream has ended in order with the server's close alert. Anybody on the way can end the TCP stream below it, or
    spoil a record: that is never a clean end, and what was whole before it is passed on first.
    """

    def __init__(self, home: Home, tls: PinnedTls, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        """Be the connection of `tls`, whose path was checked (else `ssl.SSLError`), between its two BIOs."""
        super().__init__(home)
        self.tls = tls
        self._decrypt, self._encrypt = checked_io(tls)
        self._incoming = incoming
        self._outgoing = outgoing
        self._encrypted = outgoing.read
        self._held: bytes | memoryview = b""  # what came, and did not fit into one piece
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport, after the handshake."""
        super().connection_made(transport)
        self._send = self.transport.write

    def write(self, data: bytes) -> None:
        """Send `data` after all that was written before; after the end, do nothing."""
        if self.ended:
            return
        if len(data) > _PIECE:
            view = memoryview(data)
            for start in range(0, len(data), _PIECE):
                self._encrypt(view[start : start + _PIECE])
                self._send(self._encrypted())
        else:
            self._encrypt(data)
            self._send(self._encrypted())

    def data_received(self, data: bytes) -> None:
        """Pass on what OpenSSL makes of `data`; there is none while `_held` holds any, or it is paused."""
        if len(data) > _PIECE:
            self._held = memoryview(data)
        else:
            self._incoming.write(data)
        self._deliver()

    def _deliver(self) -> None:
        """Pass on what has come until there is nothing more, or the owner wants nothing more, or all is over."""
        incoming = self._incoming
        while not self._paused:
            try:
                data = self._decrypt(_RECORD)
            except ssl.SSLWantReadError:
                if self._feed():
                    continue
                break
            except ssl.SSLError:
                self._finish(clean=False)
                return
            if not data:
                self._finish(clean=True)
                return
            if self.owner is None:
                self.close()
                return
            self.owner.upstream_data(data)
            if not (incoming.pending or self._held):
                break
        if self._outgoing.pending and not self.ended:
            self._send(self._encrypted())  # an answer of TLS itself, to a key update

    def _feed(self) -> bool:
        """Give OpenSSL, which wants it, the next piece of what is held; say whether there was one."""
        if self._held:
            self._incoming.write(self._held[:_PIECE])
            self._held = self._held[_PIECE:]
            return True
        if self.owner is None and self.reused:
            self.close()  # between requests a server says nothing, and this may be half of a record
        return False

    def _finish(self, *, clean: bool) -> None:
        self._end(clean=clean)
        self.transport.abort()

    def eof_received(self) -> None:
        """Take an end of the TCP stream that TLS did not announce; the transport then closes itself."""
        self._end(clean=False)

    def pause_reading(self) -> None:
        """Deliver no data until `resume_reading`: what came in the last read of the socket is held."""
        self._paused = True
        super().pause_reading()

    def resume_reading(self) -> None:
        """Deliver data again, but not in this call; the socket is read when nothing is held."""
        self._paused = False
        asyncio.get_running_loop().call_soon(self.go_on)

    def go_on(self) -> None:
        """Deliver what is held, then read from the socket."""
        if not self._paused and not self.ended:
            self._deliver()
            if not self._paused:
                super().resume_reading()

    def usable(self) -> bool:
        """Say whether a request may be sent on this idle connection; not before what nobody asked for."""
        return not self._incoming.pending and not self._held and super().usable()
