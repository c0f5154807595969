"""SHELL: keeps a zygote for the length of the session: where one ends or falls silent, the next one makes the helpers.

Running helpers are not touched by it: they are the supervisor's own children. Decides nothing: `lifecycle` has backoff
and budget, as for helpers.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable

import trio

from codingagents.supervisor.early import ZygoteProcess
from codingagents.supervisor.lifecycle import Do, Happened, Helper, step
from codingagents.supervisor.processes import Child, Children
from codingagents.supervisor.reaper import Reaper
from codingagents.supervisor.zygote_client import Zygote
from codingagents.trust.errors import ProcessError
from codingagents.trust.events import ZygoteReplaced


class ZygoteKeeper:
    """Clones helpers of whichever zygote there is."""

    def __init__(self, first: ZygoteProcess, children: Children, reaper: Reaper) -> None:
        """Own a zygote that was spawned early."""
        self._zygote = Zygote(first, children)
        self._children = children
        self._reaper = reaper
        self._machine = Helper()
        self._is_there = True
        self._over = ""  # why there will be none any more
        self._changed = trio.Event()

    @property
    def child(self) -> Child:
        """The process of the newest zygote, which may have ended."""
        return self._zygote.child

    async def run(self, replaced: Callable[[ZygoteReplaced], object]) -> None:
        """Replace each zygote that ends, and tell; until `close`, or until too many have ended."""
        while not self._over:
            how = (await self._reaper.wait(self._zygote.child)).how
            self._zygote.close()
            self._is_there = False
            while not self._over and not self._is_there:
                await self._replace(how, replaced)

    async def clone(self, server: str, channel: socket.socket, listener: socket.socket) -> Child:
        """Return a new helper, once there is a zygote; `ProcessError` where it could not make one, or none comes back.

        It is not asked twice: one that ended over the request may have made a helper that has this very channel.
        """
        while not self._is_there and not self._over:
            await self._changed.wait()
        if self._over:
            raise ProcessError(self._over)
        zygote = self._zygote
        try:
            return await zygote.clone(server, channel, listener)
        finally:
            if zygote.is_broken:
                if zygote is self._zygote:
                    self._is_there = False
                self._children.signal(zygote.child, signal.SIGKILL)  # it may live on, stopped

    def close(self) -> None:
        """Let it end, and have no other: EOF is its signal."""
        self._end("the session ends")
        self._zygote.close()

    async def _replace(self, how: str, replaced: Callable[[ZygoteReplaced], object]) -> None:
        self._machine, command = step(self._machine, Happened.EXITED, trio.current_time())
        if command is Do.GIVE_UP:
            self._end(f"the zygote is gone, and was replaced too often; last: {how}")
            return
        with trio.move_on_after(self._machine.backoff):
            while not self._over:
                await self._changed.wait()
        if self._over:
            return
        self._machine, _ = step(self._machine, Happened.BACKOFF_OVER, trio.current_time())
        try:
            process = ZygoteProcess(self._children)
        except OSError:  # no room for one more process; that counts as an end, and the caller tries again
            return
        self._zygote = Zygote(process, self._children)
        self._is_there = True
        replaced(ZygoteReplaced(reason=how, process_pid=process.child.pid))
        self._tell()

    def _end(self, why: str) -> None:
        self._over = self._over or why
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
