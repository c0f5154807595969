"""A minute of 200 concurrent streams whose clients and upstream die at random: nothing wrong is said, nothing leaks.

The kernel's own count of descriptors and the helper's of connections stand for its tasks too: the only tasks that a
helper makes are dials, and each ends in a connection or is cancelled with its client's. The seed of a run is printed;
`SOAK_SEED` repeats its choices, though not their timing.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from codingagents.rewrite.specs import LimitsSpec, Ping, RemoteSpec
from codingagents.trust import facts
from helper_rig import BEARER, Helper, Zygote, closing_children
from memory_use import descriptors, private_bytes
from scripted_upstream import Upstream
from soak.clients import Clients

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="helpers take UIDs of their own: needs root")

STREAMS = 200
WARM_UP_SECONDS = 12.0
SOAK_SECONDS = 30.0
GROWTH = 2 << 20  # bytes
SETTLE_SECONDS = 6.0  # a helper looks every 5 s for memory that it can give back
QUIET_SECONDS = 30.0  # by then all is over that was going on; a helper that leaks never gets there

PROGRAM = Path(__file__).parent / "soak" / "upstream.py"


class Flaky:
    """The upstream's process; it is killed and made anew on the same port."""

    def __init__(self, directory: Path, seed: str) -> None:
        names = Upstream()  # for its certificates alone
        self.remote: RemoteSpec
        (directory / "chain").write_text(names.leaf.chain_pem)
        (directory / "key").write_text(names.leaf.key_pem)
        self._names = names
        self._arguments = [str(directory / "chain"), str(directory / "key"), seed]
        self.port = 0
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(PROGRAM), str(self.port), *self._arguments], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        with self._process.stdout:
            word, port = self._process.stdout.readline().split()
        assert word == b"ready"
        self.port = self._names.port = int(port)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def spec(self) -> RemoteSpec:
        limits = LimitsSpec(connections=STREAMS + 20, connect_seconds=5.0)
        return self._names.remote(limits=limits)


@pytest.fixture
def upstream(tmp_path: Path, seed: str) -> Iterator[Flaky]:
    flaky = Flaky(tmp_path, seed)
    yield flaky
    flaky.kill()


@pytest.fixture
def seed() -> str:
    chosen = os.environ.get("SOAK_SEED") or str(random.randrange(1 << 32))
    print(f"SOAK_SEED={chosen}")
    return chosen


@contextlib.contextmanager
def read_facts(helper: Helper) -> Iterator[None]:
    """Take the helper's facts, as the supervisor does, while the loop runs."""
    loop = asyncio.get_running_loop()
    loop.add_reader(helper.channel, lambda: helper.channel.recv(1 << 16))
    try:
        yield
    finally:
        loop.remove_reader(helper.channel)


def quiet(helper: Helper, numbers: Iterator[int]) -> int:
    """Wait until the helper has no connection; return its memory once it has settled."""
    deadline = time.monotonic() + QUIET_SECONDS
    while True:
        number = next(numbers)
        helper.tell(Ping(number=number))
        while (pong := helper.fact(facts.Pong)).number != number:
            pass
        if pong.connections == pong.upstream_connections == 0:
            break
        assert time.monotonic() < deadline, f"left behind: {pong}"
        time.sleep(0.2)
    end = time.monotonic() + SETTLE_SECONDS
    least = private_bytes(helper.pid)
    while time.monotonic() < end:
        time.sleep(0.2)
        least = min(least, private_bytes(helper.pid))
    return least


async def restarts(upstream: Flaky, chance: random.Random, end: float) -> None:
    loop = asyncio.get_running_loop()
    while loop.time() < end:
        await asyncio.sleep(chance.uniform(3, 8))
        await asyncio.to_thread(upstream.kill)
        await asyncio.sleep(chance.uniform(0, 0.5))
        await asyncio.to_thread(upstream.start)


async def crowd(port: int, chance: random.Random, end: float) -> None:
    """Go over the limit of connections, now and then."""
    loop = asyncio.get_running_loop()
    while loop.time() < end:
        await asyncio.sleep(chance.uniform(1, 4))
        writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(60)]
        await asyncio.sleep(0.2)
        for writer in writers:
            writer.transport.abort()


async def load(helper: Helper, upstream: Flaky, clients: Clients, chance: random.Random, seconds: float) -> None:
    with read_facts(helper):
        end = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as group:
            group.create_task(clients.run(STREAMS, seconds))
            group.create_task(restarts(upstream, chance, end))
            group.create_task(crowd(helper.port, chance, end))


def test_a_minute_of_random_deaths_leaves_nothing_behind(upstream: Flaky, seed: str) -> None:
    """After a warm-up: no connection, descriptor or child more than before, two megabytes at most, no wrong answer."""
    chance = random.Random(seed)
    numbers = itertools.count(1)
    with closing_children(), Zygote() as zygote, Helper(zygote, upstream.spec()) as helper:
        open_before = descriptors(helper.pid)
        clients = Clients(helper.port, BEARER, seed)
        asyncio.run(load(helper, upstream, clients, chance, WARM_UP_SECONDS))
        warm = quiet(helper, numbers)
        asyncio.run(load(helper, upstream, clients, chance, SOAK_SECONDS))
        grown = quiet(helper, numbers) - warm
        print(f"{dict(clients.seen)}, grown by {grown >> 10} KiB over {warm >> 10} KiB")
        assert descriptors(helper.pid) <= open_before
        assert not Path(f"/proc/{helper.pid}/task/{helper.pid}/children").read_text()
        assert grown <= GROWTH
        helper.signal(signal.SIGTERM)
        assert helper.wait() == 0
        upstream.kill()
    # The control: it was a soak, and everything that it is about did happen.
    assert clients.seen["whole"] > 1000
    assert all(clients.seen[what] > 20 for what in ("502", "reset", "end", "half")), clients.seen
    assert clients.seen["cut off"] + clients.seen["aborted"] > 20
