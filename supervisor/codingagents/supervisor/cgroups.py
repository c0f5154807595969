"""SHELL: a control group for all tasks of a session, with their bounds together, where one may be made.

What was written is read back. Decides nothing: where a group can be says `cgroup_rules`, and whether tasks run without,
the layers that the session requires.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, get_args

from codingagents.rewrite.specs import TaskTotals
from codingagents.supervisor import cgroup_rules, kernel
from codingagents.supervisor.cgroup_rules import Controller, Hierarchy

_LEAF: Final = "coding-agents-session"  # of version 2: where what was in our own group goes
_ROUNDS: Final = 16  # of moving what forks meanwhile
_PAUSE: Final = 0.02
_OLD: Final = 60.0  # seconds
_PATIENCE: Final = 1.0  # seconds for the kernel to take out what has just ended


class _UndelegatedError(Exception):
    """Why there can be no group, as a clause."""


@dataclass(slots=True)
class TaskGroup:
    """The group of one session, made once something is moved into it. `proc` is where /proc/self is read."""

    name: str
    totals: TaskTotals
    is_pid1: bool = False
    may_mount: bool = False  # in a mount namespace of our own
    proc: str = "/proc/self"
    # Of each controller, where our own group was at first: it may have moved since (`_make_room`).
    _places: dict[Controller, Hierarchy | None] = field(default_factory=dict)
    _made: set[str] = field(default_factory=set)  # directories

    def take(self, pid: int) -> tuple[str, bool]:
        """Move a process into the group; what it starts is in it. Returns what holds as a clause, and whether all does.

        ("", True) where nothing is to be bounded.
        """
        said, held = [], True
        wanted = [each for each in get_args(Controller) if cgroup_rules.settings(each, 1, self.totals)]
        for controller in wanted:
            try:
                if not self._places:
                    self._look(wanted)
                said.append(self._bound(controller, pid))
            except _UndelegatedError as error:
                said.append(f"{controller} not delegated: {error}")
                held = False
        return "; ".join(said), held

    def remove(self) -> str:
        """Remove the group, once nothing is in it; returns why it cannot be, as a clause, or ""."""
        for directory in sorted(self._made):
            with self._writable(os.path.dirname(directory)):
                if why := _remove(directory):
                    return f"{directory}: {why}"
            self._made.discard(directory)
        return ""

    def _look(self, controllers: Sequence[Controller]) -> None:
        with _undelegated():
            groups = cgroup_rules.own_groups(_read(f"{self.proc}/cgroup"))
            mounts = _read(f"{self.proc}/mountinfo")
        self._places = {each: cgroup_rules.hierarchy(each, groups, mounts) for each in controllers}
        for found in self._places.values():
            if found is not None:
                _sweep(found.directory)

    def _bound(self, controller: Controller, pid: int) -> str:
        found = self._places[controller]
        if found is None:
            raise _UndelegatedError("no hierarchy is mounted that has it")
        with self._writable(found.directory):
            return self._bound_in(controller, found, pid)

    def _bound_in(self, controller: Controller, found: Hierarchy, pid: int) -> str:
        wanted = cgroup_rules.settings(controller, found.version, self.totals)
        directory = f"{found.directory}/{self.name}"
        self._make(controller, found, wanted[0][0])
        for name, value in wanted:
            with _undelegated():
                if name not in cgroup_rules.OPTIONAL or os.path.exists(f"{directory}/{name}"):
                    _write(f"{directory}/{name}", value)
        with _undelegated():
            _write(f"{directory}/cgroup.procs", str(pid))
            held = _read(f"{directory}/{wanted[0][0]}").strip()
            if str(pid) not in _read(f"{directory}/cgroup.procs").split():
                raise _UndelegatedError("the process was not moved")
        return f"{controller} {held} (cgroup v{found.version})"

    @contextlib.contextmanager
    def _writable(self, directory: str) -> Iterator[None]:
        """Have a hierarchy that the engine mounted read-only writable for the block, in our own mount namespace.

        Not for longer: version 1 has files in it that everybody may write to.
        """
        point = directory
        while self.may_mount and not os.path.ismount(point):
            point = os.path.dirname(point)
        flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
        try:
            remounted = self.may_mount and bool(os.statvfs(point).f_flag & kernel.MS_RDONLY)
            if remounted:
                kernel.mount("none", point, None, flags)
        except OSError:  # a security module forbids it: what follows says that it is read-only
            remounted = False
        try:
            yield
        finally:
            if remounted:
                kernel.mount("none", point, None, flags | kernel.MS_RDONLY)

    def _make(self, controller: str, found: Hierarchy, needed: str) -> None:
        """Make the group's directory; in version 2 its files are there where our own group hands the controller on."""
        directory = f"{found.directory}/{self.name}"
        with _undelegated(), contextlib.suppress(FileExistsError):
            os.mkdir(directory)
        self._made.add(directory)
        if os.path.exists(f"{directory}/{needed}"):
            return
        # No group but the root may hand on controllers and have processes. PID 1 of a container may move its own away;
        # elsewhere they are others', or a service manager's.
        if found.is_root and self.is_pid1 and os.path.exists(f"{found.directory}/cgroup.type"):
            with _undelegated():
                _make_room(found.directory, controller)
        if not os.path.exists(f"{directory}/{needed}"):
            raise _UndelegatedError(f"{found.directory}/cgroup.subtree_control has it not")


def _remove(directory: str) -> str:
    """Remove a group; returns why it cannot be, or ""."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return ""
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                return os.strerror(error.errno or 0)
            time.sleep(_PAUSE)
        else:
            return ""


def _make_room(directory: str, controller: str) -> None:
    leaf = f"{directory}/{_LEAF}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(leaf)
    for _ in range(_ROUNDS):
        there = _read(f"{directory}/cgroup.procs").split()
        if not there:
            break
        for pid in there:
            with contextlib.suppress(ProcessLookupError):
                _write(f"{leaf}/cgroup.procs", pid)
    _write(f"{directory}/cgroup.subtree_control", f"+{controller}")


def _sweep(directory: str) -> None:
    """Remove the groups of sessions that were killed: one in use is busy, and a new one may be about to be used."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(directory)):
            if entry.name.startswith(cgroup_rules.group_name("")) and time.time() - entry.stat().st_mtime > _OLD:
                with contextlib.suppress(OSError):
                    os.rmdir(entry.path)


@contextlib.contextmanager
def _undelegated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _UndelegatedError(f"{error.filename}: {_name(error)}") from None


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), path) from None
    finally:
        os.close(descriptor)


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "?")
