"""ENTRY: a real MCP server with every fixture that the conformance harness asks for, on the PyPI `mcp` SDK.

Runs in an environment of its own, as `python -m conformance.fixture_server` from `integration/`. Its first line on
stdin is a JSON object. `{}`: plain http, for clients that come directly, with the SDK's own check of Host and Origin.
With `cert` and `key` (PEM files), `token`, `host` and `local_bearer`: https for clients that come through a helper,
with a `guard` and without that check, since it is the helper that has to make it. All else is the same. It says
`{"port": N}` on stdout once it listens, and ends when stdin does.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import warnings
from typing import Any

import mcp_types as types
import uvicorn
from mcp.server.lowlevel.server import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.subscriptions import ListenHandler
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError

from conformance import content, gates, questions, tasks
from conformance.catalog import PROMPTS, TOOLS, Offer
from conformance.event_store import Events
from conformance.guard import Guard

_FILLED_BY = (content, gates, questions, tasks)  # importing them fills the catalog
_RETRY_MILLISECONDS = 100


async def _list_tools(_ctx: Any, _params: Any) -> Any:
    return types.ListToolsResult(tools=[each.listed for each in TOOLS.values()])


async def _list_prompts(_ctx: Any, _params: Any) -> Any:
    return types.ListPromptsResult(prompts=[each.listed for each in PROMPTS.values()])


async def _list_resources(_ctx: Any, _params: Any) -> Any:
    return types.ListResourcesResult(resources=content.RESOURCES)


async def _list_templates(_ctx: Any, _params: Any) -> Any:
    return types.ListResourceTemplatesResult(resource_templates=content.TEMPLATES)


async def _call_tool(ctx: Any, params: Any) -> Any:
    return await _offer(TOOLS, params.name).handler(ctx, params)


async def _get_prompt(ctx: Any, params: Any) -> Any:
    return await _offer(PROMPTS, params.name).handler(ctx, params)


def _offer(table: dict[str, Offer], name: str) -> Offer:
    if name not in table:
        raise MCPError(types.INVALID_PARAMS, f"there is no {name!r}")
    return table[name]


async def _nothing(_ctx: Any, _params: Any) -> Any:
    return types.EmptyResult()


def make_app(settings: dict[str, str]) -> Any:
    """Return the ASGI application."""
    server = Server(
        "fixtures",
        version="1",
        on_list_tools=_list_tools,
        on_call_tool=_call_tool,
        on_list_prompts=_list_prompts,
        on_get_prompt=_get_prompt,
        on_list_resources=_list_resources,
        on_list_resource_templates=_list_templates,
        on_read_resource=content.read_resource,
        on_subscribe_resource=_nothing,
        on_unsubscribe_resource=_nothing,
        on_subscriptions_listen=ListenHandler(content.BUS),
        on_completion=content.complete,
        on_set_logging_level=_nothing,
    )
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience="fixtures"))
    server.extensions[tasks.EXTENSION] = {}
    for method, handler in tasks.METHODS.items():
        server.add_request_handler(method, tasks.TaskParams, handler)
    guarded = "token" in settings
    app = server.streamable_http_app(
        event_store=Events(),
        retry_interval=_RETRY_MILLISECONDS,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False) if guarded else None,
    )
    return Guard(app, settings["token"], settings["host"], settings["local_bearer"]) if guarded else app


async def serve(settings: dict[str, str]) -> None:
    """Serve until stdin ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        make_app(settings),
        ssl_certfile=settings.get("cert"),
        ssl_keyfile=settings.get("key"),
        log_level="warning",
        access_log=False,
        lifespan="on",
    )
    server = uvicorn.Server(config)

    def stop_at_end() -> None:
        if not os.read(0, 4096):
            asyncio.get_running_loop().remove_reader(0)
            server.should_exit = server.force_exit = True  # open streams are not waited for

    asyncio.get_running_loop().add_reader(0, stop_at_end)
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    await server.serve(sockets=[listener])


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the SDK deprecates what older revisions have
    with open(0, "rb", buffering=0, closefd=False) as unbuffered:  # the rest is left for `stop_at_end`
        first = unbuffered.readline()
    asyncio.run(serve(json.loads(first)))
