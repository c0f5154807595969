"""SHELL: answers in the place of a helper that was given up: one 503, whatever is asked, on the helper's own socket.

Parses nothing of what it reads, and forwards nothing. Bounded in connections, in bytes and in time: those who connect
can hold up one another, for seconds, and nobody else.
"""

from __future__ import annotations

import ssl
from typing import Final

import trio

from codingagents.supervisor.accepting import next_connection
from codingagents.supervisor.slots import Slot
from codingagents.trust import answers
from codingagents.trust.server_context import server_context

_AT_ONCE: Final = 32  # connections; more wait in the backlog
_SECONDS: Final = 5.0  # for one connection, from its handshake to its end
_MOST: Final = 1 << 20  # bytes read of one, so that its request does not turn our answer into a reset
_PIECE: Final = 1 << 16


async def answer(slot: Slot) -> None:
    """Answer whoever connects to `slot`, until cancelled."""
    said = answers.render("server_failed", slot.remote.name, close=True)
    context = None if slot.certificate is None else server_context(slot.certificate.chain_pem, slot.certificate.key_pem)
    listener = trio.socket.from_stdlib_socket(slot.listener.dup())
    places = trio.CapacityLimiter(_AT_ONCE)

    async def serve(connection: trio.socket.SocketType) -> None:
        try:
            with connection, trio.move_on_after(_SECONDS):
                await _serve(connection, said, context)
        finally:
            places.release_on_behalf_of(connection)

    with listener:
        async with trio.open_nursery() as nursery:
            while True:
                connection = await next_connection(listener)
                await places.acquire_on_behalf_of(connection)
                nursery.start_soon(serve, connection)


async def _serve(connection: trio.socket.SocketType, said: bytes, context: ssl.SSLContext | None) -> None:
    stream = trio.SocketStream(connection)
    speaking: trio.abc.Stream = stream
    if context is not None:
        speaking = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
    try:
        if not await speaking.receive_some(_PIECE):
            return
        await speaking.send_all(said)
        await stream.send_eof()  # over TLS without a close alert: the answer says its length
        left = _MOST
        while left > 0 and (piece := await stream.receive_some(_PIECE)):
            left -= len(piece)
    except (trio.BrokenResourceError, ssl.SSLError):
        pass  # the other side went away, or does not speak what it must: nothing is owed to it
