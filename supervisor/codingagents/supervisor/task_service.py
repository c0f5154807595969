"""SHELL: the tasks of one session: wires socket, runner and the process that makes tasks, and ends them in order.

Decides nothing but the order of the end: first the tasks, then what makes them, then whatever of theirs got away.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import pwd
import secrets as randomness
import signal
import socket
from typing import Final

import msgspec
import trio

from codingagents.rewrite import places
from codingagents.rewrite.specs import SessionSpec
from codingagents.supervisor import accepting, processes, rundirs, task_plan
from codingagents.supervisor.account_lines import TASK
from codingagents.supervisor.cgroup_rules import group_name
from codingagents.supervisor.cgroups import TaskGroup
from codingagents.supervisor.complaints import complain
from codingagents.supervisor.confined import TrapSettings
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.explain import HeldPolicy
from codingagents.supervisor.layers import Facts
from codingagents.supervisor.processes import Children
from codingagents.supervisor.reaper import Reaper
from codingagents.supervisor.runner import Runner
from codingagents.supervisor.task_host import Confinement, TaskHost
from codingagents.supervisor.task_listing import TaskList
from codingagents.supervisor.task_spec import SandboxSpec
from codingagents.trust.errors import ProcessError
from codingagents.trust.scrub import Scrubber

_BACKLOG: Final = 256
_KILL_SECONDS: Final = 5.0  # what is stuck in the kernel must not hold up the end
_PAUSE: Final = 0.02
_SHELLS: Final = ("/bin/bash", "/bin/sh")


class TaskService:
    """Everything that a session has for its tasks."""

    def __init__(
        self,
        spec: SessionSpec,
        *,
        session_dir: str,
        settings: TrapSettings,
        facts: Facts,
        children: Children,
        reaper: Reaper,
        log: EventLog,
        scrubber: Scrubber,
    ) -> None:
        """Bind the socket; nobody answers before `serve`. `ProcessError` where it cannot be bound."""
        self._spec = spec
        self._session_dir = session_dir
        self._children = children
        self._identity = task_plan.identity(spec)
        self._group = TaskGroup(
            group_name(spec.session),
            spec.task_totals,
            is_pid1=processes.is_pid1(),
            may_mount=not facts.mount_namespace,
        )
        self._host = TaskHost(
            Confinement(sandbox=self._sandbox, facts=facts, wishes=spec.layers, settings=settings, group=self._group),
            children=children,
            reaper=reaper,
            log=log,
            lost=self._lost,
        )
        shell = next(filter(os.path.exists, _SHELLS), _SHELLS[-1])
        self._runner = Runner(
            self._host,
            task_plan.terms(spec, shell=shell, user=_user_name(spec)),
            agent_uid=spec.uids.agent,
            task_uid=self._identity[0],
            log=log,
            scrubber=scrubber,
        )
        self._listener = _bind(spec.uids.agent, session_dir)

    async def serve(self) -> None:
        """Run what the agent asks for, until cancelled; `stop` comes first."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._host.run)
            nursery.start_soon(self._runner.serve, self._listener)

    def want(self) -> None:
        """Be quick with the first task: the agent has what it needs to start."""
        self._host.want()

    @property
    def held(self) -> HeldPolicy | None:
        """What was seen to stand behind the exec policy of tasks; None before it was tried."""
        return self._host.held

    async def document(self) -> bytes:
        """Return a `TaskList` as JSON, with a newline."""
        taken_at = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
        listed = TaskList(
            session=self._spec.session, taken_at=taken_at, state=self._host.state, tasks=self._runner.rows()
        )
        return msgspec.json.encode(listed) + b"\n"

    async def stop(self, grace: float) -> None:
        """End every task, what makes them, and whatever is left of them. For after `serve` began."""
        with trio.move_on_after(grace + _KILL_SECONDS):
            await self._runner.stop(grace)
        await self._host.stop(_KILL_SECONDS)
        await self._kill_strays()
        if why := await trio.to_thread.run_sync(self._group.remove):
            complain(f"the control group of the session's tasks cannot be removed: {why}")
        for path in (places.RUNNER_SOCKET, places.RUNNER_EVENTS):
            with contextlib.suppress(OSError):  # its directory may be gone
                os.unlink(path)

    async def _lost(self) -> None:
        """End what the process that made tasks has left."""
        with trio.move_on_after(_KILL_SECONDS):
            await self._runner.end_all("keeper lost")
        await self._kill_strays()

    async def _kill_strays(self) -> None:
        """Kill what no keeper has any more; in a PID namespace of ours a person's processes may be below us, too."""
        if self._spec.task_owner is not None and processes.is_pid1():
            return
        with trio.move_on_after(_KILL_SECONDS):
            while self._children.signal_descendants({self._identity[0]}, signal.SIGKILL):  # noqa: ASYNC110 -- nothing announces the last
                await trio.sleep(_PAUSE)

    def _sandbox(self) -> SandboxSpec:
        return task_plan.sandbox(
            self._spec,
            real_trees=[os.path.realpath(tree) for tree in task_plan.trees(self._spec)],
            probe_file=rundirs.make_probe_file((places.RUN_ROOT, self._session_dir)),
            probe_nonce=randomness.token_hex(16),
            death_signal=not processes.is_pid1(),
        )


def _bind(agent_gid: int, session_dir: str) -> socket.socket:
    try:
        listener = accepting.bind_for_group(places.RUNNER_SOCKET, agent_gid)
        listener.listen(_BACKLOG)
        os.symlink(os.path.join(os.path.abspath(session_dir), places.EVENT_LOG), places.RUNNER_EVENTS)
    except OSError as error:
        raise ProcessError(f"cannot make {error.filename or places.RUNNER_SOCKET}: {error.strerror}") from None
    return listener


def _user_name(spec: SessionSpec) -> str:
    """Return the name of the tasks' account; of a person's UID that has none, the number."""
    if spec.task_owner is None:
        return TASK
    try:
        return pwd.getpwuid(spec.task_owner[0]).pw_name
    except KeyError:
        return str(spec.task_owner[0])
