"""A connection of the runner: what comes over it, and what is asked of it once it is closed."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from codingagents.supervisor.task_connection import Closer, TaskConnection


def play(scene: Callable[[TaskConnection, socket.socket], Awaitable[None]]) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        connection = TaskConnection(trio.socket.from_stdlib_socket(ours), Closer())
        with theirs, connection:
            await scene(connection, theirs)

    trio.run(main)


def test_what_comes_is_had_with_as_many_descriptors_as_there_is_room_for() -> None:
    async def scene(connection: TaskConnection, theirs: socket.socket) -> None:
        socket.send_fds(theirs, [b"one"], [0, 1])
        assert await connection.receive(3) == (b"one", False)
        assert len(connection.descriptors) == 2
        connection.close_descriptors()
        socket.send_fds(theirs, [b"two"], [0, 1])
        assert await connection.receive(1) == (b"two", True)
        assert len(connection.descriptors) == 1

    play(scene)


def test_once_it_is_closed_nothing_comes_and_nothing_goes() -> None:
    async def scene(connection: TaskConnection, theirs: socket.socket) -> None:
        theirs.sendall(b"unread")
        connection.close()
        connection.close()
        assert await connection.receive() == (b"", False)
        with pytest.raises((OSError, trio.ClosedResourceError)):
            await connection.send(b"x")
        theirs.settimeout(10)
        with pytest.raises(ConnectionResetError):
            theirs.recv(1)

    play(scene)


def test_who_waits_for_something_hears_of_the_close() -> None:
    async def scene(connection: TaskConnection, theirs: socket.socket) -> None:
        async with trio.open_nursery() as nursery:

            async def hear() -> None:
                assert await connection.receive() == (b"", False)

            nursery.start_soon(hear)
            await trio.testing.wait_all_tasks_blocked()
            connection.close()
        assert theirs.recv(1) == b""

    play(scene)
