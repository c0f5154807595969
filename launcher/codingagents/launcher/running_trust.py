"""SHELL: which sessions run, and which of their servers trust an override: their specifications and sockets tell.

Finds sessions in their usual place only, not those of `--session-dir`. Changes nothing.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from codingagents.rewrite import places
from codingagents.rewrite.private_files import read_private
from codingagents.rewrite.specs import RemoteSpec, SessionSpec
from codingagents.trust import wire
from codingagents.trust.errors import AgentError

_MAX_SPEC = 64 * 1024 * 1024  # bytes; each server has a whole store in it


def running_sessions(base: Path) -> dict[str, list[RemoteSpec]]:
    """Return the servers of each running session below `base` (`~/.config/coding-agents`), by the session's id.

    A session whose specification cannot be read is passed over: what is told here is a courtesy.
    """
    found = {}
    for directory in sorted((base / places.SESSIONS).glob("*")):
        if _is_running(directory):
            with contextlib.suppress(AgentError, FileNotFoundError):
                text = read_private(directory / places.SESSION_SPEC, limit=_MAX_SPEC)
                spec: SessionSpec = wire.decode(SessionSpec, text.strip())
                found[spec.session] = spec.remotes
    return found


def sessions_with(base: Path, override: str) -> dict[str, list[str]]:
    """Return the names of the servers that trust `override` in each running session that has such servers."""
    trusting = {
        session: [
            each.name
            for each in remotes
            if each.tls is not None and override in {known.name for known in each.tls.overrides}
        ]
        for session, remotes in running_sessions(base).items()
    }
    return {session: servers for session, servers in trusting.items() if servers}


def _is_running(directory: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(1)
        try:
            asking.connect(str(directory / places.OPERATOR_SOCKET))
        except (OSError, ValueError):
            return False
    return True
