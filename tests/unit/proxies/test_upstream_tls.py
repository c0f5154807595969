"""Dialing over TLS on real sockets: what fails how, what is left behind, what an idle connection is good for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from codingagents.proxies.connection import Connection
from codingagents.proxies.dial import DialFailed
from codingagents.rewrite.specs import PinSpec
from descriptors import sockets
from pki import make_root
from tls_bench import LEAF, ROOT, SERVING, VERSIONS, Owner, Version, serving, trust_by
from upstream_bench import Bench, Peer, with_upstream

OTHER = make_root("Other Root")


async def shake_hands(there: socket.socket, context: ssl.SSLContext) -> None:
    """Be a server until the client is satisfied, or gone."""
    peer = Peer(asyncio.get_running_loop(), there, context)
    with contextlib.suppress(OSError):
        await peer.do(peer.tls.do_handshake)


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
