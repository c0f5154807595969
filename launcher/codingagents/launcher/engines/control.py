"""SHELL: the launcher's end of the control channel: secrets out, control messages in.

Wraps a connected stream socket; never blocks. The other end is the supervisor: what it sends is bounded and typed, and
a line that is neither ends the channel, which a supervisor answers by ending its session.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable

from codingagents.rewrite.specs import AnyControl, AnyRenewal, SessionSecrets
from codingagents.trust import wire

MAX_LINE = 64 * 1024  # bytes; a checkpoint note is under 1 kB
_READ_SIZE = 64 * 1024


class ControlChannel:
    """Sends `SessionSecrets` and later renewals; gives each `AnyControl` to a callback until the other end closes."""

    def __init__(self, ours: socket.socket, secrets: SessionSecrets, on_message: Callable[[AnyControl], None]) -> None:
        """Take over `ours`, a connected stream socket."""
        ours.setblocking(False)
        self._socket = ours
        self._unsent = wire.encode(secrets, reveal_secrets=True)
        self._lines = wire.LineBuffer(MAX_LINE)
        self._on_message = on_message

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    @property
    def wanted(self) -> int:
        """The `selectors` events that this channel waits for now."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)

    def renew(self, news: AnyRenewal) -> None:
        """Have `news` sent, after all that was to be sent before."""
        self._unsent += wire.encode(news, reveal_secrets=True)

    def send(self) -> None:
        """Send what can be sent now; a supervisor that is gone is noticed where its exit code is awaited."""
        if not self._unsent:
            return
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            self._unsent = b""

    def receive(self) -> bool:
        """Take in all that has come; return False once no more can. Raises `WireError` for what is not a message."""
        while True:
            try:
                data = self._socket.recv(_READ_SIZE)
            except BlockingIOError:
                return True
            except ConnectionResetError:
                return False
            if not data:
                return False
            for line in self._lines.feed(data):
                self._on_message(wire.decode(AnyControl, line))

    def close(self) -> None:
        """Let the other end see EOF."""
        self._socket.close()
