"""The soak's clients: 200 at once, which leave in every way there is, and judge all that they get."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter

from http_opinions import response_by_h11
from soak.upstream import document, events

FATES = ["stay"] * 7 + ["reset", "end", "half", "last"]
_RESET = struct.pack("ii", 1, 0)
_PATIENCE = 20.0  # seconds without a byte; only a failing test waits that long


class Clients:
    """`seen` counts outcomes; a wrong answer is an AssertionError out of `run`."""

    def __init__(self, port: int, bearer: str, seed: str) -> None:
        self._port = port
        self._lines = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {bearer}\r\n"
        self._seed = seed
        self._requests = 0
        self.seen: Counter[str] = Counter()

    async def run(self, number: int, seconds: float) -> None:
        """Let `number` clients do what they do for `seconds`."""
        end = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as group:
            for index in range(number):
                group.create_task(self._client(random.Random(f"{self._seed} {index}"), end))

    async def _client(self, chance: random.Random, end: float) -> None:
        while asyncio.get_running_loop().time() < end:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                self.seen["not connected"] += 1
                await asyncio.sleep(0.05)
                continue
            try:
                while await self._request(reader, writer, chance):
                    pass
            except OSError:
                self.seen["aborted"] += 1
            finally:
                writer.transport.abort()
            await asyncio.sleep(chance.random() * 0.1)

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chance: random.Random) -> bool:
        """Make one request; return whether another may follow on this connection."""
        self._requests += 1
        name, kind, count = f"r{self._requests}", chance.choice(["json", "events", "events"]), chance.randrange(1, 30)
        body = b"" if chance.random() < 0.4 else b'{"pad":"%b"}' % (b"z" * chance.randrange(2000))
        head = f"{'POST' if body else 'GET'} /mcp?{name}-{kind}-{count} HTTP/1.1\r\n{self._lines}"
        head += f"Content-Length: {len(body)}\r\n\r\n" if body else "\r\n"
        writer.write(head.encode() + body)
        fate = chance.choice(FATES)
        patience = chance.randrange(2000)  # bytes after which a client with another fate leaves
        data = b""
        while True:
            if fate not in {"stay", "last"} and len(data) >= patience:
                return await self._leave(reader, writer, fate)
            opinion = response_by_h11(data)
            assert not opinion.error, data
            if opinion.only is not None:
                break
            piece = await asyncio.wait_for(reader.read(1 << 16), _PATIENCE)
            if not piece:
                self.seen["cut off"] += 1
                return False
            data += piece
        message = opinion.only
        if message.start == (b"200",):
            expected = document(name, count) if kind == "json" else b"".join(events(name, count))
            assert message.body == expected, "an answer that ended cleanly is not the right one"
            self.seen["whole"] += 1
        else:
            assert message.start[0] in (b"502", b"503", b"504"), data
            self.seen[message.start[0].decode()] += 1
        return fate == "stay" and b"close" not in message.values(b"connection")

    async def _leave(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fate: str) -> bool:
        self.seen[fate] += 1
        if fate == "half":
            writer.write_eof()
            while await asyncio.wait_for(reader.read(1 << 16), _PATIENCE):
                pass
        elif fate == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        else:
            writer.close()
        return False
