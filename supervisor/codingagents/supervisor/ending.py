"""SHELL: takes a session apart, whatever of it was made, and says why it ended: the counterpart of `boot`.

In this order: the agent's tree and all tasks, helpers, zygote, what they left running, trap, log, accounts,
directories, control channel. Makes nothing, and does not decide when a session ends: whoever does gives the reason and
the exit code (`Ending.because`).
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

import trio

from codingagents.rewrite.specs import UidPlan
from codingagents.supervisor import processes
from codingagents.supervisor.accounts import AccountFiles
from codingagents.supervisor.complaints import complain
from codingagents.supervisor.confined import ConfinedRole
from codingagents.supervisor.control import Control
from codingagents.supervisor.early import StubProcess
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.helpers import HelperKeeper
from codingagents.supervisor.managed_settings import ManagedSettings
from codingagents.supervisor.processes import Child, Children
from codingagents.supervisor.reaper import Reaper
from codingagents.supervisor.rundirs import RunDirs
from codingagents.supervisor.slots import Slot
from codingagents.supervisor.task_service import TaskService
from codingagents.supervisor.zygote_keeper import ZygoteKeeper
from codingagents.trust import errors
from codingagents.trust.errors import ProcessError
from codingagents.trust.events import SessionEnded

AGENT_GRACE: Final = 5.0  # seconds between TERM and KILL for what is left of the agent's tree
KILL_SECONDS: Final = 5.0
HELPER_GRACE: Final = 6.0  # a helper gives its requests five, and then says that it did
_TRAP_SECONDS: Final = 1.0  # for the trap's thread to end


@dataclass(slots=True, kw_only=True)
class Made:
    """What the start has made so far, for the end to take apart."""

    stub: StubProcess
    zygote: ZygoteKeeper
    control: Control | None
    log: EventLog | None = None
    accounts: AccountFiles | None = None
    managed: ManagedSettings | None = None
    dirs: RunDirs | None = None
    role: ConfinedRole | None = None
    tasks: TaskService | None = None
    keepers: list[HelperKeeper] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)


class Ending:
    """Why a session ends, and with which code; the first cause wins."""

    def __init__(self, children: Children, reaper: Reaper, uids: UidPlan) -> None:
        """Know of no cause yet; `uids` are the session's own, whose processes all end with it."""
        self.reason = ""
        self.code = 0
        self._children = children
        self._reaper = reaper
        self._uids = uids

    def because(self, reason: str, code: int) -> None:
        """Name a cause and the session's exit code; without effect where one has been named."""
        if not self.reason:
            self.reason, self.code = reason, code

    async def take_apart(self, made: Made) -> None:
        """Leave nothing behind; the caller shields this from cancellation."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_agent, made)
            if made.tasks is not None:
                nursery.start_soon(made.tasks.stop, AGENT_GRACE)
        async with trio.open_nursery() as nursery:
            for keeper in made.keepers:
                nursery.start_soon(keeper.stop, HELPER_GRACE)
        made.zygote.close()
        for keeper in made.keepers:
            await keeper.ended.wait()
        await self._end_child(made.zygote.child, HELPER_GRACE)
        if not processes.is_pid1():
            with trio.move_on_after(KILL_SECONDS):
                await self._sweep(self._uids.servers.values())  # what a helper that is not ours any more forked
        for slot in made.slots:
            slot.close()
        if made.role is not None and made.role.trap is not None:
            made.role.trap.join(_TRAP_SECONDS)
        if made.log is not None:
            made.log.close(SessionEnded(exit_code=self.code, reason=self.reason))
        await self._clear(made)
        if made.control is not None:
            made.control.close()

    async def _clear(self, made: Made) -> None:
        """Take back what was written outside of the session's own directory."""
        try:
            if made.accounts is not None:
                await trio.to_thread.run_sync(made.accounts.remove)
        except ProcessError as error:
            complain(str(error))
        try:
            if made.managed is not None:
                await trio.to_thread.run_sync(made.managed.restore)
        except OSError as error:
            complain(f"cannot put back {error.filename}: {error.strerror}")
        try:
            if made.dirs is not None:
                made.dirs.remove()
        except ProcessError as error:
            complain(str(error))

    async def _end_agent(self, made: Made) -> None:
        """End the agent and whatever else runs as one of the session's untrusted UIDs."""
        if made.role is not None:
            made.role.close()
        else:
            made.stub.channel.close()
        child = made.stub.child
        untrusted = {self._uids.agent, self._uids.task}
        self._children.signal_users(untrusted, signal.SIGTERM)
        self._children.signal_users(untrusted, signal.SIGCONT)  # what is stopped cannot end
        with trio.move_on_after(AGENT_GRACE) as grace:
            await self._reaper.wait(child)
            while self._children.signal_users(untrusted, 0):  # noqa: ASYNC110 -- nothing announces the last of them
                await trio.sleep(0.02)
        if grace.cancelled_caught or not processes.is_pid1():  # what a walk misses ends with its PID namespace
            with trio.move_on_after(KILL_SECONDS):  # what is stuck in the kernel must not hold up the end
                await self._kill(child, untrusted)

    async def _kill(self, child: Child, uids: Collection[int]) -> None:
        """Kill the stub and all that runs as one of `uids`."""
        self._children.signal(child, signal.SIGKILL)
        await self._sweep(uids)
        await self._reaper.wait(child)
        while self._children.signal_users(uids, 0):  # noqa: ASYNC110 -- likewise
            await trio.sleep(0.02)

    async def _sweep(self, uids: Collection[int]) -> None:
        """Kill all that runs as one of `uids`, also what forks faster than a walk through /proc."""
        if not uids:
            return
        argv = [sys.executable, "-I", "-m", "codingagents.supervisor.sweep", *map(str, uids)]
        swept = False
        while not swept:  # for an instant the sweeper is one of its prey, which may have killed it
            try:
                sweeper = self._children.spawn(argv, env={}, fds={2: 2})
            except OSError:  # they left no room for one more process
                self._children.signal_users(uids, signal.SIGKILL)
                await trio.sleep(0.02)
                continue
            try:
                swept = (await self._reaper.wait(sweeper)).code == errors.EXIT_OK
            finally:
                self._children.signal(sweeper, signal.SIGKILL)

    async def _end_child(self, child: Child, grace: float) -> None:
        with trio.move_on_after(grace):
            await self._reaper.wait(child)
            return
        self._children.signal(child, signal.SIGKILL)
        await self._reaper.wait(child)
