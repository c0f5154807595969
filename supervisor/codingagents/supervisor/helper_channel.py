"""SHELL: our end of one helper's channel: its specification and commands down, its facts up. Understands neither.

Nothing here waits for a helper that does not read: what it is told is queued, and its probe ends it if it goes on so.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from typing import Final

import trio

from codingagents.rewrite.specs import AnyHelperCommand, HelperSpec
from codingagents.trust import facts, wire
from codingagents.trust.errors import WireError

MAX_FACT: Final = 64 * 1024  # bytes of one line


class HelperChannel:
    """Owns the socket."""

    def __init__(self, ours: socket.socket) -> None:
        """Take it over."""
        ours.setblocking(False)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        # Unbounded: a ping an interval, and what root asks for.
        self._tell, self._to_send = trio.open_memory_channel[bytes](math.inf)

    def tell(self, command: AnyHelperCommand) -> None:
        """Queue a command for the helper; never blocks."""
        self._tell.send_nowait(wire.encode(command, reveal_secrets=True))

    async def converse(self, spec: HelperSpec, take: Callable[[facts.AnyFact, int], None]) -> str:
        """Send the specification, then the commands, and give each fact to `take` with the length of its line.

        Returns "" at EOF, and where the helper sent what is no fact, why it is none. `take` raises `WireError` for a
        fact that cannot be.
        """
        async with self._stream, trio.open_nursery() as nursery:
            nursery.start_soon(self._send, wire.encode(spec, reveal_secrets=True))
            why = await self._hear(take)
            nursery.cancel_scope.cancel()
        return why

    async def _send(self, line: bytes) -> None:
        try:
            await self._stream.send_all(line)
            async for line in self._to_send:  # noqa: PLR1704 -- the next line
                await self._stream.send_all(line)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it is gone, which `_hear` sees as well

    async def _hear(self, take: Callable[[facts.AnyFact, int], None]) -> str:
        buffer = wire.LineBuffer(MAX_FACT)
        try:
            async for data in self._stream:
                for line in buffer.feed(bytes(data)):
                    fact: facts.AnyFact = wire.decode(facts.AnyFact, line)
                    take(fact, len(line))
        except trio.BrokenResourceError:
            return ""
        except WireError as error:
            return str(error)
        return ""
