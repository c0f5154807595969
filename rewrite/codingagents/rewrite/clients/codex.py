"""CORE: Codex: `CODEX_HOME/config.toml`, the user's own settings kept, each server's transport replaced by its helper.

Codex expands nothing in this file and refuses `bearer_token`, so the local bearer is an `http_headers` value. A server
without an endpoint is left out: Codex stops at a table that has neither `url` nor `command`. So is a legacy SSE server:
Codex would POST to it and fail. `CODEX_CA_CERTIFICATE` adds to the authorities that it trusts.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence

import tomli_w

from codingagents.rewrite.clients.base import ClientFile, Endpoint, Need, Shelling, Switches, Transport
from codingagents.rewrite.config import Config

NAME = "codex"
TRANSPORTS: frozenset[Transport] = frozenset({"http"})
_DIRECTORY = "codex"
SHELLING = Shelling(
    measured="0.169.0",
    environment={},
    account_shell=True,
    needs=(
        Need(path="", why="the client itself, which runs itself again for each command", essential=True),
        Need(path="codex-code-mode-host", why="the host of code mode", essential=True),
    ),
    task_environment=("CODEX_*",),
    degrades=("a model that chooses a shell other than bash is refused, and told so",),
)


def passed_through(config: Config) -> str:
    """Return as TOML what `config` holds for Codex itself: its top-level keys, and its keys of each remote server."""
    servers = {server.name: dict(server.codex) for server in config.remotes if server.codex}
    return tomli_w.dumps({**config.codex, **({"mcp_servers": servers} if servers else {})})


def render(endpoints: Sequence[Endpoint], codex_toml: str = "") -> list[ClientFile]:
    """Return `codex/config.toml`; `codex_toml` comes from `passed_through`."""
    document = tomllib.loads(codex_toml)
    kept = document.pop("mcp_servers", {})
    document["mcp_servers"] = {
        endpoint.name: {
            **kept.get(endpoint.name, {}),
            "url": endpoint.url,
            "http_headers": {"Authorization": f"Bearer {endpoint.bearer.reveal()}"},
        }
        for endpoint in endpoints
        if endpoint.transport in TRANSPORTS
    }
    return [ClientFile(path=f"{_DIRECTORY}/config.toml", content=tomli_w.dumps(document).encode())]


def switches(root: str, session_ca: str | None = None) -> Switches:
    """Return the environment that makes Codex live in our directory; it keeps its own state beside our file."""
    trusts = {} if session_ca is None else {"CODEX_CA_CERTIFICATE": session_ca}
    return Switches(environment={"CODEX_HOME": f"{root}/{_DIRECTORY}", **trusts})
