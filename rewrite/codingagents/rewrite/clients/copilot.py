"""CORE: Copilot CLI: `COPILOT_HOME/mcp-config.json`, JSON with `mcpServers`.

An entry that it does not understand is dropped without a word. It expands `$V` and `${V}` in headers: our bearer holds
no `$`. `NODE_EXTRA_CA_CERTS` adds to the authorities that it trusts. MCP servers of a workspace's own files are used
where the folder is trusted; there is no switch for ours alone.

Its shell is what `COPILOT_BASH_PATH` names, and nothing else chooses it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from codingagents.rewrite import places
from codingagents.rewrite.clients.base import ClientFile, Endpoint, Need, Shelling, Switches, Transport

NAME = "copilot"
TRANSPORTS: frozenset[Transport] = frozenset({"http", "sse"})
_DIRECTORY = "copilot"
# Of the native program, which the start script of the npm package finds in one of these.
_NATIVE = ("../copilot-linux*", "node_modules/@github/copilot-linux*")
SHELLING = Shelling(
    measured="1.0.102",
    # Without the second it takes its own PATH from a login shell, which is a task: that must not choose for the agent.
    # Without the third it runs what it finds compiled in /tmp, where a task of an earlier session may have put it.
    environment={
        "COPILOT_BASH_PATH": "{shell}",
        "COPILOT_DISABLE_LOGIN_SHELL_ENV": "1",
        "NODE_COMPILE_CACHE": f"{places.AGENT_HOME}/.cache/node",
    },
    account_shell=False,
    needs=(
        Need(path="", why="the client itself"),
        *(Need(path=f"{path}/copilot", why="the client's native program") for path in _NATIVE),
    ),
    # By name: a prefix would let COPILOT_GITHUB_TOKEN through.
    task_environment=(
        *("COPILOT_CLI", "COPILOT_CLI_BINARY_VERSION", "COPILOT_AGENT_SESSION_ID"),
        *("GIT_TERMINAL_PROMPT", "GIT_OPTIONAL_LOCKS", "GCM_INTERACTIVE", "GIT_ASKPASS", "SSH_ASKPASS"),
    ),
    degrades=(
        "the tools grep and glob fail: they run rg from a directory that the agent can write",
        "git, pgrep and kill, which the client runs for itself, are refused: it goes on without",
    ),
    unmounted=("detached commands fail, and hooks are not run",),
    open=(
        "the client's program can be run again as the agent, with any arguments",
        "run again with another HOME or XDG_CACHE_HOME, the client runs the code that it finds unpacked there",
    ),
)


def render(endpoints: Sequence[Endpoint], codex_toml: str = "", *, routed: bool = False) -> list[ClientFile]:
    """Return `copilot/mcp-config.json`, with all tools of each server."""
    servers = {
        endpoint.name: {
            "type": endpoint.transport,
            "url": endpoint.url,
            "headers": {"Authorization": f"Bearer {endpoint.bearer.reveal()}"},
            "tools": ["*"],
        }
        for endpoint in endpoints
    }
    content = json.dumps({"mcpServers": servers}, indent=2).encode() + b"\n"
    return [ClientFile(path=f"{_DIRECTORY}/mcp-config.json", content=content)]


def switches(root: str, session_ca: str | None = None) -> Switches:
    """Return the environment that makes Copilot live in our directory; it keeps its own state beside our file."""
    trusts = {} if session_ca is None else {"NODE_EXTRA_CA_CERTS": session_ca}
    return Switches(environment={"COPILOT_HOME": f"{root}/{_DIRECTORY}", **trusts})
