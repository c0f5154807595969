"""SHELL: one upstream connection: an asyncio protocol that is the relay's `UpstreamEnd`, and lies in a pool in between.

Whether it is trusted was decided before a relay gets it (`upstream`); whether it may be used again is said here, from
its age, its idle time, its epoch and what the kernel knows of it. Does not parse HTTP.
"""

from __future__ import annotations

import asyncio
import select
from typing import Final, Protocol, cast

# Of a connection that takes a request: trust and address are looked at anew at least so often.
MAX_AGE_SECONDS: Final = 600.0
# Servers of MCP SDKs close idle connections after 5 s (uvicorn, Node), and a POST that meets the close cannot be
# repeated.
IDLE_SECONDS: Final = 4.0
_QUIET_SECONDS: Final = 0.005  # idle for longer: look for an end of stream that the loop has not come to yet


class Owner(Protocol):
    """Who uses a connection now: a relay."""

    def upstream_data(self, data: bytes) -> None:
        """Take data."""

    def upstream_closed(self, *, clean: bool) -> None:
        """Take the end of the stream; the connection is no longer the owner's."""

    def upstream_failed(self, code: str) -> None:
        """Make an end of what the connection is used for, for a `code` of `answers.ANSWERS`."""

    def upstream_full(self, full: bool) -> None:
        """Take note that sending does not, or does again, keep up."""


class Home(Protocol):
    """Who keeps connections: the pool."""

    epoch: int

    def now(self) -> float:
        """Return the loop's time."""

    def opened(self, connection: Connection) -> None:
        """Take note of a connection that stands."""

    def keep(self, connection: Connection) -> None:
        """Take a connection that is between requests."""

    def forget(self, connection: Connection) -> None:
        """Keep a connection no longer that cannot be used."""

    def lost(self, connection: Connection) -> None:
        """Take note that a connection that stood is gone."""


class Connection:
    """One upstream connection, as it is over plain TCP. Is the relay's `UpstreamEnd`, and an `asyncio.Protocol`.

    It has no base: uvloop looks for the methods only, and a class that is compiled has its attributes in places known
    beforehand only where its bases do (ADR 22).
    """

    def __init__(self, home: Home) -> None:
        """Belong to `home`, and to its epoch of now."""
        self._home = home
        self.ended = False  # nothing comes any more: no owner will hear of its end
        self.epoch = home.epoch
        self.owner: Owner | None = None
        self.trusted = False
        self.reused = False
        self.born = home.now()
        self.idle_since = self.born
        self.idle_seconds = IDLE_SECONDS

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's derive from no class of asyncio
        self._home.opened(self)

    def data_received(self, data: bytes) -> None:
        """Pass data to the owner; nobody asked for what comes without one."""
        if self.owner is not None:
            self.owner.upstream_data(data)
        else:
            self.close()

    def eof_received(self) -> None:
        """Take an end of stream in order; the transport then closes itself."""
        self._end(clean=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the loss of the connection."""
        self._home.lost(self)
        self._end(clean=False)

    def _end(self, *, clean: bool) -> None:
        if self.ended:
            return
        self.ended = True
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.upstream_closed(clean=clean)
        else:
            self._home.forget(self)

    def pause_writing(self) -> None:
        """Pass back-pressure to the owner."""
        if self.owner is not None:
            self.owner.upstream_full(True)

    def resume_writing(self) -> None:
        """Pass the end of back-pressure to the owner."""
        if self.owner is not None:
            self.owner.upstream_full(False)

    def write(self, data: bytes) -> None:
        """Send `data` after all that was written before; after the end, do nothing."""
        if not self.ended:
            self.transport.write(data)

    def pause_reading(self) -> None:
        """Deliver no data until `resume_reading`."""
        if not self.ended:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Deliver data again."""
        if not self.ended:
            self.transport.resume_reading()

    def release(self, idle_seconds: int | None) -> None:
        """Give the connection back; the server may have said for how long it keeps it."""
        self.owner = None
        self.reused = True
        if idle_seconds is not None:
            self.idle_seconds = idle_seconds - 1.0
        self._home.keep(self)

    def close(self) -> None:
        """End the connection at once: what the server still does for it is cancelled."""
        self.owner = None
        self.ended = True
        self._home.forget(self)
        self.transport.abort()

    def usable(self) -> bool:
        """Say whether a request may be sent on this idle connection."""
        now = self._home.now()
        idle = now - self.idle_since
        if (
            self.ended
            or self.epoch != self._home.epoch
            or self.transport.is_closing()
            or now - self.born > MAX_AGE_SECONDS
            or idle > self.idle_seconds
        ):
            return False
        return idle < _QUIET_SECONDS or not self._readable()

    def _readable(self) -> bool:
        """Ask the kernel: what can be read now is an end of stream, or data that nobody asked for."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLRDHUP)
        return bool(poll.poll(0))
