"""SHELL: finds what the kernel runs for a script, interpreter by interpreter, as it would look for them. No decision.

A script was chosen by an untrusted process: only a regular file is opened, as the role whose it is, for one line.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from codingagents.supervisor import kernel
from codingagents.supervisor.bounded import BoundedCache
from codingagents.supervisor.interpreters import HEAD, MAX_REWRITES, interpreter_of
from codingagents.supervisor.programs import Program, local_mounts
from codingagents.supervisor.tracee_paths import find, path_in_proc

_KEPT: Final = 4096  # first lines of files that keep their bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreted:
    """What a file's `#!` line leads to; nothing where it has none, or where it is root's and closed to the role."""

    names: tuple[bytes, ...] = ()  # symlinks followed, or as written where nothing is there
    too_deep: bool = False  # there are more: the kernel answers ELOOP


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripts:
    """Reads scripts for one role; not for two threads at once.

    `file_ids` is whose (uid, gid) to be while a file is opened, with `groups`; None: as the thread is. `mounts` is
    `programs.local_mounts()`, `procs` is `tracee_paths.proc_mounts()`; `apart` is said there.
    """

    file_ids: tuple[int, int] | None
    groups: tuple[int, ...]
    procs: tuple[bytes, ...]
    apart: bool = False
    mounts: frozenset[int] = field(default_factory=local_mounts)
    _named: BoundedCache[kernel.Stat, bytes | None] = field(default_factory=lambda: BoundedCache(_KEPT))

    def interpreters(self, pid: int, program: Program) -> Interpreted:
        """Return what process `pid` would run for `program`.

        Raises as `tracee_paths.find` does, and `OSError` for what cannot be read: the kernel runs a script that nobody
        may read, and its `#!` line can hold all of a program (`-c…`). Only root's own may be closed to the role.
        """
        name = self._named_by(program)
        if not name:
            return Interpreted()
        found: list[bytes] = []
        with contextlib.ExitStack() as opened:
            while name:
                if len(found) == MAX_REWRITES:
                    return Interpreted(names=tuple(found), too_deep=True)
                base = b"" if name.startswith(b"/") else path_in_proc(pid, b"cwd", apart=self.apart)
                resolved, descriptor = find(pid, base + b"/" + name, self.procs, apart=self.apart)
                found.append(resolved or (os.readlink(b"/proc/%d/cwd" % pid) + b"/" + name if base else name))
                name = None
                if descriptor >= 0:
                    name = self._named_by(opened.enter_context(Program(descriptor)))
        return Interpreted(names=tuple(found))

    def _named_by(self, program: Program) -> bytes | None:
        if not program.is_regular:
            return None
        keeps = program.keeps(self.mounts, time.time_ns())
        if keeps and program.seen in self._named:
            return self._named[program.seen]
        try:
            with self._as_the_role():
                name = interpreter_of(program.head(HEAD))
        except PermissionError:
            if program.seen.uid != 0:
                raise
            return None
        if keeps:
            self._named[program.seen] = name
        return name

    def _as_the_role(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.file_ids is None else _lent(self.file_ids, self.groups)


@contextlib.contextmanager
def _lent(ids: tuple[int, int], groups: tuple[int, ...]) -> Iterator[None]:
    """Be a role in this thread for the block, as far as files are concerned."""
    own = os.getgroups()
    with kernel.filesystem_identity(*ids):
        kernel.set_groups_of_this_thread(groups)
        try:
            yield
        finally:
            kernel.set_groups_of_this_thread(own)
