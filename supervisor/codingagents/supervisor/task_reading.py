"""SHELL: takes one request off a connection of the runner's socket: its head, its body, and the three descriptors.

Reads what it was told to expect and no more than that, whatever the other end sends; understands nothing of the body
(`task_wire`) and sets no deadline. Descriptors that nobody asked for are closed by the kernel, which was given no room.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence
from typing import Final

import trio

from codingagents.supervisor import task_wire
from codingagents.supervisor.task_wire import RequestError

DESCRIPTORS: Final = 3
_PIECE: Final = 64 * 1024


class GoneError(Exception):
    """The other end closed the connection; `asked` says whether it had sent anything."""

    def __init__(self, *, asked: bool) -> None:
        """Take it as it was."""
        super().__init__("the requester was gone before its request was whole")
        self.asked = asked


class Reading:
    """One request as it comes in. `descriptors` are ours to close (`close`)."""

    def __init__(self, connection: trio.socket.SocketType) -> None:
        """Read from `connection`, which stays the caller's."""
        self._connection = connection
        self._buffer = bytearray()
        self.descriptors: Sequence[int] = ()

    async def begun(self) -> None:
        """Return once something was sent, and take nothing; `GoneError` where nothing will be."""
        try:
            data = await self._connection.recv(1, socket.MSG_PEEK)
        except OSError:
            data = b""
        if not data:
            raise GoneError(asked=False)

    async def length(self) -> int:
        """Return how long the body will be; `RequestError` where no request begins here, or without descriptors."""
        await self._first()
        while (end := self._buffer.find(b"\n", 0, task_wire.MAX_HEAD)) < 0:
            if len(self._buffer) >= task_wire.MAX_HEAD:
                raise RequestError("it does not start as a request")
            self._buffer += await self._more()
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return task_wire.body_length(head)

    async def body(self, length: int) -> tuple[bytes, bytes]:
        """Return the body, and what came behind it."""
        while len(self._buffer) < length:
            self._buffer += await self._more()
        return bytes(self._buffer[:length]), bytes(self._buffer[length:])

    def close(self) -> None:
        """Close the descriptors; a task that runs has its own."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = ()

    async def _first(self) -> None:
        # CMSG_SPACE would have room for a fourth, by its padding.
        room = socket.CMSG_LEN(DESCRIPTORS * array.array("i").itemsize)
        try:
            data, ancillary, flags, _ = await self._connection.recvmsg(_PIECE, room, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            raise GoneError(asked=False) from None
        received = array.array("i")
        for _, _, payload in ancillary:
            received.frombytes(payload)
        self.descriptors = list(received)
        if not data:
            raise GoneError(asked=False)
        if flags & socket.MSG_CTRUNC or len(received) != DESCRIPTORS:
            raise RequestError(f"it must bring {DESCRIPTORS} descriptors: standard input, output and error")
        self._buffer += data

    async def _more(self) -> bytes:
        try:
            data = await self._connection.recv(_PIECE)
        except OSError:
            data = b""
        if not data:
            raise GoneError(asked=True)
        return data
