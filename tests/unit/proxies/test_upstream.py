"""The connections of a helper: which are used again, and for how long; on real sockets, with a clock of the test's."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import uvloop

from codingagents.proxies.connection import IDLE_SECONDS, MAX_AGE_SECONDS, Connection
from codingagents.proxies.dial import DialFailed
from codingagents.proxies.facts_out import FactsOut
from codingagents.proxies.upstream import Upstream
from codingagents.rewrite.specs import LimitsSpec, RemoteSpec
from codingagents.trust.errors import ConfigError
from descriptors import sockets


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    upstream: Upstream
    server: socket.socket
    clock: Clock
    loop: asyncio.AbstractEventLoop

    async def dial(self) -> tuple[Connection, socket.socket]:
        """Return a fresh connection and the server's end of it."""
        dialing = asyncio.ensure_future(self.upstream.dial())
        there, _ = await self.loop.sock_accept(self.server)
        return await dialing, there

    async def settle(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 -- what is waited for is in the kernel or another object
                await asyncio.sleep(0.001)


def with_upstream(test: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        channel, other = socket.socketpair()
        with socket.create_server(("127.0.0.1", 0)) as server, channel, other:
            server.setblocking(False)
            channel.setblocking(False)
            port = server.getsockname()[1]
            remote = RemoteSpec(
                name="srv", scheme="http", host="127.0.0.1", port=port, path="/", limits=LimitsSpec(connect_seconds=5.0)
            )
            clock = Clock()
            upstream = Upstream(loop, remote, None, FactsOut(loop, channel), now=clock)
            bench = Bench(upstream, server, clock, loop)
            async with asyncio.timeout(10):
                await test(bench)
            upstream.close_idle(all_of_them=True)
            await bench.settle(lambda: upstream.open == 0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def test_an_idle_connection_is_used_again_and_the_latest_first() -> None:
    """What is between two requests counts as open."""

    async def test(bench: Bench) -> None:
        (one, end_of_one), (two, end_of_two) = await bench.dial(), await bench.dial()
        with end_of_one, end_of_two:
            assert bench.upstream.open == 2
            one.release(None)
            two.release(None)
            assert bench.upstream.take() is two
            assert two.reused
            assert bench.upstream.take() is one
            assert bench.upstream.take() is None
            one.close()
            two.close()

    with_upstream(test)


def test_a_connection_that_is_always_busy_grows_no_older_than_others() -> None:
    """It takes its last request at its greatest age, whatever it was used for in between."""

    async def test(bench: Bench) -> None:
        connection, there = await bench.dial()
        with there:
            born = bench.clock.now
            while bench.clock.now + 1 < born + MAX_AGE_SECONDS:
                bench.clock.now += 1.0
                connection.release(None)
                assert bench.upstream.take() is connection
            connection.release(None)
            bench.clock.now = born + MAX_AGE_SECONDS + 0.1
            assert bench.upstream.take() is None
            await bench.settle(lambda: bench.upstream.open == 0)

    with_upstream(test)


@pytest.mark.parametrize(("told", "seconds"), [(None, IDLE_SECONDS), (3, 2.0), (60, 59.0)])
def test_an_idle_connection_is_left_before_the_server_leaves_it(told: int | None, seconds: float) -> None:
    """After the time the server said, less a second; without it, before the shortest that servers are known for."""

    async def test(bench: Bench) -> None:
        for late in (False, True):
            connection, there = await bench.dial()
            with there:
                connection.release(told)
                bench.clock.now += seconds + (0.5 if late else -0.5)
                assert (bench.upstream.take() is connection) == (not late)
                connection.close()

    with_upstream(test)


@pytest.mark.parametrize("ending", ["close", "half", "data"])
def test_what_the_server_has_ended_or_spoiled_takes_no_request(ending: str) -> None:
    """Seen in the kernel, also where the loop has not come to it: a POST must not be written onto it."""

    async def test(bench: Bench) -> None:
        connection, there = await bench.dial()
        control, end_of_control = await bench.dial()
        with there, end_of_control:
            control.release(None)
            connection.release(None)
            if ending == "close":
                there.close()
            elif ending == "half":
                there.shutdown(socket.SHUT_WR)
            else:
                there.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
            bench.clock.now += 0.1  # nothing was awaited: the loop knows nothing
            assert not connection.ended
            assert bench.upstream.take() is control
            assert bench.upstream.take() is None
            control.close()

    with_upstream(test)


def test_a_new_epoch_closes_what_is_idle_and_does_not_take_back_what_is_busy() -> None:
    """Who has a stream keeps it; nothing made before is used again."""

    async def test(bench: Bench) -> None:
        (idle, end_of_idle), (busy, end_of_busy) = await bench.dial(), await bench.dial()
        with end_of_idle, end_of_busy:
            idle.release(None)
            bench.upstream.begin_epoch()
            await bench.settle(lambda: bench.upstream.open == 1)
            busy.write(b"x")
            assert await bench.loop.sock_recv(_nonblocking(end_of_busy), 10) == b"x"
            busy.release(None)
            await bench.settle(lambda: bench.upstream.open == 0)  # at once, and not only when one is wanted
            assert bench.upstream.take() is None
            fresh, there = await bench.dial()
            with there:
                fresh.release(None)
                assert bench.upstream.take() is fresh
                fresh.close()

    with_upstream(test)


def test_what_is_idle_is_asked_for_its_epoch_when_it_is_taken() -> None:
    """Whoever began the epoch has closed it already; nothing hangs on that alone."""

    async def test(bench: Bench) -> None:
        (former, end_of_former), (latter, end_of_latter) = await bench.dial(), await bench.dial()
        with end_of_former, end_of_latter:
            former.release(None)
            assert bench.upstream.take() is former  # the control
            former.release(None)
            bench.upstream.epoch += 1
            latter.epoch += 1
            latter.release(None)
            assert bench.upstream.take() is latter
            assert bench.upstream.take() is None
            assert former.ended
            latter.close()

    with_upstream(test)


def test_streams_do_not_exhaust_anything() -> None:
    """As many connections as clients; another one is always to be had."""

    async def test(bench: Bench) -> None:
        made = [await bench.dial() for _ in range(150)]
        assert bench.upstream.open == 150
        for connection, there in made:
            connection.close()
            there.close()

    with_upstream(test)


class Late:
    """A loop that hands a connection over only after its end; everything else is the loop's own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, bench: Bench) -> None:
        self._loop = loop
        self._bench = bench

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(self, *args: Any, **kwargs: Any) -> tuple[Any, Connection]:
        transport, connection = await self._loop.create_connection(*args, **kwargs)
        await self._bench.settle(lambda: connection.ended)
        return transport, connection


@pytest.mark.parametrize("greeting", [b"220 mail.example ESMTP\r\n", b""])
def test_a_connection_that_is_over_before_it_is_used_is_none(greeting: bytes) -> None:
    """Whoever accepts only to speak or to close: no relay waits for an answer that cannot come."""

    async def test(bench: Bench) -> None:
        bench.upstream._loop = Late(bench.loop, bench)  # type: ignore[assignment]  # see Late
        dialing = asyncio.ensure_future(bench.upstream.dial())
        there, _ = await bench.loop.sock_accept(bench.server)
        there.send(greeting)
        there.close()
        with pytest.raises(DialFailed) as caught:
            await dialing
        assert caught.value.code == "connect_failed"
        assert "before anything was asked" in caught.value.detail

    with_upstream(test)


def test_plain_http_goes_through_no_proxy() -> None:
    """It reaches this machine only, and a proxy would take it anywhere."""
    remote = RemoteSpec(name="srv", scheme="http", host="127.0.0.1", port=1, path="/", proxy="127.0.0.1:3128")
    loop = asyncio.new_event_loop()
    with socket.socket() as channel, pytest.raises(ConfigError, match="proxy goes with https only"):
        Upstream(loop, remote, None, FactsOut(loop, channel))
    loop.close()


def test_no_descriptor_is_left_by_a_hundred_failed_dials() -> None:
    """Refused, each time."""

    async def test(bench: Bench) -> None:
        bench.server.close()
        before = sockets()
        for _ in range(100):
            with pytest.raises(DialFailed):
                await bench.upstream.dial()
        assert sockets() <= before

    with_upstream(test)


def _nonblocking(end: socket.socket) -> socket.socket:
    end.setblocking(False)
    return end
