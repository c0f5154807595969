"""SHELL: the two files of a session directory: session.json in, events.jsonl out. Root's alone; links are refused."""

from __future__ import annotations

import os
import stat

from codingagents.rewrite import places
from codingagents.rewrite.specs import SessionSpec
from codingagents.trust import wire
from codingagents.trust.errors import NotFoundError, ProcessError, WireError


def read_session_spec(session_dir: str) -> SessionSpec:
    """Return the session's specification; `NotFoundError` or `ProcessError` with a sentence where there is none."""
    path = os.path.join(session_dir, places.SESSION_SPEC)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise NotFoundError(f"{path}: {error.strerror}; `coding-agents run` writes it") from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        os.close(descriptor)
        raise ProcessError(f"{path} must be a regular file that only its owner can write; `chmod go-w` it")
    with open(descriptor, "rb") as file:
        data = file.read(wire.MAX_LINE + 1)
    try:
        spec: SessionSpec = wire.decode(SessionSpec, data)
    except WireError as error:
        raise ProcessError(f"{path}: {error}; launcher and supervisor must be of one version") from None
    return spec


def open_event_log(session_dir: str) -> int:
    """Return a descriptor that appends to a new event log; `ProcessError` where there is one already."""
    path = os.path.join(session_dir, places.EVENT_LOG)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        raise ProcessError(f"{path} exists: a session directory serves one session only") from None
    except OSError as error:
        raise ProcessError(f"{path}: {error.strerror}") from None
