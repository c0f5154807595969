"""Facts on their way up: batched, never blocking, counted when there is no room."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import msgspec
import uvloop

from codingagents.proxies.facts_out import BATCH_SECONDS, MAX_PENDING, FactsOut
from codingagents.trust import wire
from codingagents.trust.facts import AnyFact, Dropped, Failed, Pong, Request, SecretsTaken, TrustTaken, UpstreamHealth


def over_a_channel(test: Callable[[FactsOut, socket.socket], Awaitable[None]]) -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            async with asyncio.timeout(5):
                await test(FactsOut(asyncio.get_running_loop(), ours), theirs)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def receive_until(channel: socket.socket, kind: type[AnyFact]) -> list[AnyFact]:
    """Return all facts up to the first of `kind`."""
    lines = wire.LineBuffer()
    found: list[AnyFact] = []
    while not found or not isinstance(found[-1], kind):
        data = await asyncio.get_running_loop().sock_recv(channel, 1 << 20)
        assert data
        found += [wire.decode(AnyFact, line) for line in lines.feed(data)]
    return found


def test_facts_of_one_moment_leave_together_and_in_order() -> None:
    """One send for all of them, within the batch's time."""

    async def test(out: FactsOut, channel: socket.socket) -> None:
        for number in range(5):
            out.put(Failed(reason=str(number)))
        data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(channel, 1 << 16), 100 * BATCH_SECONDS)
        assert data.count(b"\n") == 5
        assert [wire.decode(AnyFact, line) for line in data.splitlines()] == [Failed(reason=str(n)) for n in range(5)]

    over_a_channel(test)


def test_a_full_channel_costs_facts_and_no_time() -> None:
    """What does not fit is counted, and the count follows when the supervisor reads again."""
    fact = Failed(reason="x" * 400)
    total = 4 * MAX_PENDING

    async def test(out: FactsOut, channel: socket.socket) -> None:
        for number in range(total):
            out.put(fact)
            if number % 100 == 0:
                out.flush()
        found = await receive_until(channel, Dropped)
        assert isinstance(found[-1], Dropped)
        assert found[-1].count > 0
        assert found[-1].count + len(found) - 1 == total

    over_a_channel(test)


def test_a_supervisor_that_is_gone_is_no_error_here() -> None:
    """The reader of the channel sees the end and acts on it."""

    async def test(out: FactsOut, channel: socket.socket) -> None:
        channel.close()
        out.put(Failed(reason=""))
        out.flush()

    over_a_channel(test)


def test_what_is_dropped_is_counted_all_the_same() -> None:
    """The helper's counts and its upstream's state come from every request, in order, sent or not."""
    total = MAX_PENDING + 10
    failed = Request(
        method="GET", status=502, error_type="dns_failed", request_bytes=0, response_bytes=0, duration_ms=0
    )

    async def test(out: FactsOut, channel: socket.socket) -> None:
        for _ in range(total):
            out.put(failed)
        assert (out.health().requests, out.health().errors) == (total, total)
        out.put(msgspec.structs.replace(failed, status=200, error_type=None))
        found = await receive_until(channel, Dropped)
        assert found[-1] == Dropped(count=11)
        assert [each.state for each in found if isinstance(each, UpstreamHealth)] == ["failing", "ok"]

    over_a_channel(test)


def test_of_an_upstream_that_comes_and_goes_unheard_the_last_state_is_told() -> None:
    """However often it changed: what waits for a supervisor that does not read is bounded, and ends as things are."""
    ok = Request(method="GET", status=200, error_type=None, request_bytes=0, response_bytes=0, duration_ms=0)
    failed = msgspec.structs.replace(ok, status=502, error_type="dns_failed")
    changes = 500

    async def test(out: FactsOut, channel: socket.socket) -> None:
        for _ in range(MAX_PENDING):
            out.put(Failed(reason=""))
        for _ in range(changes):
            for fact in (failed, failed, failed, ok):
                out.put(fact)
        for _ in range(3):
            out.put(failed)
        found = await receive_until(channel, Dropped)
        last = UpstreamHealth(state="failing", error_type="dns_failed")
        dropped = 4 * changes + 3 + 2 * changes  # the requests, and what was between the first state and the last
        assert found == [*[Failed(reason="")] * MAX_PENDING, last, Dropped(count=dropped)]

    over_a_channel(test)


def test_what_was_asked_for_is_answered_however_much_waits() -> None:
    """One more of another kind is dropped."""
    answers: list[AnyFact] = [
        Pong(number=1, connections=0, upstream_connections=0, requests=0, errors=0, refused=0),
        SecretsTaken(names=["TOKEN"]),
        TrustTaken(store_sha256="aa"),
    ]

    async def test(out: FactsOut, channel: socket.socket) -> None:
        for _ in range(MAX_PENDING):
            out.put(Failed(reason=""))
        for fact in [Failed(reason="one more"), *answers]:
            out.put(fact)
        found = await receive_until(channel, Dropped)
        assert found == [*[Failed(reason="")] * MAX_PENDING, *answers, Dropped(count=1)]

    over_a_channel(test)
