"""CORE: Claude Code: `--mcp-config FILE --strict-mcp-config`, JSON with `mcpServers`.

An entry without `type` is skipped by Claude, and `disabled` is ignored, so a server that is off is left out.
`NODE_EXTRA_CA_CERTS` adds to the authorities that it trusts.
Claude expands `${V}` in this file: nothing but our own URL and bearer, which hold no `$`, is written into it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from codingagents.rewrite.clients.base import ClientFile, Endpoint, Need, Shelling, Switches, Transport

NAME = "claude"
TRANSPORTS: frozenset[Transport] = frozenset({"http", "sse"})
_FILE = "claude/mcp.json"
SHELLING = Shelling(
    measured="2.1.330",
    environment={"CLAUDE_CODE_SHELL": "{shell}", "SHELL": "{shell}"},
    account_shell=False,
    needs=(Need(path="", why="the client itself", essential=True),),
    task_environment=("CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT"),
    degrades=("hooks are not run, and fail open: a hook that would block a tool no longer does",),
)


def render(endpoints: Sequence[Endpoint], codex_toml: str = "") -> list[ClientFile]:
    """Return `claude/mcp.json`."""
    servers = {
        endpoint.name: {
            "type": endpoint.transport,
            "url": endpoint.url,
            "headers": {"Authorization": f"Bearer {endpoint.bearer.reveal()}"},
        }
        for endpoint in endpoints
    }
    return [ClientFile(path=_FILE, content=json.dumps({"mcpServers": servers}, indent=2).encode() + b"\n")]


def switches(root: str, session_ca: str | None = None) -> Switches:
    """Return the arguments that make our file the only source of MCP servers."""
    environment = {} if session_ca is None else {"NODE_EXTRA_CA_CERTS": session_ca}
    return Switches(arguments=("--mcp-config", f"{root}/{_FILE}", "--strict-mcp-config"), environment=environment)
