"""One task between a requester and its keeper, whichever of them goes first, lies or falls silent."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

import task_scene
from codingagents.supervisor import task_life
from codingagents.supervisor.task_spec import TaskExit, TaskFailed, TaskKill, TaskOver, TaskSignal
from codingagents.trust.events import AnyEvent, TaskEnded, TaskGone, TaskRefused, TaskStarted
from task_scene import Client, Keeper, Scene

FAILED = TaskFailed(step="running /no/hunter22", errno="ENOENT", code=127)


async def asked(scene: Scene) -> tuple[Client, Keeper]:
    client = await scene.client()
    await client.ask(b"id")
    keeper = await scene.keeper()
    await keeper.spec()
    return client, keeper


async def running(scene: Scene) -> tuple[Client, Keeper]:
    client, keeper = await asked(scene)
    await keeper.runs()
    assert await client.line() == b"started %d" % os.getpid()
    return client, keeper


async def over(scene: Scene) -> list[AnyEvent]:
    """Wait for the end of every task; return what was recorded."""
    await task_scene.until(lambda: not scene.runner.rows())
    return scene.events()


@task_scene.of
async def test_what_cannot_be_run_is_told_with_its_code(scene: Scene) -> None:
    client, keeper = await asked(scene)
    await keeper.tell(FAILED)
    keeper.close()
    assert await client.line() == b"failed 127 running /no/hunter22 failed with ENOENT"
    assert await client.line() == b""
    (event,) = await over(scene)
    assert isinstance(event, TaskRefused)
    assert event.reason == "running /no/[secret TOKEN] failed with ENOENT"


@task_scene.of
async def test_signals_reach_the_command_and_those_that_came_early_wait_for_it(scene: Scene) -> None:
    client = await scene.client()
    await client.send(b"", ())
    await client.ask(b"id")
    await client.send(b"signal 15\nsignal 2\n")
    keeper = await scene.keeper()
    await keeper.spec()
    await trio.testing.wait_all_tasks_blocked(0.05)
    await keeper.runs()
    await client.send(b"signal 1\n")
    for number in (15, 2, 1):
        assert await keeper.order() == TaskSignal(number=number)


@task_scene.of
async def test_a_command_that_a_signal_ends_is_told_so(scene: Scene) -> None:
    client, keeper = await running(scene)
    await keeper.tell(TaskExit(status=signal.SIGSEGV | 0x80, left=0))
    assert await client.line() == b"killed 11"
    keeper.close()
    ended = (await over(scene))[1]
    assert isinstance(ended, TaskEnded)
    assert (ended.exit_code, ended.signal, ended.reason) == (139, 11, "ended")


@task_scene.of
async def test_what_the_command_leaves_outlives_the_requester_and_is_told_of_when_it_goes(scene: Scene) -> None:
    client, keeper = await running(scene)
    await keeper.tell(TaskExit(status=0, left=2))
    assert await client.line() == b"exited 0"
    assert await client.line() == b""
    client.close()
    await trio.testing.wait_all_tasks_blocked(0.05)
    (row,) = scene.runner.rows()
    assert (row.state, row.left) == ("left", 2)
    await keeper.tell(TaskOver())
    keeper.close()
    started, ended, gone = await over(scene)
    assert isinstance(started, TaskStarted)
    assert isinstance(ended, TaskEnded)
    assert (ended.reason, ended.left) == ("ended", 2)
    assert isinstance(gone, TaskGone)
    assert gone.task == started.task


@task_scene.of
async def test_a_requester_that_goes_takes_its_task_along(scene: Scene) -> None:
    client, keeper = await running(scene)
    client.close()
    assert await keeper.order() == TaskKill()
    await keeper.tell(TaskExit(status=9, left=0))
    await keeper.tell(TaskOver())
    keeper.close()
    ended = (await over(scene))[1]
    assert isinstance(ended, TaskEnded)
    assert (ended.reason, ended.signal) == ("requester gone", 9)


@task_scene.of
async def test_a_requester_that_goes_before_the_command_runs_is_recorded(scene: Scene) -> None:
    client, keeper = await asked(scene)
    client.close()
    assert await keeper.order() == TaskKill()
    keeper.close()
    (event,) = await over(scene)
    assert isinstance(event, TaskRefused)
    assert event.reason == "requester gone, before the command ran"


@pytest.mark.parametrize("said", [b"signal 0\n", b"signal 65\n", b"kill\n", b"\n", b"x" * 1000, b"signal 10\n" * 100])
def test_who_says_what_it_may_not_is_as_good_as_gone(said: bytes, tmp_path: Path) -> None:
    @task_scene.of
    async def play(scene: Scene) -> None:
        client, keeper = await asked(scene)
        await client.send(said)
        assert await keeper.order() == TaskKill()

    play(tmp_path)


@task_scene.of
async def test_a_keeper_that_is_lost_while_its_command_runs_is_a_kill(scene: Scene) -> None:
    client, keeper = await running(scene)
    keeper.close()
    assert await client.line() == b"killed 9"
    assert await client.line() == b""
    ended = (await over(scene))[1]
    assert isinstance(ended, TaskEnded)
    assert (ended.reason, ended.signal, ended.exit_code) == ("keeper lost", 9, 137)


@task_scene.of
async def test_a_keeper_that_is_lost_before_is_a_failure_of_ours(scene: Scene) -> None:
    client, keeper = await asked(scene)
    keeper.close()
    assert await client.line() == b"failed 125 keeper lost, before the command ran"
    (event,) = await over(scene)
    assert isinstance(event, TaskRefused)


@task_scene.of
async def test_a_keeper_that_is_lost_later_leaves_nothing(scene: Scene) -> None:
    client, keeper = await running(scene)
    await keeper.tell(TaskExit(status=0, left=1))
    assert await client.line() == b"exited 0"
    keeper.close()
    assert isinstance((await over(scene))[-1], TaskGone)


@pytest.mark.parametrize("said", [b"nonsense\n", b"x" * 5000])
def test_a_keeper_that_speaks_nonsense_is_no_keeper(said: bytes, tmp_path: Path) -> None:
    @task_scene.of
    async def play(scene: Scene) -> None:
        client, keeper = await asked(scene)
        await keeper.say(said)
        assert await client.line() == b"failed 125 keeper lost, before the command ran"
        assert await keeper.order() is None  # which is its order to kill all

    play(tmp_path)


@task_scene.of
async def test_an_end_that_comes_twice_is_told_once(scene: Scene) -> None:
    client, keeper = await running(scene)
    await keeper.tell(TaskExit(status=0, left=1))
    await keeper.tell(TaskExit(status=256, left=1))
    assert await client.line() == b"exited 0"
    assert await keeper.order() is None
    events = await over(scene)
    assert [type(event) for event in events] == [TaskStarted, TaskEnded, TaskGone]


@task_scene.of
async def test_what_cannot_be_recorded_does_not_run(scene: Scene) -> None:
    client, keeper = await asked(scene)
    scene.log.close(None)
    await keeper.runs()
    assert await keeper.order() == TaskKill()
    assert (await client.line()).startswith(b"failed 125 the event log ")
    await keeper.tell(TaskExit(status=9, left=0))
    assert await client.line() == b""
    keeper.close()
    await task_scene.until(lambda: not scene.runner.rows())
    scene.log = scene.open_log()


@task_scene.of(clock=True)
async def test_a_requester_that_takes_no_answer_holds_up_nobody_for_long(scene: Scene) -> None:
    _, keeper = await running(scene)
    connection = next(iter(scene.runner._lives))._requester.connection
    connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    with trio.move_on_after(0.01):
        while True:
            await connection.send(b"x" * 4096)
    await keeper.tell(TaskExit(status=0, left=0))
    keeper.close()
    await trio.sleep(task_life.ANSWER_SECONDS + 1)
    assert scene.runner.rows() == []
    assert isinstance(scene.events()[-1], TaskEnded)
