"""CORE: where things lie that more than one part has to find, and what they are called. Makes and opens nothing."""

from __future__ import annotations

from typing import Final

# A session directory, on the host: written by the launcher and the supervisor, each its own file.
SESSION_SPEC: Final = "session.json"
EVENT_LOG: Final = "events.jsonl"
OPERATOR_SOCKET: Final = "operator.sock"  # root's, HTTP/1.1: what lives in the session now
LAUNCHER_SOCKET: Final = "launcher.sock"  # the launcher's: `coding-agents trust reload`

# Below the home directory of whoever runs sessions.
HOST_CONFIG: Final = ".config/coding-agents"
OVERRIDES: Final = "trust-overrides"  # in it: CAs that `coding-agents trust add` put beside a trust store
SESSIONS: Final = "sessions"  # in it: a directory for each session, unless it was given another
TRUSTED: Final = "trusted"  # in it: what proves a session's log, SESSION with one of these suffixes
KEY_SUFFIX: Final = ".pub"
CHECKPOINT_SUFFIX: Final = ".checkpoint"

WORKSPACES: Final = "/var/lib/coding-agents/workspaces"  # SESSION/NAME: the copies that sessions work in, or did
WRAPPERS: Final = "/var/lib/coding-agents/wrappers.json"  # in an image: which clients' programs are wrapped

# In a session, as the supervisor makes them.
RUN_ROOT: Final = "/run/coding-agents"
RUN_SECRETS: Final = "/run/agent-secrets"
RUN_DATA: Final = "/run/agent-data"
RUN_EXPORT: Final = "/run/agent-data-export"
RUN_RUNNER: Final = "/run/agent-task-runner"
RUN_TASKS: Final = "/run/agent-tasks"
CLIENTS: Final = f"{RUN_ROOT}/clients"  # one sticky directory for each client's configuration
AGENT_HOME: Final = f"{RUN_ROOT}/home"
SESSION_CA: Final = f"{RUN_ROOT}/session-ca.pem"  # signs the certificates of helpers that listen on https
SESSION_AUTHORITY: Final = "coding-agents session"  # how the name of what signs them starts
SOCKETS: Final = f"{RUN_ROOT}/mcp"  # NAME.sock of each helper that listens on a unix socket
RUNNER_SOCKET: Final = f"{RUN_RUNNER}/runner.sock"  # root:agentcli 0660: what runs the agent's commands as tasks
RUNNER_EVENTS: Final = f"{RUN_RUNNER}/events.log"  # a link to the session's event log, which is root's to read
SHELLS: Final = f"{RUN_TASKS}/shells"  # the task shells, each named like the shell that it stands for
TASK_HOME: Final = f"{RUN_TASKS}/home"
TASK_FILES: Final = f"{RUN_TASKS}/files"  # open to all and sticky: by which a client and its commands tell each other
TRUST: Final = f"{RUN_ROOT}/trust"  # root's alone: NAME.pem, the trust anchors of each helper

AGENT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # root's, as Debian has it


def socket_path(server: str) -> str:
    """Return where the helper of `server` listens, if that is on a unix socket."""
    return f"{SOCKETS}/{server}.sock"
