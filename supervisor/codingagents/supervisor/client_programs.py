"""SHELL: finds a client's programs as they are installed: what each leads to, and what the kernel runs for it.

Looks with root's eyes, before the agent runs; executes nothing. What it means is `routing`'s to say.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence

from codingagents.rewrite import places
from codingagents.rewrite.clients.base import Need
from codingagents.rewrite.specs import SessionSpec
from codingagents.supervisor import elf, wrapping
from codingagents.supervisor.interpreters import HEAD, MAX_REWRITES, interpreter_of
from codingagents.supervisor.routing import Installed, Table

_WILDCARDS = frozenset("*?")  # a path that holds one cannot be said in a rule
_LEADS = 8  # words of a `#!` line that are looked at


class Finder:
    """Finds programs as a session's agent would, by its PATH and working directory."""

    def __init__(self, spec: SessionSpec) -> None:
        """Hold what a search starts from."""
        self._directories = spec.environment.get("PATH", places.SYSTEM_PATH).split(":")
        self._start = spec.working_directory
        uids, gid = spec.uids, spec.uids.workspace_gid
        owner = spec.task_owner or (uids.task, uids.task)
        self._ids = ({uids.agent, uids.task, owner[0]}, {uids.agent, uids.task, owner[1], gid})

    def command(self, name: str) -> list[Installed]:
        """Return what a command's name leads to, [] where nothing is there; with it what a wrapper of ours stands for.

        The last is the client's own program.
        """
        found = self._installed(self._in_path(name))
        if found is None:
            return []
        behind = wrapping.vendor_of(found.real)
        vendor = None if behind is None else self._installed(behind)
        return [found] if vendor is None else [found, vendor]

    def needs(self, table: Table, program: Installed) -> Iterator[tuple[Installed, Need]]:
        """Yield each program that a table names, where it is there, once."""
        seen = {program.real}
        for pattern, need in table.needs(program):
            for path in sorted(glob.glob(pattern)):
                installed = self._installed(path)
                if installed is not None and installed.real not in seen:
                    seen.add(installed.real)
                    yield installed, need

    def all(self, paths: Sequence[str]) -> list[Installed]:
        """Return those of `paths` that are there."""
        return [installed for path in paths if (installed := self._installed(path)) is not None]

    def _in_path(self, name: str) -> str:
        """Return the path that execvp(3) would execute; `name` itself where it has a slash, or is nowhere."""
        if "/" in name:
            return name
        candidates = (os.path.join(directory, name) for directory in self._directories)
        return next((path for path in candidates if os.access(path, os.X_OK) and not os.path.isdir(path)), name)

    def _installed(self, path: str) -> Installed | None:
        real = os.path.realpath(os.path.join(self._start, path))
        if not _is_program(real):
            return None
        interpreters, line = self._interpreters(real)
        by_env = self._by_env(line)
        files = [real, *interpreters, *(by_env or ("",))[1:]]
        loaders = {loader for file in files if (loader := _loader(file))}
        return Installed(
            path=path,
            real=real,
            interpreters=interpreters,
            by_env=by_env,
            loaders=tuple(sorted(loaders)),
            replaceable=_replaceable(real, *self._ids),
        )

    def _interpreters(self, real: str) -> tuple[tuple[str, ...], list[str]]:
        """Return what the kernel runs for a file, and the words of its own `#!` line."""
        found: list[str] = []
        name, words = real, list[str]()
        while len(found) < MAX_REWRITES:
            head = _read(name, HEAD)
            interpreter = interpreter_of(head)
            if not interpreter:
                break
            if not words:
                words = head[2:].split(b"\n")[0].decode(errors="surrogateescape").split()[:_LEADS]
            name = os.path.realpath(os.path.join(self._start, os.fsdecode(interpreter)))
            found.append(name)
        return tuple(found), words

    def _by_env(self, line: Sequence[str]) -> tuple[str, str] | None:
        """Return the word that env(1) looks for in PATH, and where that leads."""
        if len(line) != 2 or os.path.basename(line[0]) != "env" or line[1].startswith("-") or "=" in line[1]:
            return None
        real = os.path.realpath(self._in_path(line[1]))
        return (line[1], real) if _is_program(real) else None


def links_resolved(trees: Sequence[str]) -> list[str]:
    """Return where each tree leads."""
    return [os.path.realpath(tree) for tree in trees]


def shell_names() -> list[str]:
    """Return which shells this machine has, of those that clients are told of."""
    directories = ("/usr/bin", "/bin")
    return [name for name in ("bash", "zsh", "sh") if any(os.access(f"{at}/{name}", os.X_OK) for at in directories)]


def task_shells() -> list[str]:
    """Return the paths of the task shells that there are."""
    try:
        names = sorted(os.listdir(places.SHELLS))
    except FileNotFoundError:
        return []
    return [path for name in names if not name.startswith(".") and _is_program(path := f"{places.SHELLS}/{name}")]


def shells_of_the_system(shells: Sequence[str]) -> Mapping[str, str]:
    """Return which task shell is to lie over which shell of the system, links of the latter resolved."""
    over: dict[str, str] = {}
    for shell in shells:
        for directory in ("/usr/bin", "/bin", "/usr/local/bin"):
            real = os.path.realpath(f"{directory}/{os.path.basename(shell)}")
            if _is_program(real):
                over.setdefault(real, shell)
    return over


def _is_program(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o111) and not _WILDCARDS & set(path)


def _read(path: str, size: int, offset: int = 0) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.pread(descriptor, size, offset)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _loader(path: str) -> str:
    """Return what an ELF program is loaded by, links resolved; "" where by none."""
    at = elf.interpreter_at(_read(path, elf.HEAD)) if path else None
    name = b"" if at is None else _read(path, at[1], at[0]).rstrip(b"\0")
    return os.path.realpath(name).decode(errors="surrogateescape") if name.startswith(b"/") else ""


def _replaceable(path: str, uids: Collection[int], gids: Collection[int]) -> bool:
    """Say whether one of `uids` may write the file, or put another in its place or in that of a directory above."""

    def writable(found: os.stat_result) -> bool:
        by_group = bool(found.st_mode & stat.S_IWGRP) and found.st_gid in gids
        return found.st_uid in uids or by_group or bool(found.st_mode & stat.S_IWOTH)

    child = os.lstat(path)
    if writable(child):
        return True
    while path != "/":
        path = os.path.dirname(path)
        directory = os.lstat(path)
        kept = bool(directory.st_mode & stat.S_ISVTX) and not {directory.st_uid, child.st_uid} & {*uids}
        if writable(directory) and not kept:
            return True
        child = directory
    return False
