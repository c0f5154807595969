"""The runner at its socket: what is taken, what is refused and said, and what hostile clients get."""

from __future__ import annotations

import os

import trio

import task_scene
from codingagents.supervisor import runner
from codingagents.supervisor.task_spec import TaskExit, TaskOver
from codingagents.supervisor.task_wire import MAX_REQUEST
from codingagents.trust.events import TaskEnded, TaskRefused, TaskStarted
from task_scene import Client, Keeper, Scene


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


async def running(scene: Scene, *argv: bytes) -> tuple[Client, Keeper]:
    client = await scene.client()
    await client.ask(*(argv or (b"id",)))
    keeper = await scene.keeper()
    await keeper.spec()
    await keeper.runs()
    assert await client.line() == b"started %d" % os.getpid()
    return client, keeper


async def refused(client: Client, scene: Scene) -> str:
    """Return why, as the client was told and as it was recorded."""
    word, code, sentence = (await client.line()).split(b" ", 2)
    assert (word, code) == (b"failed", b"125")
    assert await client.line() == b""
    event = scene.events()[-1]
    assert isinstance(event, TaskRefused)
    assert event.reason == sentence.decode()
    assert (event.requester_pid, event.requester_user_id) == (os.getpid(), os.getuid())
    return event.reason


@task_scene.of
async def test_a_request_becomes_a_task_with_the_very_descriptors_that_came(scene: Scene) -> None:
    reading, writing = os.pipe()
    client = await scene.client()
    await client.ask(b"id", b"-u", descriptors=(reading, writing, 2))
    keeper = await scene.keeper()
    spec = await keeper.spec()
    assert (spec.task, spec.argv, spec.working_directory, spec.terminal) == (1, ["id", "-u"], "/", False)
    assert "TERM=t" in spec.environment
    assert list(map(os.fstat, keeper.descriptors)) == list(map(os.fstat, (reading, writing, 2)))
    await keeper.runs()
    assert await client.line() == b"started %d" % os.getpid()
    started = scene.events()[0]
    assert isinstance(started, TaskStarted)
    assert (started.task, started.process_pid, started.user_id) == (1, os.getpid(), 4321)
    assert (started.requester_pid, started.requester_user_id) == (os.getpid(), os.getuid())
    assert (started.command_args, started.working_directory, started.terminal) == (["id", "-u"], "/", False)
    assert started.environment == ["CODING_AGENTS_TASK", "HOME", "PATH", "TERM"]
    await keeper.tell(TaskExit(status=3 << 8, left=0))
    assert await client.line() == b"exited 3"
    assert await client.line() == b""
    ended = scene.events()[1]
    assert isinstance(ended, TaskEnded)
    assert (ended.exit_code, ended.signal, ended.reason, ended.left) == (3, None, "ended", 0)
    await keeper.tell(TaskOver())
    keeper.close()
    await task_scene.until(lambda: not scene.runner.rows())
    assert len(scene.events()) == 2


@task_scene.of
async def test_a_terminal_task_is_given_the_connection_and_not_the_descriptors(scene: Scene) -> None:
    client = await scene.client()
    await client.ask(b"sh", terminal=True)
    keeper = await scene.keeper()
    assert (await keeper.spec()).terminal
    (connection,) = keeper.descriptors
    os.write(connection, b"terminal\n")
    assert await client.line() == b"terminal"


@task_scene.of
async def test_a_request_may_come_in_pieces_and_be_large(scene: Scene) -> None:
    argument = b"\xfe" * 2_000_000
    client = await scene.client()
    await client.ask(b"x", argument)
    keeper = await scene.keeper()
    spec = await keeper.spec()
    assert spec.argv == ["x", "\\xfe" * len(argument)]
    small = await scene.client()
    await small.send(b"T", (0, 1, 2))
    for piece in (b"1 2", b"0\npipes\x000\x000\0/\x00", b"1\0id\0A=", b"\0signal 15\n"):
        await trio.testing.wait_all_tasks_blocked()
        await small.send(piece)
    keeper = await scene.keeper()
    assert (await keeper.spec()).argv == ["id"]


@task_scene.of
async def test_what_is_no_request_is_refused_with_a_reason(scene: Scene) -> None:
    for sent, why in (
        (b"GET / HTTP/1.1\r\n\r\n", "it does not start as a request"),
        (b"\n", "it does not start as a request"),
        (b"T1 99999999999999\n", "it does not start as a request"),
        (b"T1 %d\n" % (MAX_REQUEST + 1), f"it is over {MAX_REQUEST} bytes"),
        (b"T1 4\nabc\0", "it is neither for pipes nor for a terminal"),
    ):
        client = await scene.client()
        await client.send(sent, (0, 1, 2))
        assert await refused(client, scene) == why


@task_scene.of
async def test_descriptors_are_three_and_what_else_comes_is_closed(scene: Scene) -> None:
    before = open_descriptors()
    for count in (0, 1, 2, 4, 200):
        client = await scene.client()
        await client.ask(b"id", descriptors=[0] * count)
        assert "3 descriptors" in await refused(client, scene)
        client.close()
    await task_scene.until(lambda: open_descriptors() == before)


@task_scene.of
async def test_descriptors_that_come_later_are_never_ours(scene: Scene) -> None:
    nothing = open_descriptors()
    client, keeper = await running(scene)
    # Each end of the connection and of the task's channel, and what the keeper was handed.
    await task_scene.until(lambda: len(open_descriptors()) - len(nothing) == 4 + 3)
    before = open_descriptors()
    await client.send(b"signal 10\n", [0] * 100)
    assert await keeper.order() is not None
    await task_scene.until(lambda: open_descriptors() == before)


@task_scene.of(clock=True)
async def test_who_is_slow_is_told_so(scene: Scene) -> None:
    for begun in (b"", b"T1", b"T1 500\npipes", b"T1 500000\npipes"):
        client = await scene.client()
        if begun:
            await client.send(begun, (0, 1, 2))
        assert await refused(client, scene) == "the request was not whole within 5 seconds"


@task_scene.of
async def test_who_goes_before_its_request_is_whole_is_recorded_but_no_mere_look(scene: Scene) -> None:
    for begun in (b"", b"T1 500\npipes"):
        client = await scene.client()
        if begun:
            await client.send(begun, (0, 1, 2))
        client.close()
    event = await scene.event()
    assert isinstance(event, TaskRefused)
    assert event.reason == "the requester was gone before its request was whole"
    await trio.testing.wait_all_tasks_blocked()
    assert len(scene.events()) == 1


@task_scene.of
async def test_a_fault_of_ours_ends_one_task_and_is_recorded(scene: Scene) -> None:
    scene.host.fault = RuntimeError("nobody thought of this")
    client = await scene.client()
    await client.ask(b"id")
    assert await client.line() == b""
    event = await scene.event()
    assert isinstance(event, TaskRefused)
    assert event.reason == "internal error: RuntimeError"
    scene.host.fault = None
    await running(scene)


@task_scene.of
async def test_connections_have_a_limit_and_half_open_ones_count(scene: Scene) -> None:
    clients = [await scene.client() for _ in range(runner.MAX_CONNECTIONS)]
    await trio.testing.wait_all_tasks_blocked()
    late = await scene.client()
    await late.ask(b"id")
    assert await refused(late, scene) == f"the runner has {runner.MAX_CONNECTIONS} connections already"
    clients.pop().close()
    await task_scene.until(lambda: scene.runner._asking < runner.MAX_CONNECTIONS)  # a thread has seen that it is gone
    await running(scene)  # the control: there is room again


@task_scene.of
async def test_tasks_that_run_have_a_limit(scene: Scene) -> None:
    tasks = [await running(scene) for _ in range(runner.MAX_RUNNING)]
    assert [row.task for row in scene.runner.rows()] == list(range(1, runner.MAX_RUNNING + 1))
    late = await scene.client()
    await late.ask(b"id")
    assert await refused(late, scene) == f"{runner.MAX_RUNNING} tasks run already"
    client, keeper = tasks.pop()
    await keeper.tell(TaskExit(status=0, left=2))
    assert await client.line() == b"exited 0"
    assert [(row.state, row.left) for row in scene.runner.rows()][-1] == ("left", 2)
    await running(scene)  # what it left does not count among those


@task_scene.of
async def test_tasks_that_left_processes_have_a_limit_too(scene: Scene) -> None:
    for _ in range(runner.MAX_LEFT):
        client, keeper = await running(scene)
        await keeper.tell(TaskExit(status=0, left=1))
        assert await client.line() == b"exited 0"
        client.close()
    late = await scene.client()
    await late.ask(b"id")
    assert "have processes that run on" in await refused(late, scene)


@task_scene.of
async def test_without_what_makes_tasks_a_request_is_refused(scene: Scene) -> None:
    scene.host.broken = "no task can be run: hunter22"
    client = await scene.client()
    await client.ask(b"id")
    assert await client.line() == b"failed 125 no task can be run: hunter22"
    event = scene.events()[0]
    assert isinstance(event, TaskRefused)
    assert event.reason == "no task can be run: [secret TOKEN]"


@task_scene.of
async def test_stopping_asks_first_and_kills_what_stays(scene: Scene) -> None:
    clients = [await running(scene) for _ in range(2)]
    scene.nursery.start_soon(scene.runner.stop, 0.1)
    for _, keeper in clients:
        orders = [await keeper.order() for _ in range(3)]
        assert [str(order) for order in orders] == ["TaskSignal(number=15)", "TaskSignal(number=18)", "TaskKill()"]
        await keeper.tell(TaskExit(status=9, left=0))
        keeper.close()
    for client, _ in clients:
        assert await client.line() == b"killed 9"
    assert [event.reason for event in scene.events() if isinstance(event, TaskEnded)] == ["session ends"] * 2
    late = await scene.client()
    await late.ask(b"id")
    (await scene.keeper()).close()
    assert await refused(late, scene) == "the session ends"


@task_scene.of
async def test_a_storm_of_requests_is_answered_each_by_its_own(scene: Scene) -> None:
    told: dict[int, bytes] = {}

    async def one(number: int) -> None:
        client = await scene.client()
        await client.ask(b"%d" % number)
        await client.line()
        told[number] = await client.line()

    async def keep() -> None:
        while True:
            keeper = await scene.keeper()
            number = int((await keeper.spec()).argv[0])
            await keeper.runs()
            await keeper.tell(TaskExit(status=number << 8, left=0))
            await keeper.tell(TaskOver())
            keeper.close()

    async with trio.open_nursery() as nursery:
        keeping = trio.CancelScope()

        async def keep_on() -> None:
            with keeping:
                await keep()

        nursery.start_soon(keep_on)
        async with trio.open_nursery() as asking:
            for number in range(100):
                asking.start_soon(one, number)
        keeping.cancel()
    assert told == {number: b"exited %d" % number for number in range(100)}


def test_the_limits_fit_into_what_a_process_may_open() -> None:
    """Each connection, each task's channel, descriptors that are held, channels that are handed on."""
    held = runner._HOLDING * (3 + 2)
    assert runner.MAX_CONNECTIONS + runner.MAX_RUNNING + runner.MAX_LEFT + held < 1024 - 128
