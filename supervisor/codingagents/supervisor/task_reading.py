"""SHELL: takes one request off a connection of the runner's socket: its head, its body, and the three descriptors.

Reads what it was told to expect and no more than that, whatever the other end sends; understands nothing of the body
(`task_wire`) and sets no deadline. Descriptors that nobody asked for are closed by the kernel, which was given no room.
"""

from __future__ import annotations

from typing import Final

from codingagents.supervisor import task_wire
from codingagents.supervisor.task_connection import TaskConnection
from codingagents.supervisor.task_wire import RequestError

DESCRIPTORS: Final = 3


class GoneError(Exception):
    """The other end closed the connection; `asked` says whether it had sent anything."""

    def __init__(self, *, asked: bool) -> None:
        """Take it as it was."""
        super().__init__("the requester was gone before its request was whole")
        self.asked = asked


class Reading:
    """One request as it comes in, with its descriptors, which are the connection's."""

    def __init__(self, connection: TaskConnection) -> None:
        """Read from `connection`, which stays the caller's."""
        self._connection = connection
        self._buffer = bytearray()

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

    async def _first(self) -> None:
        data, more = await self._connection.receive(DESCRIPTORS)
        if not data:
            raise GoneError(asked=False)
        if more or len(self._connection.descriptors) != DESCRIPTORS:
            raise RequestError(f"it must bring {DESCRIPTORS} descriptors: standard input, output and error")
        self._buffer += data

    async def _more(self) -> bytes:
        data, _ = await self._connection.receive()
        if not data:
            raise GoneError(asked=True)
        return data
