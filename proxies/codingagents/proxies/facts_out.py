"""SHELL: sends facts up the helper's channel without ever blocking the loop; what does not fit is counted, not kept.

Facts are collected for a few milliseconds, then counted, encoded and sent together, so that a request pays for an
append and not for a system call. Decides nothing and stamps nothing: the supervisor adds server, UID and time, and
`health` says what facts add up to.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from codingagents.proxies.health import Health
from codingagents.trust import wire
from codingagents.trust.facts import AnyFact, Dropped, Pong, SecretsTaken, TrustTaken

BATCH_SECONDS: Final = 0.005
MAX_PENDING: Final = 1024  # facts waiting for the supervisor; past it they are counted as dropped
# The supervisor asked for these, and they are as few as its questions. A lost one would look like silence, or make the
# answer to the next secrets that to the former.
_ANSWERS: Final = (Pong, SecretsTaken, TrustTaken)


class FactsOut:
    """The writing half of the channel."""

    def __init__(self, loop: asyncio.AbstractEventLoop, channel: socket.socket) -> None:
        """Take the connected, non-blocking `channel`; somebody else reads from it and closes it."""
        self._loop = loop
        self._channel = channel
        self._health = Health()
        self._batch: list[AnyFact] = []
        self._counted = 0  # of the batch
        self._latest: list[AnyFact] = []  # how the upstream is, where there was no room to say so
        self._unsent = b""
        self._dropped = 0
        self._scheduled = False
        self._waiting = False

    def put(self, fact: AnyFact) -> None:
        """Queue `fact`, or count it as dropped where too much is waiting already; answers are never dropped."""
        if len(self._batch) >= MAX_PENDING and not isinstance(fact, _ANSWERS):
            self.health()
            changes = self._health.take((fact,))
            self._dropped += 1
            if changes:
                self._dropped += len(self._latest)
                self._latest = changes
            return
        self._batch.append(fact)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_later(BATCH_SECONDS, self._send)

    def health(self) -> Health:
        """Return the counts of all facts until now."""
        self._batch += self._health.take(self._batch[self._counted :])
        self._counted = len(self._batch)
        return self._health

    def flush(self) -> None:
        """Send now what fits into the channel; for answers, and for the end of the process."""
        self._send()

    def _send(self) -> None:
        self._scheduled = False
        if self._waiting:
            return  # the channel is full: `_writable` goes on when there is room
        self.health()
        self._batch += self._latest
        data = self._unsent + wire.encode_lines(self._batch)
        self._batch.clear()
        self._latest.clear()
        self._counted = 0
        if not data:
            return
        try:
            sent = self._channel.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # nobody listens any more: the reader of the channel sees EOF and ends the process
        self._unsent = data[sent:]
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
