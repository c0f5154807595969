"""SHELL: accepts TLS clients: so many handshakes at a time, and where there is no room more the agent's come first.

A connection counts among a helper's `connections` once its handshake is over (`server`). Until then it has a descriptor
all the same, and anybody on the machine can connect and say nothing: without a bound of their own, strangers would
take all descriptors, and with them the agent's way in and the helper's way to its server. Decides nothing about
requests, and does not know who the agent is.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Final, Protocol

from codingagents.proxies.sockets import set_options

HANDSHAKE_SECONDS: Final = 5.0  # of a client on the same machine
_SHUTDOWN_SECONDS: Final = 2.0  # for a client's close alert, before its connection is closed without
_BACKLOG: Final = 512
_AT_ONCE: Final = 64  # connections accepted before the loop turns to something else
_PAUSE_SECONDS: Final = 0.1  # where accept(2) fails for another reason than that nobody is there


class House(Protocol):
    """Whose clients they are."""

    def is_welcome(self, raw: socket.socket, /) -> bool:
        """Say whether the peer may take the place of others; asked only where there is no place."""

    def turned_away(self) -> None:
        """Take note that somebody found no place, or lost it."""


class Doorway:
    """Accepts on one listener. Stands in the place of the loop's own server."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        context: ssl.SSLContext,
        factory: Callable[[], asyncio.BaseProtocol],
        house: House,
        *,
        most: int,
    ) -> None:
        """Make a protocol of `factory` of each client that finishes its handshake; at most `most` are at it."""
        self._loop = loop
        self._listener = listener
        self._context = context
        self._factory = factory
        self._house = house
        self._most = most
        self._entering: dict[asyncio.Task[None], socket.socket] = {}
        self._pause: asyncio.TimerHandle | None = None
        set_options(listener)
        listener.setblocking(False)
        listener.listen(_BACKLOG)
        self._open()

    def close(self) -> None:
        """Accept no more, and let go of those who have not finished: nothing was served to them."""
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()
        for task in self._entering:
            task.cancel()
        self._listener.close()

    def _open(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                raw, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except (
                OSError
            ):  # no descriptor, no memory: it stays readable, and asking at once again would be a busy loop
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(_PAUSE_SECONDS, self._open)
                return
            if len(self._entering) >= self._most and not self._make_room(raw):
                self._house.turned_away()
                raw.close()
                continue
            raw.setblocking(False)
            task = self._loop.create_task(self._enter(raw))
            self._entering[task] = raw
            task.add_done_callback(self._entering.pop)

    def _make_room(self, newcomer: socket.socket) -> bool:
        """Turn those away who are not welcome, where the newcomer is."""
        if not self._house.is_welcome(newcomer):
            return False
        strangers = [task for task, raw in self._entering.items() if not self._house.is_welcome(raw)]
        for task in strangers:
            self._house.turned_away()
            task.cancel()
        return bool(strangers)

    async def _enter(self, raw: socket.socket) -> None:
        with raw, contextlib.suppress(OSError):  # of the handshake: nobody is owed anything
            await self._loop.connect_accepted_socket(
                self._factory, raw, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
            )  # fmt: skip
