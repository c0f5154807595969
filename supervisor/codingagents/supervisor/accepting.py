"""SHELL: accepts connections for the supervisor's own few listeners, whatever the kernel says. No policy."""

from __future__ import annotations

from typing import Final

import trio

_PAUSE: Final = 0.1  # seconds, where there is no descriptor left


async def next_connection(listener: trio.socket.SocketType) -> trio.socket.SocketType:
    """Accept a connection; errors of accept(2) are of one connection, or over after a while."""
    while True:
        try:
            connection, _ = await listener.accept()
        except OSError:
            await trio.sleep(_PAUSE)
        else:
            return connection
