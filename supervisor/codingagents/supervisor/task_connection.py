"""SHELL: one connection of the runner's socket, such that nothing that comes over it can hold up the supervisor.

A client may send any descriptor, and whoever closes the last copy of a socket with SO_LINGER waits as long as its maker
chose (socket(7)). The kernel closes, too: what is received without room for it, and what a connection that is closed
had not received yet. So all that takes or closes is done by threads; with too many of them stuck, no more is taken.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import threading
from collections.abc import Sequence
from typing import Final, Self

import trio

from codingagents.trust import linux

STUCK: Final = 64  # threads that are closing; beyond, `room` waits
_TAKING: Final = 64  # threads that take at once
_PIECE: Final = 64 * 1024
_LOOK_AGAIN_SECONDS: Final = 0.1


class Closer:
    """Closes descriptors in threads, and knows how many are at it."""

    def __init__(self) -> None:
        """Have no thread yet."""
        self.taking = trio.CapacityLimiter(_TAKING)
        self._lock = threading.Lock()
        self._at_it = 0

    def close(self, descriptors: Sequence[int]) -> None:
        """Close these, soon; in order, so that one that lingers holds up those after it."""
        if descriptors:
            with self._lock:
                self._at_it += 1
            trio.lowlevel.start_thread_soon(lambda: self._close(descriptors), lambda _: None)

    async def room(self) -> None:
        """Return once not too many threads are stuck."""
        while self._at_it >= STUCK:  # noqa: ASYNC110 -- nobody else waits, and it hardly ever happens
            await trio.sleep(_LOOK_AGAIN_SECONDS)

    def _close(self, descriptors: Sequence[int]) -> None:
        try:
            for descriptor in descriptors:
                os.close(descriptor)
        finally:
            with self._lock:
                self._at_it -= 1


class TaskConnection:
    """A connection and who is at its other end. `descriptors` are those that came and are ours to close."""

    def __init__(self, connection: trio.socket.SocketType, closer: Closer) -> None:
        """Take it over."""
        self.pid, self.uid = linux.peer_process_of_unix_socket(connection)
        self._socket = socket.socket(fileno=connection.detach())
        self._socket.setblocking(False)
        self._closer = closer
        self._lock = threading.Lock()
        self._closed = False
        self._being_taken = False  # by a thread, which then is to close what `close` leaves to it
        self.descriptors: list[int] = []

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._socket.fileno()

    async def readable(self) -> None:
        """Return once there is something to take, or nothing will come any more."""
        if self._closed:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(self._socket)

    async def receive(self, most_descriptors: int = 0) -> tuple[bytes, bool]:
        """Return what was sent next, and whether descriptors came that there was no room for.

        b"" where the other end is gone. At most `most_descriptors` are added to `descriptors`. May be cancelled:
        what comes to it then is closed.
        """
        # CMSG_SPACE would have room for one more, by its padding.
        room = socket.CMSG_LEN(most_descriptors * array.array("i").itemsize) if most_descriptors else 0
        while True:
            try:
                await self.readable()
                return await trio.to_thread.run_sync(
                    self._take, room, abandon_on_cancel=True, limiter=self._closer.taking
                )
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError):
                return b"", False

    async def send(self, data: bytes) -> None:
        """Send all of `data`; `OSError` or `trio.ClosedResourceError` where nobody will take it."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)

    def close_descriptors(self) -> None:
        """Close what came, soon."""
        with self._lock:
            descriptors, self.descriptors = self.descriptors, []
        self._closer.close(descriptors)

    def close(self) -> None:
        """Be gone for the other end, at once; the rest soon."""
        if self._closed:
            return
        trio.lowlevel.notify_closing(self._socket)  # as long as its number is its own
        with contextlib.suppress(OSError):  # the other end is gone
            self._socket.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._closed = True
            being_taken = self._being_taken
        self.close_descriptors()
        if not being_taken:
            self._closer.close([self._socket.detach()])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, room: int) -> tuple[bytes, bool]:
        with self._lock:
            if self._closed:
                return b"", False
            self._being_taken = True
        received = array.array("i")
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(_PIECE, room, socket.MSG_CMSG_CLOEXEC)
            for _, _, payload in ancillary:
                received.frombytes(payload)
            return data, bool(flags & socket.MSG_CTRUNC)
        finally:
            with self._lock:
                self._being_taken = False
                abandoned: list[int] = []
                if self._closed:
                    abandoned = [*received, self._socket.detach()]
                else:
                    self.descriptors += received
            for descriptor in abandoned:
                os.close(descriptor)
