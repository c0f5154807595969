"""SHELL: trio's side of `processes.Children`: reaps on SIGCHLD and wakes whoever waits for a child. No policy."""

from __future__ import annotations

import signal

import trio

from codingagents.supervisor.processes import REAP_AT_ONCE, Child, Children, Exit


class Reaper:
    """The one task that reaps. `wait` is right however late it is called: the status is kept with the child."""

    def __init__(self, children: Children) -> None:
        """Reap for `children`; run one instance a process."""
        self._children = children
        self._ended: dict[Child, trio.Event] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reap until cancelled; started once SIGCHLD is received and what ended before was collected."""
        with trio.open_signal_receiver(signal.SIGCHLD) as arrivals:
            await self._reap_all()  # a SIGCHLD from before the receiver stood is gone
            task_status.started()
            async for _ in arrivals:
                await self._reap_all()

    async def _reap_all(self) -> None:
        while len(self.reap()) == REAP_AT_ONCE:
            await trio.lowlevel.checkpoint()

    def reap(self) -> list[Exit]:
        """Collect what has ended, up to REAP_AT_ONCE, and wake its waiters.

        Also for a shutdown that runs after the task was cancelled.
        """
        exits = self._children.reap()
        for child in [child for child in self._ended if child.exit is not None]:
            self._ended.pop(child).set()
        return exits

    async def wait(self, child: Child) -> Exit:
        """Return how `child` ended, at once if it already has."""
        if child.exit is None:
            await self._ended.setdefault(child, trio.Event()).wait()
        else:
            await trio.lowlevel.checkpoint()
        assert child.exit is not None
        return child.exit
