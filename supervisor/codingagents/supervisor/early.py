"""SHELL: spawns what takes longest to start, before the supervisor loads its own half. Imports nothing heavy.

Both processes wait to be told anything: the confine stub for its specification, the zygote for a request.
"""

from __future__ import annotations

import os
import socket
import sys

from codingagents.supervisor.processes import Children

TYPE_CHECKING = False  # see signals.py
if TYPE_CHECKING:
    from collections.abc import Mapping


def _module(name: str, descriptor: int) -> list[str]:
    return [sys.executable, "-I", "-m", f"codingagents.{name}", "--fd", str(descriptor)]


class StubProcess:
    """A confine stub that was told nothing yet, and our end of its channel."""

    def __init__(self, children: Children, *, stdio: Mapping[int, int]) -> None:
        """Spawn it with the descriptors that its role will have as 0, 1 and 2."""
        self.channel, theirs = socket.socketpair()
        with theirs:
            descriptor = max([2, *stdio]) + 1
            self.child = children.spawn(
                _module("supervisor.confine", descriptor),
                env={},
                fds={**stdio, descriptor: theirs.fileno()},
            )


class TaskParentProcess:
    """The process that makes all tasks, told nothing yet, and our end of its channel."""

    def __init__(self, children: Children) -> None:
        """Spawn it; what it has to say goes to our standard error."""
        self._children = children
        self.channel, theirs = socket.socketpair()
        with theirs:
            # Another one once `ConfinedRole.confine` is through: see `SandboxMade`.
            self.child = children.spawn(_module("supervisor.task_parent", 3), env={}, fds={2: 2, 3: theirs.fileno()})

    def moved_to(self, pid: int, pidfd: int) -> None:
        """Know which process it is from now on; takes over `pidfd`."""
        if pid == self.child.pid:
            os.close(pidfd)
        else:
            self.child = self._children.adopt(pid, pidfd)


class ZygoteProcess:
    """A zygote that is still importing, and our end of its channel."""

    def __init__(self, children: Children) -> None:
        """Spawn it; what it has to say goes to our standard error."""
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.child = children.spawn(_module("proxies.zygote", 3), env={}, fds={2: 2, 3: theirs.fileno()})
