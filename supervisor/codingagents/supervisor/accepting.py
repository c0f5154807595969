"""SHELL: the supervisor's own few listeners: binds them, and accepts whatever the kernel says. No policy."""

from __future__ import annotations

import os
import socket
from typing import Final

import trio

from codingagents.supervisor import identities

_PAUSE: Final = 0.1  # seconds, where there is no descriptor left


def bind_for_group(path: str, gid: int) -> socket.socket:
    """Return a unix socket at `path`, for root and the group `gid` only, in a directory that is root's alone.

    Nobody can connect before `listen`, so the mode comes in time. Raises `OSError`.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        with identities.member_of(gid):
            os.chown(path, -1, gid)
        os.chmod(path, 0o660)
    except OSError:
        listener.close()
        raise
    return listener


async def next_connection(listener: trio.socket.SocketType) -> trio.socket.SocketType:
    """Accept a connection; errors of accept(2) are of one connection, or over after a while."""
    while True:
        try:
            connection, _ = await listener.accept()
        except OSError:
            await trio.sleep(_PAUSE)
        else:
            return connection
