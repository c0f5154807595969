"""SHELL: the task runner's socket: accepts the agent and root, takes their requests, and has each run as a task.

Who may ask, how much at once and how long it may take is decided here; what a request comes to, in `task_request`.
Whatever is refused is said to the client in one line, and recorded.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import trio

from codingagents.supervisor import task_request
from codingagents.supervisor.accepting import next_connection
from codingagents.supervisor.complaints import complain
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.task_connection import Closer, TaskConnection
from codingagents.supervisor.task_life import Requester, TaskLife, Why
from codingagents.supervisor.task_listing import TaskRow
from codingagents.supervisor.task_reading import GoneError, Reading
from codingagents.supervisor.task_request import Prepared, TaskTerms
from codingagents.supervisor.task_wire import RequestError
from codingagents.trust.errors import ProcessError
from codingagents.trust.scrub import Scrubber

REQUEST_SECONDS: Final = 5.0  # for a request to be whole
MAX_CONNECTIONS: Final = 256
MAX_RUNNING: Final = 128  # tasks whose command has not ended
MAX_LEFT: Final = 128  # tasks whose command ended and left processes: each has a keeper of its own
_HOLDING: Final = 64  # connections whose descriptors we hold; a process has 1024 by default
_LARGE: Final = 64 * 1024  # bytes; what is longer is taken apart in a thread, and few of them are read at once
_LARGE_AT_ONCE: Final = 4


class Host(Protocol):
    """What has the process that makes tasks."""

    async def make(self, channel: socket.socket, descriptors: Sequence[int]) -> None:
        """Have a keeper made for the other end of `channel`; `ProcessError` where that cannot be."""


class Runner:
    """Runs the tasks of one session."""

    def __init__(
        self, host: Host, terms: TaskTerms, *, agent_uid: int, task_uid: int, log: EventLog, scrubber: Scrubber
    ) -> None:
        """Run as UID `task_uid`, within `terms`, what UID `agent_uid` or root asks for."""
        self._host = host
        self._terms = terms
        self._may_ask = {agent_uid, os.geteuid()}
        self._task_uid = task_uid
        self._log = log
        self._scrubber = scrubber
        self._number = 0  # of the newest task
        self._asking = 0  # connections whose task is not there yet
        self._making = 0  # of these, those whose task is being made
        self._lives: set[TaskLife] = set()
        self._stopping = False
        self._changed = trio.Event()
        self._closer = Closer()
        self._holding = trio.CapacityLimiter(_HOLDING)
        self._large = trio.CapacityLimiter(_LARGE_AT_ONCE)

    async def serve(self, listener: socket.socket) -> None:
        """Take requests at `listener`, which is closed at the end, until cancelled."""
        listener.setblocking(False)
        accepting = trio.socket.from_stdlib_socket(listener)
        with accepting:
            async with trio.open_nursery() as nursery:
                while True:
                    await self._closer.room()
                    connection = await next_connection(accepting)
                    nursery.start_soon(self._attend_safely, TaskConnection(connection, self._closer))

    def rows(self) -> list[TaskRow]:
        """Return all tasks, in order of their numbers."""
        return sorted((life.row() for life in self._lives), key=lambda row: row.task)

    async def end_all(self, why: Why) -> None:
        """Kill every task that there is, and return when none is."""
        await self._tell_all(lambda life: life.end(why))
        while self._lives:
            await self._changed.wait()

    async def stop(self, grace: float) -> None:
        """Take no more requests, and end every task: by TERM, and what is left after `grace` seconds by KILL."""
        self._stopping = True
        await self._tell_all(lambda life: life.end("session ends", number=signal.SIGTERM))
        await self._tell_all(lambda life: life.end("session ends", number=signal.SIGCONT))  # what is stopped cannot end
        with trio.move_on_after(grace):
            while self._lives:
                await self._changed.wait()
        await self.end_all("session ends")

    async def _tell_all(self, tell: Callable[[TaskLife], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            for life in self._lives:
                nursery.start_soon(tell, life)

    # -- of one connection -----------------------------------------------------------------------------------------

    async def _attend_safely(self, connection: TaskConnection) -> None:
        """Have a fault of ours end one task, by EOF to its keeper, and not the session."""
        requester = Requester(connection)
        try:
            with connection:
                await self._attend(requester)
        except Exception as error:
            self._log.record(requester.refused(f"internal error: {type(error).__name__}"))
            complain(f"a task was ended after an internal error: {error!r}")

    async def _attend(self, requester: Requester) -> None:
        reading = Reading(requester.connection)
        self._asking += 1
        try:
            prepared, behind = await self._ask(requester, reading)
            life = await self._make(prepared, requester)
        except GoneError as error:
            if error.asked:
                self._log.record(requester.refused(str(error)))
            return
        except (RequestError, ProcessError) as error:
            self._log.record(requester.refused(self._scrubber.scrub_text(str(error))))
            await requester.answer(task_request.refusal(str(error)))
            return
        finally:
            self._asking -= 1
            requester.connection.close_descriptors()
            self._let_go(requester)
        self._lives.add(life)
        try:
            await life.live(behind)
        finally:
            self._lives.remove(life)
            self._tell()

    async def _ask(self, requester: Requester, reading: Reading) -> tuple[Prepared, bytes]:
        """Return what is asked for, and what came behind it."""
        if requester.uid not in self._may_ask:
            raise RequestError("only the session's agent and root may have tasks run")
        if self._asking + self._running() > MAX_CONNECTIONS:
            raise RequestError(f"the runner has {MAX_CONNECTIONS} connections already")
        try:
            with trio.fail_after(REQUEST_SECONDS):
                await requester.connection.readable()
                await self._holding.acquire_on_behalf_of(requester)
                length = await reading.length()
                if length <= _LARGE:
                    body, behind = await reading.body(length)
                    return self._preparation(body)(), behind
            async with self._large:
                with trio.fail_after(REQUEST_SECONDS):
                    body, behind = await reading.body(length)
                return await trio.to_thread.run_sync(self._preparation(body)), behind
        except trio.TooSlowError:
            raise RequestError(f"the request was not whole within {REQUEST_SECONDS:.0f} seconds") from None

    def _preparation(self, body: bytes) -> Callable[[], Prepared]:
        self._number += 1
        return functools.partial(task_request.prepare, body, self._terms, task=self._number, scrubber=self._scrubber)

    async def _make(self, prepared: Prepared, requester: Requester) -> TaskLife:
        running = self._running()
        if running + self._making >= MAX_RUNNING:
            raise ProcessError(f"{MAX_RUNNING} tasks run already")
        if len(self._lives) - running >= MAX_LEFT:
            raise ProcessError(f"{MAX_LEFT} tasks that ended have processes that run on; end some of these")
        in_terminal = prepared.planned.spec.terminal
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # before anything is sent
        self._making += 1
        try:
            with theirs:
                connection = requester.connection
                descriptors = [connection.fileno()] if in_terminal else connection.descriptors
                await self._host.make(theirs, descriptors)
            if self._stopping:
                raise ProcessError("the session ends")
        except BaseException:
            ours.close()
            raise
        finally:
            self._making -= 1
        return TaskLife(prepared, requester, ours, user_id=self._task_uid, log=self._log, scrubber=self._scrubber)

    def _running(self) -> int:
        return sum(not life.is_left for life in self._lives)

    def _let_go(self, requester: Requester) -> None:
        with contextlib.suppress(RuntimeError):  # it had no place yet
            self._holding.release_on_behalf_of(requester)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
