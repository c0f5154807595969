"""ENTRY: the client that the conformance harness tests, on the PyPI `mcp` SDK: it uses whatever the server offers.

The harness starts it with the server's URL as its last argument and says in MCP_CONFORMANCE_… what it wants. What a
scenario looks for is how the SDK asks, so one client serves them all: it lists tools, resources and prompts, and calls,
reads and gets each. What the server refuses is left to the harness to judge.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import mcp_types as types
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError

_BY_TYPE = {"string": "words", "integer": 5, "number": 5, "boolean": True, "array": [], "object": {}}


async def _accept_defaults(_ctx: Any, params: Any) -> Any:
    """Accept a form as it is preset; what has no preset is filled by its type."""
    properties = params.requested_schema.get("properties", {})
    content = {name: each.get("default", _BY_TYPE.get(each.get("type"))) for name, each in properties.items()}
    return types.ElicitResult(action="accept", content=content)


def _arguments(tool: Any, focal: Any) -> dict[str, Any]:
    """Return arguments that fit the tool; one that is asked for a `schema` gets the one of the tool `focal`."""
    schema = tool.input_schema
    return {
        name: focal.input_schema if name == "schema" else _BY_TYPE.get(each.get("type"), "words")
        for name, each in schema.get("properties", {}).items()
        if name in schema.get("required", [])
    }


async def _try(what: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await what()
    except (MCPError, ValueError) as error:  # the harness answers what it does not look for with an empty result
        print(error, file=sys.stderr)
        return None


async def use(url: str) -> None:
    """Connect in the revision that the harness asks for, and use all there is."""
    revision = os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"]
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    mode = "auto" if revision >= "2026-07-28" else "legacy"
    async with Client(url, mode=mode, elicitation_callback=_accept_defaults) as client:
        tools = (await client.list_tools()).tools
        calls = context.get("toolCalls") or [
            {"name": tool.name, "arguments": _arguments(tool, tools[0])} for tool in tools
        ]
        for call in calls:
            await _try(partial(client.call_tool, call["name"], call["arguments"]))
        for resource in getattr(await _try(client.list_resources), "resources", []):
            await _try(partial(client.read_resource, str(resource.uri)))
        for prompt in getattr(await _try(client.list_prompts), "prompts", []):
            await _try(partial(client.get_prompt, prompt.name))


if __name__ == "__main__":
    anyio.run(use, sys.argv[-1])
