"""ENTRY: a client made with the 1.x line of the PyPI `mcp` SDK; see `journey`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
from mcp import ClientSession, types
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from conformance.clients import journey


class _Client:
    def __init__(self, session: Any, revision: str) -> None:
        self._session = session
        self.revision = revision

    async def tools(self) -> list[str]:
        return [tool.name for tool in (await self._session.list_tools()).tools]

    async def call(self, tool: str, arguments: dict[str, Any], heard: journey.Heard | None = None) -> str:
        async def progress(_done: float, _total: float | None, _message: str | None) -> None:
            if heard:
                heard()

        result = await self._session.call_tool(tool, arguments, progress_callback=progress)
        return str(result.content[0].text)

    async def call_and_cancel(self, tool: str, arguments: dict[str, Any]) -> bool:
        request = self._session._request_id  # this line leaves the notification to its user, and names no request
        with anyio.CancelScope() as scope:
            await self.call(tool, arguments, scope.cancel)
        told = types.CancelledNotification(params=types.CancelledNotificationParams(requestId=request))
        await self._session.send_notification(types.ClientNotification(told))
        return bool(scope.cancelled_caught)


@contextlib.asynccontextmanager
async def connect(settings: dict[str, Any]) -> AsyncIterator[journey.Client]:
    """Connect by the transport that `settings` say; the revision is negotiated."""
    async with contextlib.AsyncExitStack() as stack:
        if settings["transport"] == "sse":
            transport = sse_client(settings["url"], headers=settings["headers"])
        else:
            http = httpx.AsyncClient(headers=settings["headers"], timeout=settings["patience"])
            transport = streamable_http_client(settings["url"], http_client=await stack.enter_async_context(http))
        read, write, *_ = await stack.enter_async_context(transport)
        session = await stack.enter_async_context(ClientSession(read, write))
        yield _Client(session, str((await session.initialize()).protocolVersion))


if __name__ == "__main__":
    journey.main(connect)
