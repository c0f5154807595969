"""SHELL: one task between its requester and its keeper: orders down, reports up, answers back, events. No policy.

Three states, as `row` names them: starting until the keeper says that the command runs; running until it says that it
ended, which is when the requester is answered and let go; then left, while processes that the command left run on.
Takes two tasks of trio's and no thread.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Sequence
from typing import Final, Literal

import trio

from codingagents.supervisor import task_request, task_wire
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.task_connection import TaskConnection
from codingagents.supervisor.task_listing import TaskRow
from codingagents.supervisor.task_request import Prepared
from codingagents.supervisor.task_spec import (
    AnyTaskOrder,
    AnyTaskReport,
    TaskExit,
    TaskFailed,
    TaskKill,
    TaskMade,
    TaskOver,
    TaskRuns,
    TaskSignal,
)
from codingagents.supervisor.task_wire import RequestError
from codingagents.trust import linux, wire
from codingagents.trust.errors import EventLogError, WireError
from codingagents.trust.events import AnyEvent, TaskEnded, TaskGone, TaskRefused, TaskStarted
from codingagents.trust.scrub import Scrubber

ANSWER_SECONDS: Final = 5.0  # for a requester to take a line; until then its task's reports wait
_MAX_SAID: Final = 64  # bytes of a line that a requester sends
_MAX_EARLY: Final = 64  # signals that wait for the command to run
_MAX_REPORT: Final = 4096
_PIECE: Final = 4096

Why = Literal["ended", "requester gone", "session ends", "keeper lost"]


class Requester:
    """Who asked for a task, and the connection to it."""

    def __init__(self, connection: TaskConnection) -> None:
        """Speak over it; it stays the caller's to close."""
        self.pid, self.uid = connection.pid, connection.uid
        self.connection = connection

    async def answer(self, line: bytes) -> None:
        """Say `line`, if somebody is there to take it."""
        with trio.move_on_after(ANSWER_SECONDS), contextlib.suppress(OSError, trio.ClosedResourceError):
            await self.connection.send(line)

    async def hear(self) -> bytes:
        """Return what it says next; b"" where it is gone."""
        return (await self.connection.receive())[0]

    def refused(self, reason: str) -> TaskRefused:
        """Return the record of a refusal."""
        return TaskRefused(reason=reason, requester_pid=self.pid, requester_user_id=self.uid)


class TaskLife:
    """One task, from the moment that a keeper was asked for."""

    def __init__(
        self,
        prepared: Prepared,
        requester: Requester,
        channel: socket.socket,
        *,
        user_id: int,
        log: EventLog,
        scrubber: Scrubber,
    ) -> None:
        """Take over `channel`, our end of the keeper's, which tells who sends (SO_PASSCRED)."""
        channel.setblocking(False)
        self._prepared = prepared
        self._requester = requester
        self._channel = trio.socket.from_stdlib_socket(channel)
        self._down = trio.SocketStream(self._channel)
        self._sending = trio.Lock()
        self._is_told = trio.Event()  # what it is to be: orders come after that
        self._user_id = user_id
        self._log = log
        self._scrubber = scrubber
        self._hearing = trio.CancelScope()  # of the requester, while its command runs
        self._early: list[int] = []
        self._why: Why = "ended"
        self._born = trio.current_time()
        self._pid = 0  # of what becomes the command, once it is there
        self._runs = False
        self._exit: TaskExit | None = None
        self._failed = False

    @property
    def is_left(self) -> bool:
        """Say whether the command ended, and only what it left runs on."""
        return self._exit is not None

    def row(self) -> TaskRow:
        """Return what `exec list` shows of it."""
        spec = self._prepared.planned.spec
        return TaskRow(
            task=spec.task,
            state="left" if self.is_left else "running" if self._runs else "starting",
            pid=self._pid or None,
            user_id=self._user_id,
            requester_pid=self._requester.pid,
            requester_user_id=self._requester.uid,
            terminal=spec.terminal,
            working_directory=self._scrubber.scrub_text(spec.working_directory),
            command=self._prepared.command.args,
            uptime_seconds=round(trio.current_time() - self._born, 1),
            left=0 if self._exit is None else self._exit.left,
        )

    async def live(self, said: bytes) -> None:
        """Run it, until the keeper is gone and nothing of it is left; `said` came behind the request."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hear_requester, said)
            try:
                with contextlib.suppress(trio.BrokenResourceError):  # the keeper is gone, which is heard below
                    await self._down.send_all(self._prepared.line)
                self._is_told.set()
                with contextlib.suppress(OSError, WireError):
                    await self._hear_keeper()
                await self._keeper_is_gone()
            finally:
                self._requester.connection.close()
                self._channel.close()
            nursery.cancel_scope.cancel()

    async def end(self, why: Why, *, number: int = signal.SIGKILL) -> None:
        """End all of it: by SIGKILL, or by asking its command with another signal, if it runs."""
        if self._exit is None and self._why == "ended":
            self._why = why
        if number == signal.SIGKILL or not self._runs:
            await self._order(TaskKill())
        else:
            await self._order(TaskSignal(number=number))

    # -- what the requester says -----------------------------------------------------------------------------------

    async def _hear_requester(self, said: bytes) -> None:
        lines = wire.LineBuffer(_MAX_SAID)
        with self._hearing:
            try:
                data = said
                while data or (data := await self._requester.hear()):
                    for line in lines.feed(data):
                        await self._pass_on(task_wire.parse_signal(line))
                    data = b""
            except (WireError, RequestError):
                pass  # who does not keep to the protocol is not heard any more, and so is gone
            await self.end("requester gone")

    async def _pass_on(self, number: int) -> None:
        if self._runs and not self._early:
            await self._order(TaskSignal(number=number))
        elif len(self._early) < _MAX_EARLY:
            self._early.append(number)  # for the command, not for what is about to become it
        else:
            raise RequestError("too many signals")

    async def _order(self, order: AnyTaskOrder) -> None:
        await self._is_told.wait()
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with self._sending:
                await self._down.send_all(wire.encode(order))

    # -- what the keeper says --------------------------------------------------------------------------------------

    async def _hear_keeper(self) -> None:
        lines = wire.LineBuffer(_MAX_REPORT)
        while True:
            data, ancillary, _, _ = await self._channel.recvmsg(_PIECE, socket.CMSG_SPACE(linux.UCRED.size))
            if not data:
                return
            for line in lines.feed(data):
                report: AnyTaskReport = wire.decode(AnyTaskReport, line)
                await self._take(report, _sender(ancillary))

    async def _take(self, report: AnyTaskReport, sender: int) -> None:
        match report:
            case TaskMade():
                self._pid = sender
            case TaskRuns():
                await self._run()
            case TaskFailed():
                self._failed = True
                await self._refuse(task_request.sentence_of(report), report.code)
            case TaskExit():
                await self._ended(report)
            case TaskOver():
                pass  # EOF follows

    async def _run(self) -> None:
        self._runs, self._born = True, trio.current_time()
        try:
            self._log.append(self._started())
        except EventLogError as error:  # what cannot be recorded does not run
            await self._order(TaskKill())
            await self._requester.answer(task_request.refusal(str(error)))
            self._failed = True
            return
        while self._early:
            await self._order(TaskSignal(number=self._early[0]))
            del self._early[0]
        await self._requester.answer(task_request.started(self._pid))

    async def _ended(self, report: TaskExit) -> None:
        if self._exit is not None:
            raise WireError("it ended twice")
        self._exit = report
        self._hearing.cancel()
        if not self._failed:
            code, number = task_request.split_status(report.status)
            event = TaskEnded(
                task=self._prepared.planned.spec.task,
                process_pid=self._pid,
                exit_code=128 + number if number else code,
                signal=number or None,
                reason=self._why,
                duration_ms=self._milliseconds(),
                left=report.left,
            )
            self._log.record(event)
            await self._requester.answer(task_request.ended(report.status))
        self._requester.connection.close()

    async def _keeper_is_gone(self) -> None:
        if self._exit is not None:
            if self._exit.left:
                self._log.record(TaskGone(task=self._prepared.planned.spec.task, duration_ms=self._milliseconds()))
        elif self._failed:
            pass
        elif not self._runs:
            why = "keeper lost" if self._why == "ended" else self._why
            await self._refuse(f"{why}, before the command ran")
        else:  # what it left behind is killed by the task parent
            self._why = "keeper lost" if self._why == "ended" else self._why
            await self._ended(TaskExit(status=signal.SIGKILL, left=0))

    async def _refuse(self, sentence: str, code: int = 125) -> None:
        self._log.record(self._requester.refused(self._scrubber.scrub_text(sentence)))
        await self._requester.answer(task_request.refusal(sentence, code))

    def _started(self) -> AnyEvent:
        planned, command = self._prepared.planned, self._prepared.command
        return TaskStarted(
            task=planned.spec.task,
            process_pid=self._pid,
            user_id=self._user_id,
            requester_pid=self._requester.pid,
            requester_user_id=self._requester.uid,
            terminal=planned.spec.terminal,
            working_directory=self._scrubber.scrub_text(planned.spec.working_directory),
            command_args=command.args,
            args_total_bytes=command.total_bytes,
            args_sha256=command.sha256,
            args_truncated=command.truncated,
            environment=planned.environment,
            withheld=planned.withheld,
        )

    def _milliseconds(self) -> int:
        return round((trio.current_time() - self._born) * 1000)


def _sender(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    """Return the PID, in our PID namespace, of the process that sent this; 0 where that is not known."""
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            return int(linux.UCRED.unpack(payload)[0])
    return 0
