"""ENTRY: a client made with the 2.x line of the PyPI `mcp` SDK; see `journey`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx2
from mcp.client.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from conformance.clients import journey


class _Client:
    def __init__(self, client: Any) -> None:
        self._client = client
        self.revision: str = client.protocol_version

    async def tools(self) -> list[str]:
        return [tool.name for tool in (await self._client.list_tools()).tools]

    async def call(self, tool: str, arguments: dict[str, Any], heard: journey.Heard | None = None) -> str:
        async def progress(_done: float, _total: float | None, _message: str | None) -> None:
            if heard:
                heard()

        result = await self._client.call_tool(tool, arguments, progress_callback=progress)
        return str(result.content[0].text)

    async def call_and_cancel(self, tool: str, arguments: dict[str, Any]) -> bool:
        with anyio.CancelScope() as scope:  # the SDK tells the server, as the revision has it
            await self.call(tool, arguments, scope.cancel)
        return bool(scope.cancelled_caught)


@contextlib.asynccontextmanager
async def connect(settings: dict[str, Any]) -> AsyncIterator[journey.Client]:
    """Connect by the transport and in the revision that `settings` say."""
    mode = settings["revision"] if settings["revision"] in {"auto", "2026-07-28"} else "legacy"
    async with contextlib.AsyncExitStack() as stack:
        if settings["transport"] == "sse":
            transport = sse_client(settings["url"], headers=settings["headers"])
        else:
            http = httpx2.AsyncClient(headers=settings["headers"], timeout=settings["patience"])
            transport = streamable_http_client(settings["url"], http_client=await stack.enter_async_context(http))
        yield _Client(await stack.enter_async_context(Client(transport, mode=mode)))


if __name__ == "__main__":
    journey.main(connect)
