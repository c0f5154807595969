"""Zygotes that end, hang or cannot be: the next one makes the helpers, until there have been too many."""

import socket
import sys
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from codingagents.supervisor import lifecycle, zygote_client, zygote_keeper
from codingagents.supervisor.early import ZygoteProcess
from codingagents.supervisor.processes import Children
from codingagents.supervisor.reaper import Reaper
from codingagents.supervisor.zygote_keeper import ZygoteKeeper
from codingagents.trust.errors import ProcessError
from codingagents.trust.events import ZygoteReplaced

# Answers requests as a zygote does, with processes that are its own children.
ZYGOTE = """
import array, json, os, signal, socket, sys
control = socket.socket(fileno=3)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    data, fds, _, _ = socket.recv_fds(control, 4096, 4)
    if not data: break
    act(json.loads(data)["server"], fds)
"""
FAIL = "def act(server, fds): control.send(json.dumps({'pid': None, 'error': 'no ' + server}).encode())\n"
HANG = "def act(server, fds): os.kill(os.getpid(), signal.SIGSTOP)\n"
DIE = "def act(server, fds): os._exit(7)\n"


class Scripted(ZygoteProcess):
    """A script in a zygote's place."""

    def __init__(self, children: Children, script: str) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            argv = [sys.executable, "-I", "-c", script]
            self.child = children.spawn(argv, env={}, fds={2: 2, 3: theirs.fileno()})


class Scene:
    """A keeper; each zygote does what the next script says, the last one for ever. "" cannot be started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *scripts: str) -> None:
        self.children = Children()
        self.reaper = Reaper(self.children)
        self.replaced: list[ZygoteReplaced] = []
        self.made = 0
        self._scripts = scripts
        self.keeper = ZygoteKeeper(self.make(self.children), self.children, self.reaper)
        monkeypatch.setattr(zygote_keeper, "ZygoteProcess", self.make)
        monkeypatch.setattr(lifecycle, "FIRST_BACKOFF_SECONDS", 0.01)

    def make(self, children: Children) -> ZygoteProcess:
        script = self._scripts[min(self.made, len(self._scripts) - 1)]
        self.made += 1
        if not script:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return Scripted(children, script + ZYGOTE if "def act" in script else script)

    async def clone(self, server: str) -> str:
        """Ask for a helper, and return why there is none."""
        ours, theirs = socket.socketpair()
        with ours, theirs, pytest.raises(ProcessError) as failed:
            await self.keeper.clone(server, theirs, ours)
        return str(failed.value)

    def play(self, act: Callable[[], Awaitable[None]]) -> None:
        async def scene() -> None:
            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    await nursery.start(self.reaper.run)
                    nursery.start_soon(self.keeper.run, self.replaced.append)
                    await act()
                    self.keeper.close()
                    await self.reaper.wait(self.keeper.child)
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.cancel_scope.cancel()

        trio.run(scene)


def test_a_zygote_that_ends_is_replaced_and_the_next_one_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, DIE, FAIL)

    async def act() -> None:
        assert await scene.clone("one") == "the zygote is gone"
        assert await scene.clone("two") == "the zygote made no helper: no two"
        assert await scene.clone("three") == "the zygote made no helper: no three"

    scene.play(act)
    assert [event.reason for event in scene.replaced] == ["exited with 7"]
    assert scene.replaced[0].process_pid == scene.keeper.child.pid
    assert scene.made == 2


def test_one_that_does_not_answer_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zygote_client, "_CLONE_SECONDS", 0.2)
    scene = Scene(monkeypatch, HANG, FAIL)

    async def act() -> None:
        assert await scene.clone("one") == "the zygote does not answer: timeout"
        monkeypatch.setattr(zygote_client, "_CLONE_SECONDS", 10)
        assert await scene.clone("two") == "the zygote made no helper: no two"

    scene.play(act)
    assert [event.reason for event in scene.replaced] == ["killed by SIGKILL"]


def test_one_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, "raise SystemExit(3)", "", "", FAIL)

    async def act() -> None:
        with trio.fail_after(10):
            while not scene.replaced:  # noqa: ASYNC110 -- nothing announces it
                await trio.sleep(0.01)
        assert await scene.clone("one") == "the zygote made no helper: no one"

    scene.play(act)
    assert [event.reason for event in scene.replaced] == ["exited with 3"]
    assert scene.made == 4


def test_after_too_many_there_is_none_and_it_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for one is told as well."""
    scene = Scene(monkeypatch, "raise SystemExit(3)")

    async def act() -> None:
        with trio.fail_after(10):
            while scene.made < 1 + lifecycle.RESTART_BUDGET:  # noqa: ASYNC110 -- nothing announces it
                await trio.sleep(0.01)
        why = ""
        while "too often" not in why:  # until then the last of them is about to end
            why = await scene.clone("one")
        assert why == "the zygote is gone, and was replaced too often; last: exited with 3"

    scene.play(act)
    assert len(scene.replaced) == lifecycle.RESTART_BUDGET


def test_at_the_sessions_end_whoever_waits_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, "raise SystemExit(3)", FAIL)
    monkeypatch.setattr(lifecycle, "FIRST_BACKOFF_SECONDS", 60)

    async def act() -> None:
        while scene.keeper._is_there:  # noqa: ASYNC110 -- nothing announces it
            await trio.sleep(0.01)
        async with trio.open_nursery() as nursery:
            answers: list[str] = []

            async def ask() -> None:
                answers.append(await scene.clone("one"))

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            assert answers == []
            scene.keeper.close()
        assert answers == ["the session ends"]

    scene.play(act)
    assert scene.replaced == []
