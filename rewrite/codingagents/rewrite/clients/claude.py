"""CORE: Claude Code: `--mcp-config FILE --strict-mcp-config`, JSON with `mcpServers`.

An entry without `type` is skipped by Claude, and `disabled` is ignored, so a server that is off is left out.
`NODE_EXTRA_CA_CERTS` adds to the authorities that it trusts.

Its shell is what `CLAUDE_CODE_SHELL` names, or `SHELL`; the `env` table of a project's settings beats the environment,
and is beaten by that of `--settings` and of the managed settings.
Claude expands `${V}` in this file: nothing but our own URL and bearer, which hold no `$`, is written into it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from codingagents.rewrite import places
from codingagents.rewrite.clients.base import ClientFile, Endpoint, Need, Settings, Shelling, Switches, Transport

NAME = "claude"
TRANSPORTS: frozenset[Transport] = frozenset({"http", "sse"})
_FILE = "claude/mcp.json"
# Its commands tell it their last directory by files in its temporary one: which so is one of this session alone, where
# nothing of theirs lies about afterwards, and nothing of an earlier session's lies before.
_SHELL = {"CLAUDE_CODE_SHELL": "{shell}", "SHELL": "{shell}", "CLAUDE_CODE_TMPDIR": places.TASK_FILES}
# The task shell runs as the agent until it has handed its command on: what a project's settings name may not be loaded
# into it, nor into the client. To ld.so(8), the C library and Bun an empty value is none.
_LOADING = ("LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "GCONV_PATH", "LOCPATH", "BUN_OPTIONS", "BUN_INSPECT")
_SETTINGS = {"env": {**dict.fromkeys(_LOADING, ""), **_SHELL}}
SHELLING = Shelling(
    measured="2.1.330",
    environment=_SHELL,
    account_shell=False,
    needs=(Need(path="", why="the client itself"),),
    settings=(
        Settings(path="claude/settings.json", content=_SETTINGS, arguments=("--settings", "{file}")),
        Settings(path="/etc/claude-code/managed-settings.json", content=_SETTINGS),
    ),
    task_environment=(
        *("CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_SESSION_ID"),
        *("CLAUDE_CODE_CHILD_SESSION", "CLAUDE_CODE_SESSION_ATTENDED"),
        *("AI_AGENT", "COREPACK_ENABLE_AUTO_PIN", "NoDefaultCurrentDirectoryInExePath"),
    ),
    degrades=(
        "git and ps, which the client runs for itself, are refused: it goes on without",
        "outputs that the client keeps in files are for its Read tool: commands cannot read them",
    ),
    unmounted=(
        "hooks are not run and fail open: one that would block a tool no longer does",
        "status lines and key helpers are not run",
    ),
    open=("the client's program can be run again as the agent, with any arguments",),
)


def render(endpoints: Sequence[Endpoint], codex_toml: str = "", *, routed: bool = False) -> list[ClientFile]:
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
