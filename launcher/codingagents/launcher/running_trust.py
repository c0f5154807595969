"""SHELL: which sessions that run now trust an override: read from their specifications, asked of their sockets.

Finds sessions in their usual place only, not those of `--session-dir`. Changes nothing.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from codingagents.rewrite import places
from codingagents.rewrite.private_files import read_private
from codingagents.rewrite.specs import SessionSpec
from codingagents.trust import wire
from codingagents.trust.errors import AgentError

_MAX_SPEC = 64 * 1024 * 1024  # bytes; each server has a whole store in it


def sessions_with(base: Path, override: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each running session below `base` (`~/.config/coding-agents`) whose servers trust `override`, with these.

    A session whose specification cannot be read is passed over: what is told here is a courtesy.
    """
    for directory in sorted((base / places.SESSIONS).glob("*")):
        if not _is_running(directory):
            continue
        with contextlib.suppress(AgentError, FileNotFoundError):
            text = read_private(directory / places.SESSION_SPEC, limit=_MAX_SPEC)
            spec: SessionSpec = wire.decode(SessionSpec, text.strip())
            servers = [
                each.name
                for each in spec.remotes
                if each.tls is not None and override in {known.name for known in each.tls.overrides}
            ]
            if servers:
                yield spec.session, servers


def _is_running(directory: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(1)
        try:
            asking.connect(str(directory / places.OPERATOR_SOCKET))
        except (OSError, ValueError):
            return False
    return True
