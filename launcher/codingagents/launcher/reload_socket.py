"""SHELL: the launcher's own socket, in the session's directory: one bounded line from a caller, one line back.

For the user that runs the session and for root. A few callers at a time, each with a few seconds to ask and to read;
whoever sends something else is dropped. Never blocks: the engine's loop waits on `fileno`. What is asked for is done in
`companion`.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

from codingagents.launcher.reload_plan import ReloadReport, ReloadRequest
from codingagents.rewrite import places
from codingagents.trust import linux, unix_socket, wire
from codingagents.trust.errors import WireError

MAX_REQUEST = 1024  # bytes
MAX_CALLERS = 8
SECONDS = 5.0  # to ask, and again to read the answer
_BACKLOG = 8


class Caller:
    """One connection."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        """Take it over, accepted and not blocking."""
        self.connection = connection
        self.deadline: float | None = deadline  # None while it waits for us
        self.unsent = b""
        self._lines = wire.LineBuffer(MAX_REQUEST)

    def asked(self) -> bool:
        """Read; whether its request is whole now. `WireError` where it is none, or the caller is gone."""
        try:
            data = self.connection.recv(MAX_REQUEST + 1)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data or self.deadline is None:
            raise WireError("it sent too little, or too much")
        lines = self._lines.feed(data)
        if not lines:
            return False
        wire.decode(ReloadRequest, lines[0])
        self.deadline = None
        return True


class ReloadSocket:
    """The socket of one session; without one where it cannot be had, which `say` is told."""

    def __init__(self, directory: Path, say: Callable[[str], None]) -> None:
        """Listen in `directory`, which is private."""
        self._epoll = select.epoll()
        self._callers: dict[int, Caller] = {}
        self._listener: socket.socket | None = None
        self._place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._listener = unix_socket.bind(self._place, places.LAUNCHER_SOCKET, _BACKLOG)
        except OSError as error:
            say(f"warning: this session's trust cannot be reloaded: no socket in {directory}: {error.strerror}")
            return
        self._listener.setblocking(False)
        self._epoll.register(self._listener, select.EPOLLIN)

    def fileno(self) -> int:
        """Return a descriptor that is readable while `attend` has something to do."""
        return self._epoll.fileno()

    def attend(self) -> list[Caller]:
        """Accept, read, send and drop what is due; return the callers that have just asked."""
        asked = []
        for descriptor, event in self._epoll.poll(0):
            caller = self._callers.get(descriptor)
            if caller is None:
                self._accept()
            elif event & select.EPOLLOUT:
                self._send(caller)
            else:
                try:
                    if caller.asked():
                        asked.append(caller)
                except WireError:
                    self._drop(caller)
        now = time.monotonic()
        for caller in [each for each in self._callers.values() if each.deadline is not None and each.deadline <= now]:
            self._drop(caller)
        return asked

    def answer(self, caller: Caller, report: ReloadReport) -> None:
        """Have the caller told, if it is still there."""
        if caller.connection.fileno() < 0:
            return
        caller.unsent = wire.encode(report)
        caller.deadline = time.monotonic() + SECONDS
        self._epoll.modify(caller.connection, select.EPOLLOUT)

    def close(self) -> None:
        """Drop everybody, and leave no socket behind."""
        for caller in list(self._callers.values()):
            self._drop(caller)
        if self._listener is not None:
            self._listener.close()
            with contextlib.suppress(OSError):
                os.unlink(places.LAUNCHER_SOCKET, dir_fd=self._place)
        os.close(self._place)
        self._epoll.close()

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it went away again, or there is no descriptor left
            return
        # The mode of the socket says so already; this is for whoever changed it.
        ours = linux.peer_of_unix_socket(connection) in {0, os.geteuid()}
        if not ours or len(self._callers) == MAX_CALLERS:
            connection.close()
            return
        connection.setblocking(False)
        self._callers[connection.fileno()] = Caller(connection, time.monotonic() + SECONDS)
        self._epoll.register(connection, select.EPOLLIN)

    def _send(self, caller: Caller) -> None:
        try:
            caller.unsent = caller.unsent[caller.connection.send(caller.unsent) :]
        except BlockingIOError:
            return
        except OSError:
            caller.unsent = b""
        if not caller.unsent:
            self._drop(caller)

    def _drop(self, caller: Caller) -> None:
        del self._callers[caller.connection.fileno()]
        caller.connection.close()  # epoll forgets it by itself
