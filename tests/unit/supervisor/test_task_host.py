"""What makes tasks ends, hangs or cannot be confined: the next one makes them, until there have been too many."""

from __future__ import annotations

import functools
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

import task_scene
from codingagents.rewrite.specs import ExecSpec, TaskTotals
from codingagents.supervisor import lifecycle, task_host
from codingagents.supervisor.cgroups import TaskGroup
from codingagents.supervisor.confine_spec import ConfineSpec
from codingagents.supervisor.confined import TrapSettings
from codingagents.supervisor.early import TaskParentProcess
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.layers import Facts
from codingagents.supervisor.processes import Children
from codingagents.supervisor.reaper import Reaper
from codingagents.supervisor.task_host import Confinement, TaskHost
from codingagents.supervisor.task_spec import SandboxSpec
from codingagents.trust import checkpoint
from codingagents.trust.encoding import decode_line
from codingagents.trust.errors import ProcessError
from codingagents.trust.events import AnyEvent, LayerReport, TasksUnavailable
from codingagents.trust.vocabulary import LayerWish

# A task parent's beginning: it says that it has no sandbox and no trap, and that nothing was tried.
CONFINED = """
import json, os, signal, socket, sys, time
channel = socket.socket(fileno=3)
lines = channel.makefile("rb", buffering=0)  # what comes after belongs to others, with its descriptors
spec = json.loads(lines.readline())
def tell(pidfd=None, **message):
    line = json.dumps(message).encode() + b"\\n"
    if pidfd is None:
        channel.sendall(line)
    else:
        socket.send_fds(channel, [line], [pidfd])
tell(os.pidfd_open(os.getpid()), stub="sandbox-made", why="EPERM")
tell(stub="trapped", error="disabled", wait_killable=False)
tell(stub="observed", observations=[], trees=[])
assert json.loads(lines.readline()) == {"version": 1}
"""
# For each task: says its number on the channel that came, as a keeper says lines.
SERVE = (
    CONFINED
    + """
number = 0
while True:
    data, rights, _, _ = socket.recv_fds(channel, 1, 4)
    if not data: break
    number += 1
    assert data == b"T"
    os.write(rights[0], b"%d of %d with %d\\n" % (number, os.getpid(), len(rights)))
    for each in rights: os.close(each)
"""
)
DIE = "import os; os._exit(7)\n"
DIE_LATER = CONFINED + "os._exit(8)\n"
HANG = "import time; time.sleep(1000)\n"
STAY = CONFINED + "channel.recv(1); time.sleep(1000)\n"


class Scripted(TaskParentProcess):
    """A script in its place."""

    def __init__(self, children: Children, script: str) -> None:
        self._children = children
        self.channel, theirs = socket.socketpair()
        with theirs:
            argv = [sys.executable, "-I", "-c", script]
            self.child = children.spawn(argv, env={}, fds={2: 2, 3: theirs.fileno()})


class Scene:
    """A host; each process does what the next script says, the last one for ever. "" cannot be started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path, wishes: dict[str, LayerWish]) -> None:
        self.children = Children()
        self.reaper = Reaper(self.children)
        self.scripts: tuple[str, ...] = ()
        self.made = 0
        self.lost = 0
        self.probes = directory / "probes"
        self.probes.mkdir()
        self._file = directory / "events.jsonl"
        self.log = EventLog(
            os.open(self._file, os.O_CREAT | os.O_RDWR | os.O_APPEND),
            task_scene.SESSION,
            functools.partial(checkpoint.sign_checkpoint, task_scene.KEY, session=task_scene.SESSION),
        )
        settings = TrapSettings(exec_spec=ExecSpec(), log=self.log, scrubber=task_scene.SCRUBBER, on_trouble=print)
        self.host = TaskHost(
            Confinement(
                sandbox=self._sandbox,
                facts=Facts(),
                wishes=wishes,
                settings=settings,
                group=TaskGroup("", TaskTotals()),
            ),
            children=self.children,
            reaper=self.reaper,
            log=self.log,
            lost=self._lost,
        )
        monkeypatch.setattr(task_host, "TaskParentProcess", self._make)
        monkeypatch.setattr(lifecycle, "FIRST_BACKOFF_SECONDS", 0.01)

    def _make(self, children: Children) -> TaskParentProcess:
        script = self.scripts[min(self.made, len(self.scripts) - 1)]
        self.made += 1
        if not script:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return Scripted(children, script)

    async def _lost(self) -> None:
        self.lost += 1

    def _sandbox(self) -> SandboxSpec:
        probe = self.probes / str(self.made)
        probe.touch()
        confine = ConfineSpec(
            argv=[],
            environment={},
            role="task",
            working_directory="/",
            uid=None,
            gid=0,
            groups=[],
            umask=0,
            execute_trees=[],
            probe_file=str(probe),
            probe_nonce="n",
            death_signal=False,
        )
        return SandboxSpec(confine=confine, masks=[])

    def events(self) -> list[AnyEvent]:
        return [decode_line(line).event for line in self._file.read_bytes().splitlines()]

    def unavailable(self) -> list[tuple[str, bool]]:
        return [(event.reason, event.again) for event in self.events() if isinstance(event, TasksUnavailable)]

    async def make(self) -> str:
        """Have a task made, and return what was said on its channel."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                await self.host.make(theirs, [0, 1, 2])
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
            with trio.fail_after(task_scene.PATIENCE):
                return bytes(await stream.receive_some()).decode()


Act = Callable[[Scene], Awaitable[None]]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    def run(act: Act, *scripts: str, wishes: dict[str, LayerWish] | None = None) -> None:
        async def main() -> None:
            scene = Scene(monkeypatch, tmp_path, wishes or {})
            scene.scripts = scripts
            async with trio.open_nursery() as nursery:
                await nursery.start(scene.reaper.run)
                nursery.start_soon(scene.host.run)
                with trio.fail_after(30):
                    await act(scene)
                    await scene.host.stop(0.5)
                assert not scene.children.any_left()
                assert list(scene.probes.iterdir()) == []
                nursery.cancel_scope.cancel()
            scene.log.close(None)

        trio.run(main)

    return run


def test_nothing_is_started_before_somebody_wants_it(play: Callable[..., None]) -> None:
    async def act(scene: Scene) -> None:
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert (scene.made, scene.host.state, scene.host.held) == (0, "idle", None)
        scene.host.want()
        await task_scene.until(lambda: scene.host.state == "ready")
        assert scene.host.held is not None
        assert scene.host.held.role == "task"
        assert [event.role for event in scene.events() if isinstance(event, LayerReport)] == ["task"]

    play(act, SERVE)


def test_the_first_request_starts_it_and_all_are_made_by_it(play: Callable[..., None]) -> None:
    async def act(scene: Scene) -> None:
        said: list[str] = []

        async def once() -> None:
            said.append(await scene.make())

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(once)
        assert sorted(int(each.split()[0]) for each in said) == list(range(1, 21))
        assert {each.split(" ", 1)[1].rpartition(" ")[2] for each in said} == {"4\n"}
        assert scene.made == 1
        assert scene.unavailable() == []

    play(act, SERVE)


def test_one_that_ends_is_replaced_and_what_it_made_is_ended(play: Callable[..., None]) -> None:
    async def act(scene: Scene) -> None:
        first = await scene.make()
        os.kill(int(first.split()[2]), 9)
        await task_scene.until(lambda: scene.lost == 1)
        second = await scene.make()
        assert first.split()[2] != second.split()[2]
        assert scene.unavailable() == [("what makes tasks killed by SIGKILL", True)]

    play(act, SERVE)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (DIE, "the task's stub ended without a word"),
        (DIE_LATER, "what makes tasks exited with 8"),
        ("", "what makes tasks cannot be started: Resource temporarily unavailable"),
    ],
)
def test_after_too_many_ends_there_is_no_more(script: str, why: str, play: Callable[..., None]) -> None:
    async def act(scene: Scene) -> None:
        scene.host.want()
        await task_scene.until(lambda: scene.host.state == "failed")
        told = scene.unavailable()
        assert len(told) == scene.made == lifecycle.RESTART_BUDGET + 1
        assert [again for _, again in told] == [True] * lifecycle.RESTART_BUDGET + [False]
        assert {reason for reason, _ in told} == {why}
        with pytest.raises(ProcessError, match="there have been too many"):
            await scene.make()

    play(act, script)


def test_a_failure_that_passes_is_survived(play: Callable[..., None]) -> None:
    async def act(scene: Scene) -> None:
        while not (said := await scene.make()):  # it went to one that was about to end
            pass
        assert said.startswith("1 of ")
        assert len(scene.unavailable()) == 3

    play(act, "", DIE, DIE_LATER, SERVE)


def test_one_without_a_layer_that_is_required_makes_no_task(play: Callable[..., None]) -> None:
    async def act(scene: Scene) -> None:
        with pytest.raises(ProcessError, match="required layers are not enforced here: exec_trap"):
            await scene.make()
        await task_scene.until(lambda: bool(scene.unavailable()))
        assert scene.made == 1
        ((why, again),) = scene.unavailable()
        assert "exec_trap" in why
        assert not again

    play(act, SERVE, wishes={"exec_trap": "require"})


@pytest.mark.parametrize("script", [SERVE, HANG, STAY, DIE, ""])
def test_it_can_be_stopped_at_any_moment(script: str, play: Callable[..., None]) -> None:
    async def act(scene: Scene) -> None:
        scene.host.want()
        await task_scene.until(lambda: scene.made == 1)

    play(act, script)


def test_a_request_that_waits_at_the_end_is_refused(play: Callable[..., None]) -> None:
    async def act(scene: Scene) -> None:
        async def ask() -> None:
            with pytest.raises(ProcessError, match="the session ends"):
                await scene.make()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await task_scene.until(lambda: scene.made == 1)
            await scene.host.stop(0.1)

    play(act, HANG)


def test_a_request_does_not_wait_for_ever(play: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_host, "WAIT_SECONDS", 0.05)

    async def act(scene: Scene) -> None:
        with pytest.raises(ProcessError, match="is not there yet"):
            await scene.make()

    play(act, HANG)
