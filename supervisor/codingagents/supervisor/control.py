"""SHELL: the control descriptor between launcher and supervisor: secrets in, checkpoints and notices out.

A socket goes both ways, and its EOF means that the launcher died. A pipe or file (an engine's standard input) only
brings the first line. Everything read is bounded. What is done about renewals is not decided here.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from collections import deque

import trio

from codingagents.rewrite.specs import AnyControl, AnyRenewal, SessionSecrets
from codingagents.trust import wire
from codingagents.trust.errors import ProcessError


class Control:
    """Owns the descriptor."""

    def __init__(self, descriptor: int) -> None:
        """Take over `descriptor`, never to be inherited by a child; `ProcessError` where there is none."""
        try:
            os.set_inheritable(descriptor, False)
        except OSError as error:
            raise ProcessError(f"descriptor {descriptor} (--control-fd) cannot be used: {error.strerror}") from None
        self._descriptor = descriptor
        self._is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
        self._socket = socket.socket(fileno=os.dup(descriptor)) if self._is_socket else None
        os.set_blocking(descriptor, False)
        self._buffer = wire.LineBuffer()
        self._lines: deque[bytes] = deque()  # that came together with another
        self._unsent = b""
        self._sending = threading.Lock()
        self.secrets_came = trio.Event()

    async def receive_secrets(self) -> SessionSecrets:
        """Return the first line; `ProcessError` on EOF before it, `WireError` where it is not what it must be."""
        while True:
            data = await self._read()
            if not data:
                raise ProcessError("the launcher closed the control channel before it sent the session's secrets")
            if lines := self._buffer.feed(data):
                first, *more = lines
                self._lines.extend(more)
                self.secrets_came.set()
                return wire.decode(SessionSecrets, first)

    async def next_renewal(self) -> AnyRenewal | None:
        """Return the next line after the first, or None when the launcher is gone; never, where this is no socket.

        `WireError` where the line is not what it must be; the next one may be.
        """
        if not self._is_socket:
            await trio.sleep_forever()
        while not self._lines:
            data = await self._read()
            if not data:
                return None
            self._lines.extend(self._buffer.feed(data))
        renewal: AnyRenewal = wire.decode(AnyRenewal, self._lines.popleft())
        return renewal

    def send(self, message: AnyControl) -> None:
        """Send a message if the launcher listens; what it does not read in time is not worth blocking for.

        From any thread. A message goes whole or not at all, what was sent of one is completed before the next.
        """
        if self._socket is None:
            return
        with self._sending, contextlib.suppress(OSError):
            if self._unsent:
                self._unsent = self._unsent[self._send(self._unsent) :]
            if not self._unsent:
                line = wire.encode(message)
                self._unsent = line[self._send(line) :]

    def close(self) -> None:
        """Close both."""
        if self._socket is not None:
            self._socket.close()
        os.close(self._descriptor)

    def _send(self, data: bytes) -> int:
        assert self._socket is not None
        return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    async def _read(self) -> bytes:
        while True:
            try:
                return os.read(self._descriptor, 65536)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._descriptor)
            except ConnectionResetError:
                return b""
