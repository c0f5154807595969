"""A proxy with a fault, to show that a comparison through it is not blind: bytes pass through a test's function."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Self


class FaultyProxy:
    """Relays TCP from a port of its own to 127.0.0.1:`port`; each piece, either way, as `fault` returns it."""

    def __init__(self, port: int, fault: Callable[[bytes], bytes]) -> None:
        self._upstream = port
        self._fault = fault
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port: int = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
            try:
                one = asyncio.create_task(self._pass(reader, upstream_writer))
                other = asyncio.create_task(self._pass(upstream_reader, writer))
                await asyncio.wait({one, other}, return_when=asyncio.FIRST_COMPLETED)
                one.cancel()
                other.cancel()
            finally:
                upstream_writer.transport.abort()
        finally:
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(self._fault(data))
                await writer.drain()
        except OSError:
            return
