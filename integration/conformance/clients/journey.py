"""What a real client does at a real server, whichever SDK line it is made with; see `python1` and `python2`.

The first line of stdin is a JSON object: `url`, `headers`, `transport` ("http" or "sse"), `revision` (an MCP revision
or "auto"), `journey` ("fixtures" or "everything": whose tools), `gate` (a name no other client uses) and `patience`
(seconds until a client that waits for what does not come gives up). One JSON object on stdout says what was seen.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import anyio

Heard = Callable[[], None]


class Client(Protocol):
    """A connected client of one SDK line."""

    revision: str

    async def tools(self) -> list[str]:
        """Return the names of the server's tools."""

    async def call(self, tool: str, arguments: dict[str, Any], heard: Heard | None = None) -> str:
        """Call a tool and return its text; `heard` is called for each progress notification."""

    async def call_and_cancel(self, tool: str, arguments: dict[str, Any]) -> bool:
        """Call a tool, cancel it on its first progress, and say whether that is how it ended."""


Connect = Callable[[dict[str, Any]], AbstractAsyncContextManager[Client]]


async def _fixtures(client: Client, gate: str) -> dict[str, Any]:
    arguments = {"gate": gate}
    steps = 0
    async with anyio.create_task_group() as group:

        def go_on() -> None:
            nonlocal steps
            steps += 1
            group.start_soon(client.call, "step", arguments)

        walked = await client.call("walk", arguments | {"steps": 3}, go_on)
    return {
        "said": await client.call("greet", {"name": "Ada"}),
        "walked": walked,
        "steps": steps,
        "ended": await client.call_and_cancel("hang", arguments),
        "server": await client.call("cancelled", arguments),
    }


async def _everything(client: Client, _gate: str) -> dict[str, Any]:
    for_an_hour = {"duration": 3600, "steps": 36000}  # a step each 0.1 s; only a cancel ends it while a test waits
    return {
        "said": await client.call("echo", {"message": "Ada"}),
        "ended": await client.call_and_cancel("trigger-long-running-operation", for_an_hour),
        "server": await client.call("echo", {"message": "still here"}),
    }


_JOURNEYS: dict[str, Callable[[Client, str], Awaitable[dict[str, Any]]]] = {
    "fixtures": _fixtures,
    "everything": _everything,
}


async def _run(connect: Connect) -> None:
    settings = json.loads(sys.stdin.readline())
    with anyio.fail_after(settings["patience"]):
        async with connect(settings) as client:
            seen = {"revision": client.revision, "tools": await client.tools()}
            seen |= await _JOURNEYS[settings["journey"]](client, settings["gate"])
    print(json.dumps(seen))


def main(connect: Connect) -> None:
    anyio.run(_run, connect)
