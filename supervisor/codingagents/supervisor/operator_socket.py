"""SHELL: the operator's socket in the session directory: root's alone, a few connections at a time, each a few seconds.

Accepts and checks who calls. What is asked and answered is HTTP, in `operator_http`, which is loaded with the first
caller: most sessions have none. Where the socket cannot be had, the session goes on without.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import trio

from codingagents.rewrite import places
from codingagents.supervisor.accepting import next_connection
from codingagents.trust import linux, unix_socket

_AT_ONCE: Final = 8
_SECONDS: Final = 10.0
_BACKLOG: Final = 16


async def serve(
    directory: str, documents: Mapping[str, Callable[[], Awaitable[bytes]]], complain: Callable[[str], object]
) -> None:
    """Answer at `places.OPERATOR_SOCKET` in `directory` until cancelled; then the socket is gone.

    `documents` returns, by its path, what a GET is answered with.
    """
    try:
        place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        complain(f"no operator socket in {directory}: {error.strerror}")
        return
    try:
        listener = unix_socket.bind(place, places.OPERATOR_SOCKET, _BACKLOG)
    except OSError as error:
        complain(f"no operator socket in {directory}: {error.strerror}")
    else:
        with listener:
            try:
                await _serve(listener, documents)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(places.OPERATOR_SOCKET, dir_fd=place)
    finally:
        os.close(place)


async def _serve(listener: socket.socket, documents: Mapping[str, Callable[[], Awaitable[bytes]]]) -> None:
    accepting = trio.socket.from_stdlib_socket(listener)
    places_left = trio.CapacityLimiter(_AT_ONCE)

    async def attend(connection: trio.socket.SocketType) -> None:
        from codingagents.supervisor import operator_http  # noqa: PLC0415 -- see the module's docstring

        try:
            with connection, trio.move_on_after(_SECONDS):
                await operator_http.converse(trio.SocketStream(connection), documents)
        finally:
            places_left.release_on_behalf_of(connection)

    async with trio.open_nursery() as nursery:
        while True:
            connection = await next_connection(accepting)
            if (
                linux.peer_of_unix_socket(connection) != os.geteuid()
            ):  # the mode says so already; this is for whoever changed it
                connection.close()
                continue
            await places_left.acquire_on_behalf_of(connection)
            nursery.start_soon(attend, connection)
