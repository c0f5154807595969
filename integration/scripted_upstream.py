"""A real TLS server whose answers a test writes: asyncio in a thread, everything it received on record."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pki
from codingagents.rewrite.specs import HeaderTemplate, LimitsSpec, PinSpec, RemoteSpec, TlsSpec

NAME = "upstream.test"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

Answering = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request as it arrived, and the connection to answer on."""

    head: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    record: bytearray

    async def read(self, size: int) -> bytes:
        """Return `size` bytes of the body."""
        data = await self.reader.readexactly(size)
        self.record += data
        return data

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def header(self, name: str) -> list[str]:
        """Return the values of a header."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return [
            value.strip() for key, _, value in (line.partition(":") for line in lines) if key.lower() == name.lower()
        ]


async def answer_ok(exchange: Exchange) -> None:
    """Read the body by its Content-Length and answer 200."""
    await exchange.read(int((exchange.header("Content-Length") or ["0"])[0]))
    await exchange.send(OK)


class Upstream:
    """Listens on 127.0.0.1 until the end of its `with` block; `received` has one bytearray per connection."""

    def __init__(self, answering: Answering = answer_ok, *, names: tuple[str, ...] = (NAME,), tls: bool = True) -> None:
        self.answering = answering
        self.root = pki.make_root()
        self.intermediate = self.root.issue_ca("Intermediate")
        self.leaf = self.intermediate.issue(names)
        self.received: list[bytearray] = []
        self.lost = threading.Event()  # a connection ended while it was being answered
        self._tls = tls
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._stop.set)
        self._thread.join()

    def call(self, function: Callable[[], object]) -> None:
        """Run `function` in the server's loop."""
        self._loop.call_soon_threadsafe(function)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._context() if self._tls else None)
        self.port: int = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "chain").write_text(self.leaf.chain_pem)
            (Path(name) / "key").write_text(self.leaf.key_pem)
            context.load_cert_chain(Path(name) / "chain", Path(name) / "key")
        return context

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        record = bytearray()
        self.received.append(record)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                record += head
                await self.answering(Exchange(head, reader, writer, record))
        except (asyncio.IncompleteReadError, OSError):
            self.lost.set()
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def remote(self, **changes: Any) -> RemoteSpec:
        """Return the spec of this server, its root pinned and a bearer attached; `tls_…` changes the TlsSpec."""
        tls = TlsSpec(
            **{
                "server_name": NAME,
                "anchors_pem": self.root.pem,
                "store": "custom",
                "pins": [PinSpec(spki=self.root.pin)],
                **{key[4:]: changes.pop(key) for key in list(changes) if key.startswith("tls_")},
            }
        )
        fields: dict[str, Any] = {
            "name": "srv",
            "scheme": "https",
            "host": NAME,
            "port": 443,
            "path": "/mcp",
            "connect_to": f"127.0.0.1:{self.port}",
            "headers": [HeaderTemplate(name="Authorization", template="Bearer ${TOKEN}")],
            "tls": tls,
            "limits": LimitsSpec(connect_seconds=2.0),
        }
        return RemoteSpec(**fields | changes)
