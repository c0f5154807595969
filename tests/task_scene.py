"""A task runner at a real socket, with clients that say what a test wants, and keepers that a test speaks for.

@task_scene.of(agent_uid=…)
async def test_…(scene: Scene) -> None:
    client = await scene.client()
    await client.ask(b"id")
    keeper = await scene.keeper()
    await keeper.runs()
    assert await client.line() == b"started …"
"""

from __future__ import annotations

import array
import functools
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import trio
import trio.testing

from codingagents.rewrite.specs import RoleLimits
from codingagents.supervisor import task_wire
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.runner import Runner
from codingagents.supervisor.task_request import TaskTerms
from codingagents.supervisor.task_spec import AnyTaskOrder, AnyTaskReport, TaskMade, TaskRuns, TaskSpec
from codingagents.supervisor.task_wire import Request
from codingagents.trust import checkpoint, wire
from codingagents.trust.encoding import decode_line
from codingagents.trust.errors import ProcessError
from codingagents.trust.events import AnyEvent
from codingagents.trust.scrub import Scrubber
from codingagents.trust.vocabulary import Secret, SessionId

PATIENCE = 10.0  # seconds; only a failing test waits that long
KEY = checkpoint.new_key(b"\1" * 32)
SESSION = SessionId("s-1")
TERMS = TaskTerms(allowed=("PATH", "TERM"), environment={"HOME": "/h"}, limits=RoleLimits())
SCRUBBER = Scrubber({"TOKEN": Secret("hunter22")})


def all_rights(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    rights = array.array("i")
    for _, _, payload in ancillary:
        rights.frombytes(payload)
    return list(rights)


class Keeper:
    """What a task's keeper has: its end of the channel, and the descriptors that came with it."""

    def __init__(self, descriptors: list[int]) -> None:
        self.channel = trio.socket.from_stdlib_socket(socket.socket(fileno=descriptors[0]))
        self.descriptors = descriptors[1:]
        self._lines = wire.LineBuffer()
        self._come: list[bytes] = []

    async def _line(self) -> bytes:
        with trio.fail_after(PATIENCE):
            while not self._come:
                data = await self.channel.recv(65536)
                if not data:
                    return b""
                self._come += self._lines.feed(data)
        return self._come.pop(0)

    async def spec(self) -> TaskSpec:
        spec: TaskSpec = wire.decode(TaskSpec, await self._line())
        return spec

    async def order(self) -> AnyTaskOrder | None:
        """Return the next order, None at the end."""
        line = await self._line()
        if not line:
            return None
        order: AnyTaskOrder = wire.decode(AnyTaskOrder, line)
        return order

    async def tell(self, report: AnyTaskReport) -> None:
        await self.say(wire.encode(report))

    async def say(self, line: bytes) -> None:
        await self.channel.send(line)

    async def runs(self) -> None:
        """Say that the command runs: as this very process."""
        await self.tell(TaskMade())
        await self.tell(TaskRuns())

    def close(self) -> None:
        self.channel.close()
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []


class Host:
    """Has keepers made, as the process that makes tasks would: with copies of what comes."""

    def __init__(self) -> None:
        self._send, self.made = trio.open_memory_channel[Keeper](1000)
        self.broken = ""
        self.fault: Exception | None = None  # that nobody thought of
        self.all: list[Keeper] = []

    async def make(self, channel: socket.socket, descriptors: Sequence[int]) -> None:
        if self.fault is not None:
            raise self.fault
        if self.broken:
            raise ProcessError(self.broken)
        keeper = Keeper(list(map(os.dup, [channel.fileno(), *descriptors])))
        self.all.append(keeper)
        self._send.send_nowait(keeper)


class Client:
    """A connection to the runner."""

    def __init__(self, connection: trio.socket.SocketType) -> None:
        self.connection = connection
        self._buffer = b""

    async def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        sent = await self.connection.sendmsg([data], rights)
        while sent < len(data):
            sent += await self.connection.send(data[sent:])

    async def ask(self, *argv: bytes, descriptors: Sequence[int] = (0, 1, 2), terminal: bool = False) -> None:
        request = Request(argv=argv, cwd=b"/", environment=[(b"TERM", b"t")], terminal=terminal)
        await self.send(task_wire.encode_request(request), descriptors)

    async def line(self) -> bytes:
        """Return the next line without its end, b"" at the end of the connection."""
        with trio.fail_after(PATIENCE):
            while b"\n" not in self._buffer:
                try:
                    data = await self.connection.recv(65536)
                except ConnectionResetError:  # closed with something of ours unread
                    data = b""
                if not data:
                    assert not self._buffer
                    return b""
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def close(self) -> None:
        self.connection.close()


class Scene:
    """A runner that serves. `nursery` is for what a test does beside it."""

    def __init__(self, directory: Path, nursery: trio.Nursery, agent_uid: int) -> None:
        self.nursery = nursery
        self.path = directory / "runner.sock"
        self.log_file = directory / "events.jsonl"
        self.log = self.open_log()
        self.host = Host()
        self.runner = Runner(self.host, TERMS, agent_uid=agent_uid, task_uid=4321, log=self.log, scrubber=SCRUBBER)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen(512)
        self._clients: list[Client] = []

    def open_log(self) -> EventLog:
        return EventLog(
            os.open(self.log_file, os.O_CREAT | os.O_RDWR | os.O_APPEND),
            SESSION,
            functools.partial(checkpoint.sign_checkpoint, KEY, session=SESSION),
        )

    async def client(self) -> Client:
        connection = trio.socket.socket(socket.AF_UNIX)
        client = Client(connection)
        self._clients.append(client)
        await connection.connect(str(self.path))
        return client

    async def keeper(self) -> Keeper:
        with trio.fail_after(PATIENCE):
            return await self.host.made.receive()

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for keeper in self.host.all:
            keeper.close()
        self.log.close(None)

    def events(self) -> list[AnyEvent]:
        lines = self.log_file.read_bytes().splitlines()
        return [decode_line(line).event for line in lines]

    async def event(self, number: int = 0) -> AnyEvent:
        """Return the event of that number, once it is there."""
        with trio.fail_after(PATIENCE):
            while len(self.events()) <= number:  # noqa: ASYNC110 -- a file is looked at
                await trio.sleep(0.005)
        return self.events()[number]


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 -- what is asked for announces nothing
            await trio.sleep(0.005)


def of(
    act: Callable[[Scene], Awaitable[None]] | None = None,
    *,
    agent_uid: int | None = None,
    clock: bool = False,
) -> Callable[..., Any]:
    """Make a test of a function that takes a scene; with `clock`, time passes when everybody waits."""
    if act is None:
        return functools.partial(of, agent_uid=agent_uid, clock=clock)
    wanted: Callable[[Scene], Awaitable[None]] = act

    def test(tmp_path: Path) -> None:
        async def play() -> None:
            async with trio.open_nursery() as nursery:
                scene = Scene(tmp_path, nursery, os.getuid() if agent_uid is None else agent_uid)
                nursery.start_soon(scene.runner.serve, scene.listener)
                try:
                    await wanted(scene)
                finally:
                    nursery.cancel_scope.cancel()
                    scene.close()

        trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0.05) if clock else None)

    test.__doc__, test.__name__ = act.__doc__, getattr(act, "__name__", "test")
    return test
