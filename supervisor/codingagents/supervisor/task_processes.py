"""SHELL: what task parent and keepers do about the processes below them: hear of their ends, and end them all.

Decides nothing. Both are processes of one thread that have nobody else to wait for.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection
from typing import Final

from codingagents.supervisor import proc_walk

_WALKS: Final = 64  # in search of what forks faster; what is missed then is found by the next call


class ChildSignals:
    """A descriptor that is readable once a child may have ended: SIGCHLD, for poll(2)."""

    def __init__(self) -> None:
        """Take SIGCHLD over from whoever had it before the fork."""
        signal.set_wakeup_fd(-1)
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._read

    def drain(self) -> None:
        """Forget what has been announced: look for children that have ended after this."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read, 4096):
                pass


def keep_only(descriptors: Collection[int]) -> None:
    """Close all descriptors above 2 but these."""
    last = 2
    for descriptor in sorted(descriptors):
        os.closerange(last + 1, descriptor)
        last = descriptor
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))


def kill_below(spared: Collection[int] = ()) -> bool:
    """Kill every process below this one, without `spared`, its children, and theirs; say whether there was any.

    All are stopped before the first is killed, so that none forks while others are looked for. They may wake each
    other, so it is to be called until no child is left.
    """
    stopped: set[int] = set()
    for _ in range(_WALKS):
        found = _signal_below(signal.SIGSTOP, spared)
        if found <= stopped:
            break
        stopped |= found
    return bool(_signal_below(signal.SIGKILL, spared))


def count_below() -> int:
    """Return how many processes there are below this one."""
    return len(_signal_below(0, ()))


def _signal_below(number: int, spared: Collection[int]) -> set[int]:
    found = set()
    for pid, pidfd in proc_walk.below(spared):
        found.add(pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):  # gone; or not yet a task's own, and root's
            signal.pidfd_send_signal(pidfd, number)
        os.close(pidfd)
    return found
