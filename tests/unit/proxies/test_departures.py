"""Clients that are not read from, and go: with sockets, and uvloop as in a helper."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from codingagents.proxies.departures import Departures


def in_a_loop(test: Callable[[Departures], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(10):
            await test(Departures(asyncio.get_running_loop()))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@pytest.mark.parametrize("end", [socket.socket.close, lambda peer: peer.shutdown(socket.SHUT_WR)])
def test_who_goes_is_noticed_behind_what_nobody_reads(end: Callable[[socket.socket], None]) -> None:
    """Once; who stays is not, however much it sends."""

    async def test(departures: Departures) -> None:
        (ours, theirs), (other, peer) = socket.socketpair(), socket.socketpair()
        with ours, theirs, other, peer:
            seen: list[str] = []
            gone = asyncio.Event()
            departures.watch(other.fileno(), lambda: seen.append("the other"))

            def ours_goes() -> None:
                seen.append("ours")
                gone.set()

            departures.watch(ours.fileno(), ours_goes)
            for each in (peer, theirs):
                each.sendall(b"x" * 1000)
            end(theirs)
            await gone.wait()
            await asyncio.sleep(0)
            assert seen == ["ours"]

    in_a_loop(test)


def test_who_is_read_from_again_is_not_watched() -> None:
    """Of two that are gone at the same moment, the one that the other one's end takes along is not told of."""

    async def test(departures: Departures) -> None:
        pairs = [socket.socketpair() for _ in range(3)]
        seen: list[int] = []
        first_gone = asyncio.Event()
        told: list[Callable[[], None]] = []

        def goes(number: int) -> Callable[[], None]:
            def gone() -> None:
                seen.append(number)
                for each in (0, 1):
                    departures.forget(pairs[each][0].fileno(), told[each])
                first_gone.set()

            return gone

        for number, (ours, _) in enumerate(pairs):
            told.append(goes(number))
            departures.watch(ours.fileno(), told[number])
        departures.forget(pairs[2][0].fileno(), told[2])
        for _, theirs in pairs:
            theirs.close()
        await first_gone.wait()
        await asyncio.sleep(0)
        assert seen in ([0], [1])
        for ours, _ in pairs:
            ours.close()

    in_a_loop(test)


def test_a_descriptor_that_is_anothers_by_now_is_not_forgotten() -> None:
    """A connection is closed before its loss is told, and its descriptor taken by the next client."""

    async def test(departures: Departures) -> None:
        (first, peer), (second, theirs) = socket.socketpair(), socket.socketpair()
        with first, peer, second, theirs:
            gone = asyncio.Event()

            def former() -> None:
                raise AssertionError

            departures.watch(first.fileno(), former)
            os.dup2(second.fileno(), first.fileno())
            departures.watch(first.fileno(), gone.set)
            departures.forget(first.fileno(), former)
            theirs.close()
            await gone.wait()

    in_a_loop(test)
