"""A real task parent behind its trap, with a supervisor's side that only confines it, and a test that plays the rest.

with start(Request()) as tasks:
    task = tasks.run(["/bin/echo", "hello"])
    assert (task.wait(), task.output()) == (Exited(0), b"hello\n")

The test has the task parent's channel and each task's, as the supervisor has them in a session. A child of the test's
drives the task parent up to its layers, serves its trap and reaps it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from codingagents.rewrite import places
from codingagents.rewrite.specs import ExecRule, ExecSpec, RoleLimits
from codingagents.supervisor import processes, rundirs
from codingagents.supervisor.confine_spec import ConfineSpec
from codingagents.supervisor.confined import ConfinedRole, TrapSettings
from codingagents.supervisor.early import TaskParentProcess
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.layers import Facts
from codingagents.supervisor.reaper import Reaper
from codingagents.supervisor.sessionfiles import open_event_log
from codingagents.supervisor.task_spec import (
    MAKE,
    AnyTaskOrder,
    AnyTaskReport,
    SandboxSpec,
    TaskExit,
    TaskFailed,
    TaskKill,
    TaskMade,
    TaskOver,
    TaskRuns,
    TaskSignal,
    TaskSpec,
)
from codingagents.trust import checkpoint, linux, wire
from codingagents.trust.encoding import decode_line
from codingagents.trust.events import AnyEvent, Layer, SessionEnded, escape_bytes
from codingagents.trust.scrub import Scrubber
from codingagents.trust.vocabulary import Role, SessionId

UID = 58041  # of tasks: of no account, and of no other process of a test run
PATIENCE = 60.0  # seconds; only a failing test waits that long
_SESSION = SessionId("task-test")
MASKED = "masked"
_REPLY = "reply.json"
# As in a container of Docker, where neither mounts nor namespaces can be had.
DOCKER = (
    *("setpriv", "--inh-caps", "-all", "--bounding-set"),
    (
        "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,"
        "+sys_chroot,+mknod,+audit_write,+setfcap"
    ),
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another UID needs root")
MODES = {"namespaces": (), "docker's capabilities": DOCKER}
every_mode = pytest.mark.parametrize("prefix", list(MODES.values()), ids=list(MODES))
"""Runs a test in a sandbox with namespaces, and where Linux capabilities are those that Docker gives."""


class Request(msgspec.Struct, kw_only=True):
    """How the sandbox is made."""

    namespaces: bool = True
    masks: list[str] = []  # besides the directory `masked`
    layers_off: list[str] = []
    rules: list[ExecRule] = []
    enforce: bool = False
    trees: list[str] = []  # besides the default ones
    limits: RoleLimits = RoleLimits()
    groups: list[int] = []


class Made(msgspec.Struct, kw_only=True):
    """What the sandbox came out as."""

    layers: list[Layer]
    parent: int  # the task parent's PID


class Ended(msgspec.Struct, kw_only=True):
    """How it ended."""

    how: str
    troubles: list[str]
    trap_ended: bool


@dataclass(frozen=True)
class Exited:
    """How a command ended."""

    code: int | None = None
    signal: int | None = None


class Task:
    """One task; the channel to its keeper is `channel`."""

    def __init__(self, channel: socket.socket, output: int) -> None:
        self.channel = channel
        self.reports: list[AnyTaskReport] = []
        self.pid = 0  # the command's, here
        self._output = output
        self._buffer = wire.LineBuffer()
        self.eof = False

    def order(self, order: AnyTaskOrder) -> None:
        self.channel.sendall(wire.encode(order))

    def signal(self, number: int) -> None:
        self.order(TaskSignal(number=number))

    def kill(self) -> None:
        self.order(TaskKill())

    def hear(self, kind: type[Any]) -> Any:
        """Return the first report of `kind`, and read on until there is one."""
        while True:
            for report in self.reports:
                if isinstance(report, kind):
                    return report
            assert not self.eof, f"EOF, and no {kind.__name__} among {self.reports}"
            self._read()

    def _read(self) -> None:
        data, ancillary, _, _ = self.channel.recvmsg(65536, socket.CMSG_SPACE(12))
        self.eof = not data
        for line in self._buffer.feed(data):
            self.reports.append(wire.decode(AnyTaskReport, line))
            if isinstance(self.reports[-1], TaskMade):
                self.pid = int.from_bytes(ancillary[0][2][:4], sys.byteorder)

    def runs(self) -> Task:
        """Wait until the command was executed."""
        self.hear(TaskRuns)
        return self

    def wait(self) -> Exited:
        """Return how the command ended."""
        code = os.waitstatus_to_exitcode(self.hear(TaskExit).status)
        return Exited(code) if code >= 0 else Exited(signal=-code)

    def failed(self) -> TaskFailed:
        failed: TaskFailed = self.hear(TaskFailed)
        return failed

    def over(self) -> None:
        """Wait until no process of it is left."""
        self.hear(TaskOver)
        while not self.eof:
            self._read()

    def until_eof(self) -> list[AnyTaskReport]:
        while not self.eof:
            self._read()
        return self.reports

    def line(self) -> str:
        """Return the next line of its output."""
        line = bytearray()
        while not line.endswith(b"\n") and (byte := os.read(self._output, 1)):
            line += byte
        return line.decode()

    def output(self) -> bytes:
        """Return what is left of its output, once all who could write are gone."""
        data = bytearray()
        while piece := os.read(self._output, 65536):
            data += piece
        return bytes(data)

    def close(self) -> None:
        self.channel.close()
        if self._output >= 0:
            os.close(self._output)
        self._output = -1


@dataclass
class Tasks:
    """A sandbox that serves."""

    made: Made
    channel: socket.socket
    process: subprocess.Popen[bytes]
    directory: Path
    control: socket.socket
    tasks: list[Task] = field(default_factory=list)

    def make(self, spec: TaskSpec, handed: Sequence[int], output: int = -1) -> Task:
        """Have a task made with the descriptors `handed`, which stay the caller's."""
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.settimeout(PATIENCE)
        with theirs:
            socket.send_fds(self.channel, [MAKE], [theirs.fileno(), *handed])
        ours.sendall(wire.encode(spec))
        self.tasks.append(Task(ours, output))
        return self.tasks[-1]

    def run(self, argv: Sequence[str | bytes], *, stdin: int | None = None, **options: Any) -> Task:
        """Run a command; its output and errors are one pipe."""
        reading, writing = os.pipe()
        nothing = os.open(os.devnull, os.O_RDWR)
        try:
            return self.make(spec(argv, **options), [nothing if stdin is None else stdin, writing, writing], reading)
        finally:
            os.close(writing)
            os.close(nothing)

    def sh(self, script: str, **options: Any) -> Task:
        return self.run(["/bin/sh", "-c", script], **options)

    @property
    def masked(self) -> Path:
        return self.directory / MASKED

    def layer(self, name: str) -> Layer:
        return next(row for row in self.made.layers if row.layer == name)

    def events(self) -> list[AnyEvent]:
        return [decode_line(line).event for line in (self.directory / places.EVENT_LOG).read_bytes().splitlines()]

    def end(self) -> Ended:
        """Close the task parent's channel and return how it ended."""
        self.channel.close()
        self.control.close()
        assert self.process.wait(PATIENCE) == 0
        return msgspec.json.decode((self.directory / _REPLY).read_bytes(), type=Ended)


def spec(argv: Sequence[str | bytes], **options: Any) -> TaskSpec:
    """Return a task's specification."""
    environment = options.pop("environment", {"PATH": "/usr/bin:/bin"})
    given: dict[str, Any] = {"task": 1, "terminal": False, "working_directory": "/"} | options
    return TaskSpec(
        argv=[escape_bytes(os.fsencode(argument)) for argument in argv],
        environment=[escape_bytes(os.fsencode(f"{name}={value}")) for name, value in environment.items()],
        **given,
    )


@contextlib.contextmanager
def start(request: Request | None = None, prefix: Sequence[str] = ()) -> Iterator[Tasks]:
    """Make a sandbox; when the block ends, nothing of it is left. Namespaces are there unless the prefix is `DOCKER`.

    `tasks.masked` is a directory that anybody may read, and tasks should not.
    """
    request = request or Request()
    directory = Path(tempfile.mkdtemp(prefix="tasks-"))
    (directory / MASKED).mkdir()
    (directory / MASKED / "file").write_text("to be seen by all\n")
    for path in (directory / MASKED, directory / MASKED / "file"):
        path.chmod(0o755)
    control, theirs = socket.socketpair()
    control.settimeout(PATIENCE)
    with theirs:
        number = theirs.fileno()
        words = [*prefix, sys.executable, "-I"]
        words += [os.path.abspath(__file__), str(directory), str(number), msgspec.json.encode(request).decode()]
        process = subprocess.Popen(words, pass_fds=[number])
    try:
        data, descriptors, _, _ = socket.recv_fds(control, 1 << 20, 1)
        assert descriptors, "there is no sandbox"
        channel = socket.socket(fileno=descriptors[0])
        channel.setblocking(True)
        tasks = Tasks(msgspec.json.decode(data, type=Made), channel, process, directory, control)
        try:
            yield tasks
        finally:
            for task in tasks.tasks:
                task.close()
            channel.close()
            control.close()
        assert process.wait(PATIENCE) in {0, -signal.SIGKILL}  # the latter is a test's doing
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        while processes.Children().signal_users([UID], signal.SIGKILL):
            time.sleep(0.01)
        control.close()
        shutil.rmtree(directory)


# -- the supervisor's side ----------------------------------------------------------------------------------------


async def _supervise(request: Request, directory: str, control: socket.socket) -> Ended:
    children = processes.Children()
    reaper = Reaper(children)
    processes.set_subreaper()
    linux.set_parent_death_signal(signal.SIGKILL)
    troubles: list[str] = []
    sign = functools.partial(checkpoint.sign_checkpoint, checkpoint.new_key(b"\7" * 32), session=_SESSION)
    log = EventLog(open_event_log(directory), _SESSION, sign, on_trouble=troubles.append)
    os.chmod(directory, 0o711)
    trees = [*ExecSpec().trees, *request.trees]
    settings = TrapSettings(
        exec_spec=ExecSpec(mode="enforce" if request.enforce else "observe", rules=request.rules, trees=trees),
        log=log,
        scrubber=Scrubber({}),
        on_trouble=troubles.append,
    )
    sandbox = SandboxSpec(
        confine=ConfineSpec(
            argv=[],
            environment={},
            role=Role.TASK.value,
            limits=request.limits,
            working_directory="/",
            uid=UID,
            gid=UID,
            groups=request.groups,
            umask=0o002,
            execute_trees=sorted({*trees, *map(os.path.realpath, trees)}),
            probe_file=rundirs.write_probe_file(f"{directory}/self-test"),
            probe_nonce="0123456789abcdef",
            death_signal=True,
            layers_off=request.layers_off,
        ),
        masks=[f"{directory}/{MASKED}", *request.masks],
        namespaces=request.namespaces,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(reaper.run)
        process = TaskParentProcess(children)
        role = ConfinedRole(process, Role.TASK, settings)
        wishes = dict.fromkeys(request.layers_off, "off")
        layers = await role.confine(sandbox, Facts(), wishes)  # type: ignore[arg-type]  # "off" is one of the wishes
        channel = await role.let_go()
        made = Made(layers=layers, parent=process.child.pid)
        socket.send_fds(control, [msgspec.json.encode(made)], [channel.fileno()])
        await trio.to_thread.run_sync(control.recv, 1, abandon_on_cancel=True)
        role.close()
        how = (await reaper.wait(process.child)).how
        trap_ended = role.trap is None or await trio.to_thread.run_sync(role.trap.join, 10.0)
        nursery.cancel_scope.cancel()
    log.close(SessionEnded(exit_code=0, reason="over"))
    return Ended(how=how, troubles=troubles, trap_ended=trap_ended)


def main(directory: str, control: str, request: str) -> None:
    ended = trio.run(
        _supervise, msgspec.json.decode(request, type=Request), directory, socket.socket(fileno=int(control))
    )
    Path(directory, _REPLY).write_bytes(msgspec.json.encode(ended))


if __name__ == "__main__":
    main(*sys.argv[1:])
