"""SHELL: puts values into an administrator's JSON settings of a client, in a container, and takes them out again.

What such a file holds besides stays. Ours are recognised by what they name, the task shells, so that those of a session
that was killed are not kept as if they were an administrator's. Never for the `local` engine: that /etc is the
machine's.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from codingagents.rewrite import places
from codingagents.rewrite.clients.base import Settings

MAX_BYTES: Final = 1024 * 1024
Document: TypeAlias = dict[str, object]


@dataclass(slots=True)
class ManagedSettings:
    """The files that were changed: what is to stand there at the end, None for no file."""

    _before: dict[str, bytes | None] = field(default_factory=dict)

    def put(self, settings: Settings) -> bool:
        """Have `settings` hold, and say whether they do: the file may be no JSON object, or not ours to write."""
        try:
            found = _read(settings.path)
            document, had_ours = _parse(found, settings.content)
            for name, table in settings.content.items():
                inner = document.setdefault(name, {})
                if not isinstance(inner, dict):
                    return False
                inner.update(table)
            before = _dump(_without(document, settings.content)) if had_ours else found
            _write(settings.path, _dump(document))
        except (OSError, ValueError):
            return False
        self._before[settings.path] = None if before == _dump({}) and had_ours else before
        return True

    def restore(self) -> None:
        """Put back what stood there; `OSError` where that cannot be."""
        for path, before in list(self._before.items()):
            if before is None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                with contextlib.suppress(OSError):  # others have files in it, or it was there before
                    os.rmdir(os.path.dirname(path))
            else:
                _write(path, before)
            del self._before[path]


def _parse(found: bytes | None, ours: Mapping[str, Mapping[str, str]]) -> tuple[Document, bool]:
    """Return the object in a file without what a former session left, and whether it had left something."""
    document = {} if found is None else json.loads(found)
    if not isinstance(document, dict):
        raise ValueError("no JSON object")
    clean = _without(document, ours)
    return clean, clean != document


def _without(document: Document, ours: Mapping[str, Mapping[str, str]]) -> Document:
    """Return `document` without those keys of `ours` that name a task shell."""
    clean: Document = {}
    for name, table in document.items():
        if name in ours and isinstance(table, dict):
            left = any(_is_ours(table.get(key)) for key in ours[name])  # all of them came together
            kept = {key: value for key, value in table.items() if not (left and _is_left(key, value, ours[name]))}
            if kept or not table:
                clean[name] = kept
        else:
            clean[name] = table
    return clean


def _is_left(key: str, value: object, ours: Mapping[str, str]) -> bool:
    return key in ours and (value == ours[key] or _is_ours(value))


def _is_ours(value: object) -> bool:
    return isinstance(value, str) and value.startswith(f"{places.SHELLS}/")


def _dump(document: Document) -> bytes:
    return json.dumps(document, indent=2).encode() + b"\n"


def _read(path: str) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError("too large")
    return data


def _write(path: str, content: bytes) -> None:
    """Put `content` in the file's place at once, readable by all."""
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    new = f"{path}.coding-agents"
    with contextlib.suppress(FileNotFoundError):  # of a session that was killed in here
        os.unlink(new)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(descriptor, 0o644)
        os.rename(new, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
