"""An `Upstream` on real sockets, and a TLS server's end of its connections, a step at a time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import uvloop

from codingagents.proxies.connection import Connection
from codingagents.proxies.dial import DialFailed
from codingagents.proxies.facts_out import FactsOut
from codingagents.proxies.upstream import Upstream
from codingagents.proxies.upstream_trust import Trust
from codingagents.rewrite.specs import LimitsSpec, RemoteSpec
from codingagents.trust import wire
from codingagents.trust.facts import AnyFact
from tls_bench import trust_by


class Peer:
    """The server's end of a connection: a step of its TLS at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, end: socket.socket, context: ssl.SSLContext) -> None:
        self._loop = loop
        self.end = end
        self._incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self.outgoing, server_side=True)

    async def do(self, step: Callable[[], object]) -> None:
        """Do `step`, and read and send what it needs; the end of the client's stream is an `ssl.SSLEOFError`."""
        while True:
            try:
                step()
            except ssl.SSLWantReadError:
                await self.flush()
                data = await self._loop.sock_recv(self.end, 1 << 18)
                self._incoming.write(data) if data else self._incoming.write_eof()
            else:
                await self.flush()
                return

    async def flush(self) -> None:
        await self._loop.sock_sendall(self.end, self.outgoing.read())

    async def read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            await self.do(lambda: data.extend(self.tls.read(size - len(data))))
        return bytes(data)

    async def write(self, data: bytes) -> None:
        await self.do(lambda: self.tls.write(data))

    async def close_alert(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        await self.flush()


@dataclass
class Bench:
    loop: asyncio.AbstractEventLoop
    server: socket.socket
    upstream: Upstream
    facts: socket.socket
    ahead: list[float] = field(default_factory=lambda: [0.0])  # what the clock of ages is ahead by, in seconds
    sudden: list[Callable[[], object]] = field(default_factory=list)  # what happens when that is looked at next

    async def dial(self, serving: ssl.SSLContext) -> tuple[Connection, Peer]:
        """Return a fresh connection and the server's end of it."""
        dialing = asyncio.ensure_future(self.upstream.dial())
        there, _ = await self.loop.sock_accept(self.server)
        peer = Peer(self.loop, there, serving)
        await peer.do(peer.tls.do_handshake)
        return await dialing, peer

    async def refused(self, serve: Callable[[socket.socket], Awaitable[None]]) -> DialFailed:
        """Return why dialing a server that does `serve` fails."""
        dialing = asyncio.ensure_future(self.upstream.dial())
        there, _ = await self.loop.sock_accept(self.server)
        with there:
            await serve(there)
            with pytest.raises(DialFailed) as caught:
                await dialing
        return caught.value

    async def told(self, number: int) -> list[AnyFact]:
        """Return the next `number` facts; they are sent together."""
        lines = wire.LineBuffer()
        found: list[AnyFact] = []
        while len(found) < number:
            lines_now = lines.feed(await self.loop.sock_recv(self.facts, 1 << 16))
            found += [wire.decode(AnyFact, line) for line in lines_now]
        return found

    async def settle(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 -- what is waited for is in the kernel or another object
                await asyncio.sleep(0.001)


def with_upstream(
    test: Callable[[Bench], Awaitable[None]],
    trust: Trust | None = None,
    connect_seconds: float = 5.0,
) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        channel, facts = socket.socketpair()
        with socket.create_server(("127.0.0.1", 0)) as server, channel, facts:
            for each in (server, channel, facts):
                each.setblocking(False)
            port = server.getsockname()[1]
            remote = RemoteSpec(
                name="srv", scheme="https", host="localhost", port=port, path="/", connect_to=f"127.0.0.1:{port}",
                limits=LimitsSpec(connect_seconds=connect_seconds),
            )  # fmt: skip
            ahead = [0.0]
            sudden: list[Callable[[], object]] = []

            def clock() -> float:
                while sudden:
                    sudden.pop()()
                return loop.time() + ahead[0]

            upstream = Upstream(loop, remote, trust or trust_by(), FactsOut(loop, channel), now=clock)
            bench = Bench(loop, server, upstream, facts, ahead, sudden)
            async with asyncio.timeout(10):
                await test(bench)
            upstream.close_idle(all_of_them=True)
            await bench.settle(lambda: upstream.open == 0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
