"""SHELL: the helper's listening side."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from codingagents.proxies.facts_out import FactsOut
from codingagents.rewrite.specs import HelperSpec

_NOT_YET = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class _Client(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        client = cast("asyncio.Transport", transport)  # uvloop's transports derive from no class of asyncio
        client.write(_NOT_YET)
        client.close()


class Server:
    """Accepts clients on the inherited socket."""

    def __init__(self, loop: asyncio.AbstractEventLoop, spec: HelperSpec, facts: FactsOut) -> None:
        """Prepare everything that can fail before the first client."""
        self._loop = loop
        self._spec = spec
        self._facts = facts
        self._server: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        """Accept from now on."""
        self._server = await self._loop.create_server(_Client, sock=listener)

    async def drain(self, seconds: float) -> None:
        """Accept no more, and wait for what is in flight, `seconds` at most."""
        if self._server is not None:
            self._server.close()
