"""SHELL: the namespaces of all tasks of a session: mounts with masks, processes with a /proc of their own, and IPC.

What `task_parent` goes on in, as PID 1. Where one of them cannot be had, none is. Decides nothing: which masks of the
engine's are repeated is `proc_masks`' to say.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from codingagents.supervisor import kernel
from codingagents.supervisor.proc_masks import Repeated, repeated
from codingagents.supervisor.role_layers import RoleLayers
from codingagents.trust import cloning, errors, linux

_NAMESPACES: Final = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID
_EMPTY: Final = "mode=000,size=4k,nr_inodes=1"
_NOTHING_RUNS: Final = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
_MADE: Final = b"made"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What was made: `why` is the errno's name, or the cause, where there are no namespaces."""

    why: str
    number: str = ""  # of this process, in them
    masks: tuple[str, ...] = ()
    before: tuple[str, ...] = ()  # what each mask covers looked like, as `_seen_at` says it

    def try_as_task(self, layers: RoleLayers) -> None:
        """Look, as a task, at what is masked, and at who is the first process."""
        if self.why:
            for layer in ("pidns", "mountns"):
                layers.observe(layer, "clone(CLONE_NEWNS | CLONE_NEWPID), and mounts in it", self.why)
            return
        layers.observe("pidns", "getpid() in the task parent", self.number)
        for path, control in zip(self.masks, self.before, strict=True):
            layers.observe("mountns", f"mode of {path}", _seen_at(path), control)


def enter(masks: Sequence[str]) -> Sandbox:
    """Go on in namespaces of the tasks, in a clone of this process that has its parent; this process ends.

    Where that cannot be: return why, in this process, and nothing is changed.
    """
    there = tuple(path for path in masks if os.path.isdir(path))
    before = tuple(map(_seen_at, there))
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        clone, pidfd = cloning.clone(cloning.CLONE_PARENT | _NAMESPACES)
    except OSError as error:
        return Sandbox(errno.errorcode.get(error.errno or 0, "?"))
    if clone == 0:
        os.close(reading)
        try:
            _furnish(there)
        except OSError as error:
            os.write(writing, errno.errorcode.get(error.errno or 0, "?").encode())
            os._exit(errors.EXIT_ENGINE)
        os.write(writing, _MADE)
        os.close(writing)
        return Sandbox("", str(os.getpid()), there, before)
    os.close(pidfd)
    os.close(writing)
    with open(reading, "rb") as report:
        said = report.read()
    if said == _MADE:
        os._exit(errors.EXIT_OK)
    return Sandbox(said.decode() or "it ended")


def _furnish(masks: Sequence[str]) -> None:
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    for path in masks:
        kernel.mount("coding-agents", path, "tmpfs", _NOTHING_RUNS | kernel.MS_RDONLY, _EMPTY)
    _mount_proc()
    with contextlib.suppress(OSError):  # some kernels have no such
        kernel.unshare(kernel.CLONE_NEWIPC)


def _mount_proc() -> None:
    """Mount a /proc of this PID namespace in which tasks see tasks, and over it what the engine has mounted there."""
    with open("/proc/self/mountinfo", "rb") as file:
        again = repeated(file.read())
    held = [(mask, _hold(mask)) for mask in again]
    read_only = os.statvfs("/proc").f_flag & kernel.MS_RDONLY
    kernel.mount("proc", "/proc", "proc", _NOTHING_RUNS | read_only, "hidepid=2,gid=0")
    for mask, descriptor in held:
        target = os.fsdecode(mask.target)
        # What is of procfs itself is of the new one; anything else is the engine's own file or directory.
        source = target if mask.of_proc else f"/proc/self/fd/{descriptor}"
        kernel.mount(source, target, None, kernel.MS_BIND)
        if mask.of_proc:
            kernel.mount("none", target, None, kernel.MS_BIND | kernel.MS_REMOUNT | _NOTHING_RUNS | mask.read_only)
        os.close(descriptor)


def _hold(mask: Repeated) -> int:
    return os.open(mask.target, os.O_PATH | os.O_CLOEXEC)


def _seen_at(path: str) -> str:
    """Return the mode of a directory and whether it can be listed, as whoever asks."""
    listed = linux.attempt(os.listdir, path)
    return f"{stat.S_IMODE(os.stat(path).st_mode):04o}, listing it: {listed}"
