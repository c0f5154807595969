"""A TLS upstream that keeps every byte it is sent, apart from what it makes of them, and answers as a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from http_opinions import requests_by_h11
from scripted_upstream import Upstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

# Gets the number of the request since the last `forget`; returns what to send, and "open", "close" or "reset".
Script = Callable[[int], tuple[bytes, str]]


def always_ok(number: int) -> tuple[bytes, str]:
    """Answer each request."""
    return OK, "open"


class Recorder(Upstream):
    """`received` has one bytearray per connection, of what came since the last `forget`."""

    def __init__(self, script: Script = always_ok) -> None:
        super().__init__(names=("up.test",))
        self.script = script
        self.served = 0
        self._answered: list[int] = []  # of the requests in each of `received`

    def forget(self, script: Script = always_ok) -> None:
        """Start anew, while nothing is on its way."""
        for record in self.received:
            record.clear()
        self._answered = [0] * len(self.received)
        self.script = script
        self.served = 0

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        record = bytearray()
        here = len(self.received)
        self.received.append(record)
        self._answered.append(0)
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                record += data
                while self._answered[here] < len(requests_by_h11(bytes(record)).messages):
                    self._answered[here] += 1
                    answer, then = self.script(self.served)
                    self.served += 1
                    writer.write(answer)
                    await writer.drain()
                    if then == "close":
                        writer.close()
                    elif then == "reset":
                        await asyncio.sleep(0.02)  # for the answer to leave: a reset takes back what was not sent
                        writer.transport.abort()
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
