"""CORE: Codex: `CODEX_HOME/config.toml`, the user's own settings kept, each server's transport replaced by its helper.

Codex expands nothing in this file and refuses `bearer_token`, so the local bearer is an `http_headers` value. A server
without an endpoint is left out: Codex stops at a table that has neither `url` nor `command`. So is a legacy SSE server:
Codex would POST to it and fail. `CODEX_CA_CERTIFICATE` adds to the authorities that it trusts.

Its shell is that of the account in passwd(5), whatever the environment says, where the model names none but bash. By
itself it runs commands in a sandbox of its own, which needs what no role of ours may do (user namespaces) and programs
that are not routed.
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
# Any of these is the user's own word on how commands are confined.
_SANDBOX_KEYS = frozenset({"sandbox_mode", "default_permissions", "permissions", "profile"})
# Of the native program, which the start script of the npm package finds in one of these.
_NATIVE = ("../../codex-linux-*/vendor/*/bin", "../node_modules/@openai/codex-linux-*/vendor/*/bin", "../vendor/*/bin")
SHELLING = Shelling(
    measured="0.169.0",
    environment={},
    account_shell=True,
    needs=(
        Need(path="", why="the client itself, which runs itself again for each command"),
        Need(path="codex-code-mode-host", why="its host of code mode"),
        *(Need(path=f"{path}/codex", why="the client's native program") for path in _NATIVE),
        *(Need(path=f"{path}/codex-code-mode-host", why="its host of code mode") for path in _NATIVE),
    ),
    # By name: a prefix would let CODEX_API_KEY and CODEX_ACCESS_TOKEN through.
    task_environment=(
        *("CODEX_CI", "CODEX_SESSION_ID", "CODEX_THREAD_ID", "CODEX_TOOL_CALL_ID", "CODEX_VERSION"),
        "CODEX_APPLY_PATCH_PRESERVE_LINE_ENDINGS",
    ),
    degrades=("git, lsb_release and getconf, which the client runs for itself, are refused: it goes on without",),
    unmounted=(
        "a shell other than bash that the model chooses is refused, and the model is told so",
        "notify programs and hooks are not run",
    ),
    open=("the client's program can be run again as the agent, with any arguments",),
)


def passed_through(config: Config) -> str:
    """Return as TOML what `config` holds for Codex itself: its top-level keys, and its keys of each remote server."""
    servers = {server.name: dict(server.codex) for server in config.remotes if server.codex}
    return tomli_w.dumps({**config.codex, **({"mcp_servers": servers} if servers else {})})


def render(endpoints: Sequence[Endpoint], codex_toml: str = "", *, routed: bool = False) -> list[ClientFile]:
    """Return `codex/config.toml`; `codex_toml` comes from `passed_through`.

    Where commands are tasks, Codex leaves it at that, unless the user says how it is to confine them.
    """
    document = tomllib.loads(codex_toml)
    if routed and not _SANDBOX_KEYS & document.keys():
        document["sandbox_mode"] = "danger-full-access"
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
