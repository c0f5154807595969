"""SHELL: one task's keeper: makes its command, passes signals on, tells how it ends, and ends all that it leaves.

A fork of the task parent, with no Linux capability (`task_command.become_keeper`); the parent of every orphan of its
task. Speaks with the supervisor over the task's channel (`task_spec`) and reads nothing else, but for a few bytes of
its own child. Decides nothing.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import os
import select
import socket
from collections.abc import Sequence
from typing import Final

from codingagents.supervisor import processes, role_layers, task_command
from codingagents.supervisor.confine_spec import ConfineSpec
from codingagents.supervisor.task_processes import ChildSignals, count_below, keep_only, kill_below
from codingagents.supervisor.task_spec import (
    AnyTaskOrder,
    AnyTaskReport,
    TaskExit,
    TaskFailed,
    TaskMade,
    TaskOver,
    TaskRuns,
    TaskSignal,
    TaskSpec,
)
from codingagents.trust import linux, wire

_AGAIN_MILLISECONDS: Final = 20  # between two walks that kill; the first death comes before
_MAX_FAILURE: Final = 64  # bytes


def main(channel: int, handed: Sequence[int], confinement: ConfineSpec) -> None:
    """Keep one task from its first order to its last process; `handed` is what came with `channel`."""
    keep_only([channel, *handed])
    processes.set_subreaper()
    task_command.become_keeper(confinement)
    with socket.socket(fileno=channel) as stream:
        task = role_layers.receive(stream, TaskSpec)
        linux.name_process(f"task keeper {task.task}")
        _Keeper(stream, confinement, task).keep(handed)


def prepare() -> None:
    """Make, in what keepers are forks of, all that is made once: a keeper would make it anew for each task."""
    task = TaskSpec(task=0, argv=["x"], environment=["A=B"], working_directory="/", terminal=False)
    wire.decode(TaskSpec, wire.encode(task))
    wire.decode(AnyTaskOrder, wire.encode(TaskSignal(number=1)))
    for report in (TaskMade(), TaskRuns(), TaskExit(status=0, left=0), TaskOver()):
        wire.encode(report)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class _Keeper:
    def __init__(self, channel: socket.socket, confinement: ConfineSpec, task: TaskSpec) -> None:
        self._channel = channel
        self._confinement = confinement
        self._task = task
        self._orders = wire.LineBuffer()
        self._signals = ChildSignals()
        self._poll = select.poll()
        self._command = 0  # its PID, as long as it is not reaped
        self._report = -1
        self._failed: TaskFailed | None = None
        self._ending = False

    def keep(self, handed: Sequence[int]) -> None:
        self._poll.register(self._channel, select.POLLIN)
        self._poll.register(self._signals, select.POLLIN)
        try:
            self._start(handed)
        except OSError as error:  # no room for one more process
            self._say(task_command.could_not("making a process", error.errno or errno.EIO))
            return
        while self._live_on():
            for descriptor, _ in self._poll.poll(_AGAIN_MILLISECONDS if self._ending else None):
                if descriptor == self._report:
                    self._hear_of_exec()
                elif descriptor == self._signals.fileno():
                    self._signals.drain()
                else:
                    self._obey()
            if self._ending:
                kill_below()
        if self._failed is None:
            self._say(TaskOver())

    def _start(self, handed: Sequence[int]) -> None:
        self._report, theirs = os.pipe2(os.O_CLOEXEC)
        self._command = os.fork()  # noqa: TID251 -- a keeper is there to make one process and to wait for it
        if self._command == 0:
            self._say(TaskMade())
            task_command.run(self._confinement, self._task, handed, theirs)
        os.close(theirs)
        # The last close of a socket can wait as long as its maker chose (SO_LINGER): not here, where EOF is heard.
        _thread.start_new_thread(_close, (handed,))
        self._poll.register(self._report, select.POLLIN)

    def _hear_of_exec(self) -> None:
        """Tell that the command runs, or why not."""
        if self._report < 0:
            return
        self._failed = task_command.failed_by(os.read(self._report, _MAX_FAILURE), self._task)
        self._poll.unregister(self._report)
        os.close(self._report)
        self._report = -1
        self._say(self._failed or TaskRuns())

    def _obey(self) -> None:
        data = b""
        with contextlib.suppress(ConnectionError):
            data = self._channel.recv(65536)
        if not data:
            self._poll.unregister(self._channel)
            self._ending = True
        for line in self._orders.feed(data):
            order: AnyTaskOrder = wire.decode(AnyTaskOrder, line)
            if not isinstance(order, TaskSignal):
                self._ending = True
            elif self._command:
                with contextlib.suppress(ProcessLookupError):  # it has not made its group yet
                    os.killpg(self._command, order.number)

    def _live_on(self) -> bool:
        """Reap all that has ended; say whether any process is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)  # noqa: TID251 -- see `_start`
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._command:
                self._hear_of_exec()  # whose end comes with the command's, if it was so quick
                self._command = 0
                if self._failed is None:
                    self._say(TaskExit(status=status, left=self._left()))

    def _left(self) -> int:
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return 0
        return count_below()

    def _say(self, report: AnyTaskReport) -> None:
        with contextlib.suppress(ConnectionError):  # who is gone is not told; EOF says the rest
            self._channel.sendall(wire.encode(report))
