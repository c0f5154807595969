"""A stand-in for a coding agent: an MCP client made with the PyPI `mcp` SDK, and a shell tool.

Run inside the session, as the agent, under the demo's interpreter. Like a real agent it is told one thing, the path of
its MCP config in Claude's format (`{"mcpServers": {NAME: {"type": "http", "url": …, "headers": …}}}`); what it does
then with its shell is given by `--run`, in order, while its connections are still open. It prints one JSON object for
each server and passes through what the programs print. It knows nothing of helpers, pins or the upstream.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import logging
import shlex
import sys
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

SECONDS = 20.0  # for one answer


def say(step: str, **facts: Any) -> None:
    print(json.dumps({"step": step, **facts}), flush=True)


def sentence(error: BaseException) -> str:
    """Return what went wrong without the task groups it came through."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


async def use(name: str, entry: dict[str, Any], stack: contextlib.AsyncExitStack) -> None:
    """List the server's tools and call two of them; the connection stays open until `stack` closes."""
    http = await stack.enter_async_context(
        httpx2.AsyncClient(headers=entry.get("headers", {}), timeout=SECONDS, trust_env=False)
    )
    transport = streamable_http_client(entry["url"], http_client=http)
    client = await stack.enter_async_context(Client(transport, read_timeout_seconds=SECONDS))
    tools = await client.list_tools()
    added = await client.call_tool("add", {"a": 40, "b": 2})
    caller = await client.call_tool("whoami", {})
    say(
        "mcp",
        server=name,
        ok=not (added.is_error or caller.is_error),
        protocol=client.protocol_version,
        tools=[tool.name for tool in tools.tools],
        add=added.structured_content,
        whoami=caller.structured_content,
    )


async def first_words(name: str, entry: dict[str, Any]) -> None:
    """Say what the server itself answers, where the client cannot use it: SDK errors leave the reason out."""
    headers = {"Accept": "application/json, text/event-stream"} | entry.get("headers", {})
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    try:
        async with httpx2.AsyncClient(headers=headers, timeout=SECONDS, trust_env=False) as http:
            answer = await http.post(entry["url"], json=request)
    except httpx2.HTTPError as error:
        say("refusal", server=name, status=None, body=sentence(error))
    else:
        say("refusal", server=name, status=answer.status_code, body=answer.text[:2000])


async def session(servers: dict[str, dict[str, Any]], commands: list[str]) -> int:
    failed = 0
    async with contextlib.AsyncExitStack() as stack:
        for name, entry in servers.items():
            try:
                async with contextlib.AsyncExitStack() as attempt:
                    await use(name, entry, attempt)
                    stack.push_async_exit(attempt.pop_all())
            except Exception as error:  # whatever the SDK raises is what is to be shown
                say("mcp", server=name, ok=False, error=sentence(error))
                await first_words(name, entry)
        for command in commands:
            child = await asyncio.create_subprocess_exec(*shlex.split(command), stdin=asyncio.subprocess.DEVNULL)
            code = await child.wait()
            say("ran", command=command, code=code)
            failed |= code != 0
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mcp-config", required=True, type=Path)
    parser.add_argument(
        "--strict-mcp-config", action="store_true", help="accepted, as Claude does; there is no other config"
    )
    parser.add_argument(
        "--run", action="append", default=[], metavar="COMMAND", help="what the shell tool runs, in order"
    )
    arguments = parser.parse_args()
    logging.disable()
    # Yama's default would hide this process's memory from the hunt, its own child: PR_SET_PTRACER, any.
    ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)
    return asyncio.run(session(json.loads(arguments.mcp_config.read_text())["mcpServers"], arguments.run))


if __name__ == "__main__":
    sys.exit(main())
