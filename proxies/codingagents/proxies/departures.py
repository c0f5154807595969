"""SHELL: notices that a client goes away while nothing is read from it, where its end waits behind data nobody takes.

The event loop looks at what it reads. While a relay does not read, because the upstream is slower or not there yet, the
client's end of stream would show only once all before it was read, or at a deadline. The kernel knows it at once: one
epoll(7) of our own holds those clients, and the loop watches that. A client that is read from costs nothing here. Over
TCP the end is in sequence: it does not come before data that our receive buffer has no room for.
Decides nothing: what a departure means is the relay's to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable


class Departures:
    """The clients of one helper that are not read from."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch nobody yet; as long as `loop` runs."""
        self._epoll = select.epoll()
        self._gone: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll, self._look)

    def watch(self, descriptor: int, gone: Callable[[], None]) -> None:
        """Call `gone` once the peer of `descriptor` has ended its stream or its connection."""
        self._gone[descriptor] = gone
        self._epoll.register(descriptor, select.EPOLLRDHUP)

    def forget(self, descriptor: int, gone: Callable[[], None]) -> None:
        """Watch no more. The descriptor may be closed, and another connection's by now: that one is not forgotten."""
        if self._gone.get(descriptor) == gone:
            del self._gone[descriptor]
            with contextlib.suppress(OSError):  # closed: the kernel has forgotten it already
                self._epoll.unregister(descriptor)

    def _look(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            gone = self._gone.get(descriptor)
            if gone is not None:  # else it was forgotten because of one before it
                self.forget(descriptor, gone)
                gone()
