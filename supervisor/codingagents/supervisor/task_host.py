"""SHELL: keeps the process that makes tasks: starts it once somebody wants it, and replaces one that ends.

It is driven up to its layers as a confine stub is (`confined`); after that it gets one message for each task. Decides
nothing: `lifecycle` has backoff and budget, as for helpers. One that is not confined as the session requires is none.
"""

from __future__ import annotations

import array
import contextlib
import dataclasses
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from codingagents.supervisor import agent_plan
from codingagents.supervisor.cgroups import TaskGroup
from codingagents.supervisor.confined import ConfinedRole, TrapSettings
from codingagents.supervisor.early import TaskParentProcess
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.explain import HeldPolicy
from codingagents.supervisor.layers import Facts
from codingagents.supervisor.lifecycle import Do, Happened, Helper, step
from codingagents.supervisor.processes import Children
from codingagents.supervisor.reaper import Reaper
from codingagents.supervisor.task_listing import HostState
from codingagents.supervisor.task_spec import MAKE, SandboxSpec
from codingagents.trust.errors import AgentError, ProcessError, UnconfinedError
from codingagents.trust.events import LayerReport, TasksUnavailable
from codingagents.trust.vocabulary import LayerWish, Role

WAIT_SECONDS: Final = 30.0  # of a request, for there to be a process that makes tasks
_SESSION_ENDS: Final = "the session ends"


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """How each task parent is confined. `sandbox` makes a specification anew: its probe is used up."""

    sandbox: Callable[[], SandboxSpec]
    facts: Facts
    wishes: Mapping[str, LayerWish]
    settings: TrapSettings
    group: TaskGroup  # that bounds all tasks together


class TaskHost:
    """Has one task parent at a time."""

    def __init__(
        self,
        confinement: Confinement,
        *,
        children: Children,
        reaper: Reaper,
        log: EventLog,
        lost: Callable[[], Awaitable[object]],
    ) -> None:
        """Have none yet; `lost` ends what one has made, once that one has ended."""
        self._confinement = confinement
        self._children = children
        self._reaper = reaper
        self._log = log
        self._lost = lost
        self._machine = Helper()
        self._wanted = trio.Event()
        self._over = ""  # why there will be none any more
        self._changed = trio.Event()
        self._beginning = trio.CancelScope()
        self._sending = trio.Lock()
        self._process: TaskParentProcess | None = None
        self._role: ConfinedRole | None = None
        self._channel: trio.socket.SocketType | None = None  # while tasks can be made
        self.held: HeldPolicy | None = None  # what was seen to stand behind the policy of tasks
        self.ended = trio.Event()  # no process of it is left

    @property
    def state(self) -> HostState:
        """Where it is now."""
        if self._over:
            return "failed"
        if self._channel is not None:
            return "ready"
        return "starting" if self._wanted.is_set() else "idle"

    def want(self) -> None:
        """Have one from now on."""
        self._wanted.set()

    async def run(self) -> None:
        """Have one, and then the next one, until `stop`, or until too many have ended."""
        try:
            await self._wanted.wait()
            while not self._over:
                await self._after(await self._live_once())
        finally:
            self.ended.set()

    async def make(self, channel: socket.socket, descriptors: Sequence[int]) -> None:
        """Have a keeper made for the other end of `channel`, with a task's descriptors or its requester's connection.

        `ProcessError` where there is nothing that could make it, and none comes.
        """
        self.want()
        rights = array.array("i", [channel.fileno(), *descriptors])
        with trio.move_on_after(WAIT_SECONDS):
            while not self._over:
                if self._channel is None:
                    await self._changed.wait()
                elif await self._hand_over(self._channel, rights):
                    return
        raise ProcessError(f"no task can be run: {self._over or 'what makes them is not there yet'}")

    async def stop(self, grace: float) -> None:
        """Have no more: what is there ends by EOF, and by KILL after `grace` seconds."""
        self._end(_SESSION_ENDS)
        self._wanted.set()
        self._beginning.cancel()
        self._close()
        if self._process is not None:
            child = self._process.child
            with trio.move_on_after(grace):
                await self._reaper.wait(child)
            self._children.signal(child, signal.SIGKILL)
            await self._reaper.wait(child)
        await self.ended.wait()

    # -- of one process after the other ----------------------------------------------------------------------------

    async def _live_once(self) -> str:
        """Return why there is no process any more."""
        try:
            process = self._process = TaskParentProcess(self._children)
        except OSError as error:  # no room for one more process
            return f"what makes tasks cannot be started: {error.strerror}"
        self._role = ConfinedRole(process, Role.TASK, self._confinement.settings)
        self._beginning = trio.CancelScope()
        why = ""
        try:
            with self._beginning:
                self._channel = await self._begin(self._role)
                self._tell()
        except AgentError as error:
            why = str(error)
            if isinstance(error, UnconfinedError):
                self._end(why)
        if self._channel is None:
            self._children.signal(process.child, signal.SIGKILL)
        how = (await self._reaper.wait(process.child)).how
        self._close()
        self._process = None
        await self._lost()
        return why or f"what makes tasks {how}"

    async def _begin(self, role: ConfinedRole) -> trio.socket.SocketType:
        confinement = self._confinement
        assert self._process is not None
        totals, held = confinement.group.take(self._process.child.pid)
        facts = dataclasses.replace(confinement.facts, task_totals=totals, task_totals_held=held)
        sandbox = confinement.sandbox()
        try:
            rows = await role.confine(sandbox, facts, confinement.wishes)
        finally:
            if sandbox.confine.probe_file is not None:
                with contextlib.suppress(OSError):
                    os.unlink(sandbox.confine.probe_file)
        self._log.append(LayerReport(role=Role.TASK.value, layers=rows))
        if missing := agent_plan.missing_layers(rows):
            raise UnconfinedError(missing)
        self.held = role.held
        return await role.let_go()

    async def _hand_over(self, to: trio.socket.SocketType, rights: array.array[int]) -> bool:
        try:
            async with self._sending:
                await to.sendmsg([MAKE], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except (OSError, trio.ClosedResourceError):  # it has just ended
            if self._channel is to:
                self._channel = None
            return False
        return True

    async def _after(self, why: str) -> None:
        if self._over == _SESSION_ENDS:
            return
        self._machine, command = step(self._machine, Happened.EXITED, trio.current_time())
        if command is Do.GIVE_UP:
            self._end(f"{why}; there have been too many")
        self._log.record(TasksUnavailable(reason=why, again=not self._over))
        with trio.move_on_after(self._machine.backoff):
            while not self._over:
                await self._changed.wait()
        if not self._over:
            self._machine, _ = step(self._machine, Happened.BACKOFF_OVER, trio.current_time())

    def _close(self) -> None:
        self._channel = None
        if self._role is not None:
            self._role.close()
            self._role = None

    def _end(self, why: str) -> None:
        self._over = self._over or why
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
