"""Dialing over TLS on real sockets: what fails how, what is left behind, what an idle connection is good for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest
import uvloop

from codingagents.proxies.connection import Connection
from codingagents.proxies.dial import DialFailed
from codingagents.proxies.facts_out import FactsOut
from codingagents.proxies.upstream import Upstream
from codingagents.proxies.upstream_trust import Trust
from codingagents.rewrite.specs import LimitsSpec, PinSpec, RemoteSpec
from pki import make_root
from tls_bench import LEAF, ROOT, SERVING, VERSIONS, Owner, Version, serving, trust_by

OTHER = make_root("Other Root")


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

    async def settle(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 -- what is waited for is in the kernel or another object
                await asyncio.sleep(0.001)


def with_upstream(
    test: Callable[[Bench], Awaitable[None]], trust: Trust | None = None, connect_seconds: float = 5.0
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
            upstream = Upstream(
                loop, remote, trust or trust_by(), FactsOut(loop, channel), now=lambda: loop.time() + ahead[0]
            )
            bench = Bench(loop, server, upstream, facts, ahead)
            async with asyncio.timeout(10):
                await test(bench)
            upstream.close_idle(all_of_them=True)
            await bench.settle(lambda: upstream.open == 0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def shake_hands(there: socket.socket, context: ssl.SSLContext) -> None:
    """Be a server until the client is satisfied, or gone."""
    peer = Peer(asyncio.get_running_loop(), there, context)
    with contextlib.suppress(OSError):
        await peer.do(peer.tls.do_handshake)


def sockets() -> set[str]:
    """Return the sockets that this process has open; other descriptors come and go with the loop."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    return {name for name in found if name.startswith("socket:")}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_request_and_its_answer_pass(version: Version) -> None:
    """Large ones too, with back-pressure: the owner is told that the server does not read, and then that it does."""

    async def test(bench: Bench) -> None:
        connection, peer = await bench.dial(SERVING[version])
        with peer.end:
            connection.owner = owner = Owner()
            sent = os.urandom(8 << 20)
            connection.write(sent)
            assert owner.full == [True]
            assert await peer.read(len(sent)) == sent
            await bench.settle(lambda: owner.full == [True, False])
            await peer.write(sent)
            await peer.close_alert()
            await bench.settle(lambda: owner.ends == [True])
            assert owner.data == sent

    with_upstream(test)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("ending", ["end", "reset"])
def test_a_stream_that_only_tcp_ends_is_not_clean(version: Version, ending: str) -> None:
    async def test(bench: Bench) -> None:
        connection, peer = await bench.dial(SERVING[version])
        with peer.end:
            connection.owner = owner = Owner()
            await peer.write(b"half of an answer")
            await bench.settle(lambda: bool(owner.pieces))
            if ending == "end":
                peer.end.shutdown(socket.SHUT_WR)
            else:
                peer.end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.end.close()
            await bench.settle(lambda: owner.ends == [False])
            assert owner.data == b"half of an answer"

    with_upstream(test)


@pytest.mark.parametrize("touch", ["close alert", "data", "nothing"])
def test_an_idle_connection_that_the_server_touched_takes_no_request(touch: str) -> None:
    """Seen in the kernel, before the loop has come to it; one that the server left alone takes it."""

    async def test(bench: Bench) -> None:
        connection, peer = await bench.dial(SERVING["1.3"])
        with peer.end:
            connection.owner = owner = Owner()
            await peer.write(b"answer")
            await bench.settle(lambda: owner.data == b"answer")
            connection.release(None)
            if touch == "data":
                peer.tls.write(b"surplus")
            elif touch == "close alert":
                with contextlib.suppress(ssl.SSLWantReadError):
                    peer.tls.unwrap()
            if touch != "nothing":
                peer.end.send(peer.outgoing.read())
            bench.ahead[0] = 0.1  # nothing was awaited: the loop knows nothing
            assert not connection.ended
            assert bench.upstream.take() is (connection if touch == "nothing" else None)
            connection.close()

    with_upstream(test)


def test_each_refusal_has_its_code() -> None:
    async def test(bench: Bench) -> None:
        async def speak(there: socket.socket) -> None:
            await bench.loop.sock_sendall(there, b"HTTP/1.1 400 Bad Request\r\n\r\n")

        async def go(there: socket.socket) -> None:
            there.close()

        failure = await bench.refused(lambda there: shake_hands(there, serving(OTHER.issue())))
        assert failure.code == "tls_untrusted"
        failure = await bench.refused(lambda there: shake_hands(there, serving(ROOT.issue(("other.example",)))))
        assert failure.code == "tls_untrusted"
        assert "other.example" not in failure.detail
        assert "localhost" in failure.detail
        failure = await bench.refused(speak)
        assert failure.code == "tls_failed"
        failure = await bench.refused(go)
        assert failure.code == "connect_failed"
        assert failure.detail.endswith("ConnectionResetError")

    with_upstream(test)


def test_a_pin_that_is_not_there_is_told_with_what_was() -> None:
    async def test(bench: Bench) -> None:
        failure = await bench.refused(lambda there: shake_hands(there, SERVING["1.3"]))
        assert failure.code == "pin_mismatch"
        told = await bench.loop.sock_recv(bench.facts, 1 << 16)
        assert LEAF.pin.encode() in told
        assert OTHER.pin.encode() in told

    with_upstream(test, trust_by([PinSpec(spki=OTHER.pin)], "enforce"))


def test_no_descriptor_is_left_by_a_handshake_that_does_not_end() -> None:
    """Neither by one that takes too long, nor by one whose client has gone away."""

    async def test(bench: Bench) -> None:
        before = sockets()
        for cancelled in (True, False):
            dialing = asyncio.ensure_future(bench.upstream.dial())
            there, _ = await bench.loop.sock_accept(bench.server)
            assert await bench.loop.sock_recv(there, 10)  # the handshake has begun
            assert sockets() > before
            if cancelled:
                dialing.cancel()
            with there, pytest.raises(asyncio.CancelledError if cancelled else DialFailed) as caught:
                await dialing
            if not cancelled:
                assert caught.value.code == "connect_timeout"  # type: ignore[attr-defined]  # a DialFailed, then
            await bench.settle(lambda: sockets() == before)

    with_upstream(test, connect_seconds=0.2)


def test_no_descriptor_is_left_by_refused_servers() -> None:
    async def test(bench: Bench) -> None:
        before = sockets()
        bad = serving(OTHER.issue())
        for _ in range(20):
            await bench.refused(lambda there: shake_hands(there, bad))
        await bench.settle(lambda: sockets() == before)

    with_upstream(test)


@contextlib.contextmanager
def openssl_server(directory: Path, port: int, *options: str) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Yield the input and the output of `openssl s_server` (Debian package openssl).

    What it is given it sends, a line at a time; at a letter alone it does what Python's ssl cannot.
    """
    identity = directory / "identity.pem"
    identity.write_text(LEAF.key_pem + LEAF.chain_pem)
    with subprocess.Popen(
        ["openssl", "s_server", "-msg", "-accept", f"127.0.0.1:{port}", "-cert", identity, "-naccept", "1", *options],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdin, process.stdout
        finally:
            process.kill()


async def dialed(bench: Bench) -> tuple[Connection, Owner]:
    """Return a connection to a server that is only starting."""
    while True:
        with contextlib.suppress(DialFailed):
            connection = await bench.upstream.dial()
            connection.owner = owner = Owner()
            return connection, owner


async def passes(connection: Connection, line: bytes, told: IO[bytes]) -> list[bytes]:
    """Send `line`; return what the server told until it had it."""
    connection.write(line)
    return await asyncio.to_thread(lambda: list(iter(told.readline, line)))


@pytest.mark.parametrize(("letter", "answered"), [(b"K", True), (b"k", False)])
def test_new_keys_are_taken_and_answered_with_new_ones_where_they_are_asked_for(
    letter: bytes, answered: bool, tmp_path: Path
) -> None:
    """A key update of TLS 1.3; data passes both ways afterwards."""

    async def test(bench: Bench) -> None:
        port = bench.server.getsockname()[1]
        bench.server.close()
        with openssl_server(tmp_path, port, "-tls1_3") as (given, told):
            connection, owner = await dialed(bench)
            await passes(connection, b"before\n", told)
            given.write(letter + b"\n")
            lines = await passes(connection, b"between\n", told)  # it looks at its input first: the letter was taken
            given.write(b"after\n")
            await bench.settle(lambda: owner.data == b"after\n")
            lines += await passes(connection, b"behind\n", told)
            updates = [line[:3] for line in lines if b"KeyUpdate" in line]
            assert updates == [b">>>", b"<<<"][: 1 + answered]
            assert owner.ends == []
            connection.close()

    with_upstream(test)


def test_nothing_is_renegotiated(tmp_path: Path) -> None:
    """The path of a second handshake would be one that nobody looked at; to OpenSSL's server the refusal is an end."""

    async def test(bench: Bench) -> None:
        port = bench.server.getsockname()[1]
        bench.server.close()
        with openssl_server(tmp_path, port, "-tls1_2") as (given, told):
            connection, owner = await dialed(bench)
            await passes(connection, b"before\n", told)
            given.write(b"r\n")
            await bench.settle(lambda: owner.ends == [False])
            assert owner.data == b""
            lines = await asyncio.to_thread(told.readlines)
            assert sum(b"ClientHello" in line for line in lines) == 0
            assert any(b"no_renegotiation" in line for line in lines)

    with_upstream(test)
