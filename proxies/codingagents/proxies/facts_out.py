"""SHELL: sends facts up the helper's channel without ever blocking the loop; what does not fit is counted, not kept.

Facts are collected for a few milliseconds and leave in one system call, so that a busy helper pays for one send per
batch and not per request. Decides nothing and stamps nothing: the supervisor adds server, UID and time.
"""

from __future__ import annotations

import asyncio
import socket

from codingagents.trust import wire
from codingagents.trust.facts import AnyFact, Dropped

BATCH_SECONDS = 0.005
MAX_PENDING = 256 * 1024  # bytes waiting for the supervisor; past it facts are counted as dropped


class FactsOut:
    """The writing half of the channel."""

    def __init__(self, loop: asyncio.AbstractEventLoop, channel: socket.socket) -> None:
        """Take the connected, non-blocking `channel`; somebody else reads from it and closes it."""
        self._loop = loop
        self._channel = channel
        self._batch: list[bytes] = []
        self._unsent = b""
        self._dropped = 0
        self._size = 0
        self._scheduled = False
        self._waiting = False

    def put(self, fact: AnyFact) -> None:
        """Queue `fact`, or count it as dropped where too much is waiting already."""
        line = wire.encode(fact)
        if self._size + len(line) > MAX_PENDING:
            self._dropped += 1
            return
        self._size += len(line)
        self._batch.append(line)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_later(BATCH_SECONDS, self._send)

    def flush(self) -> None:
        """Send now what fits into the channel; for the end of the process."""
        self._send()

    def _send(self) -> None:
        self._scheduled = False
        if self._waiting:
            return  # the channel is full: `_writable` goes on when there is room
        data = self._unsent + b"".join(self._batch)
        self._batch.clear()
        if not data:
            return
        try:
            sent = self._channel.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except ConnectionError:
            return  # nobody listens any more: the reader of the channel sees EOF and ends the process
        self._unsent = data[sent:]
        self._size -= sent
        if self._unsent:
            self._waiting = True
            self._loop.add_writer(self._channel, self._writable)
        elif self._dropped:
            count, self._dropped = self._dropped, 0
            self.put(Dropped(count=count))

    def _writable(self) -> None:
        self._loop.remove_writer(self._channel)
        self._waiting = False
        self._send()
