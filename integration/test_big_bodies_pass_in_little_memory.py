"""Bodies larger than a helper may grow, streams that never end, clients that read slowly or not at all, and cancels.

Real TLS on loopback. What a helper needs is read from the kernel while the bytes pass; what passes is summed on both
sides. Bodies are made on the way and kept nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import statistics
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Self

import pytest

from codingagents.rewrite.specs import LimitsSpec
from helper_rig import PATIENCE, Helper, Zygote, closing_children, read_all
from memory_use import private_bytes
from scripted_upstream import OK, Exchange, Upstream

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="helpers take UIDs of their own: needs root")

GIGABYTE = 1 << 30
GROWTH = 2 << 20
BLOCK = bytes(range(256)) * 4096  # a megabyte
BLOCKS = GIGABYTE // len(BLOCK)
READERS = 200
ROUNDS = 4
# What one stream may have on its way: a quarter of a megabyte that is read at once, over the mark where reading stops.
HELD_BACK = 768 * 1024


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with closing_children(), Zygote() as started:
        yield started


class Watch:
    """Looks at a helper's memory in the background; `growth` is the most it had over what it began with."""

    def __init__(self, helper: Helper) -> None:
        self._pid = helper.pid
        self._before = private_bytes(helper.pid)
        self._most = self._before
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    @property
    def growth(self) -> int:
        return self._most - self._before

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self._most = max(self._most, private_bytes(self._pid))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._most = max(self._most, private_bytes(self._pid))


class Blocking(Upstream):
    """The scripted upstream's certificates, and a thread with a blocking socket behind them: OpenSSL's own speed."""

    def __init__(self, talk: Callable[[socket.socket], None]) -> None:
        super().__init__()
        self._talk = talk
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)

    def _accept(self) -> None:
        context = self._context()
        while True:
            connection, _ = self._listener.accept()
            with connection, contextlib.suppress(OSError):
                if not connection.recv(1, socket.MSG_PEEK):
                    return
                with context.wrap_socket(connection, server_side=True) as wrapped:
                    self._talk(wrapped)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        socket.create_connection(("127.0.0.1", self.port)).close()  # and not a byte: the end
        self._thread.join()
        self._listener.close()


def read_head(peer: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += peer.recv(1)
    return head


def sum_of(peer: socket.socket, size: int) -> int:
    """Return the checksum of the next `size` bytes."""
    view = memoryview(bytearray(len(BLOCK)))
    found = 0
    while size:
        got = peer.recv_into(view[: min(size, len(view))])
        assert got, f"{size} bytes are missing"
        found = zlib.crc32(view[:got], found)
        size -= got
    return found


def sum_of_chunks(peer: socket.socket) -> tuple[int, int]:
    """Return (bytes, checksum) of a chunked body."""
    lines = peer.makefile("rb", buffering=1 << 20)
    found = size = 0
    while chunk := int(lines.readline(), 16):
        found = zlib.crc32(lines.read(chunk), found)
        size += chunk
        assert lines.readline() == b"\r\n"
    assert lines.readline() == b"\r\n"
    return size, found


def send_body(peer: socket.socket, chunked: bool) -> None:
    for _ in range(BLOCKS):
        peer.sendall(b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK) if chunked else BLOCK)
    if chunked:
        peer.sendall(b"0\r\n\r\n")


def take_body(peer: socket.socket, chunked: bool) -> tuple[int, int]:
    return sum_of_chunks(peer) if chunked else (GIGABYTE, sum_of(peer, GIGABYTE))


@pytest.fixture(scope="module")
def whole() -> tuple[int, int]:
    found = 0
    for _ in range(BLOCKS):
        found = zlib.crc32(BLOCK, found)
    return GIGABYTE, found


FRAMINGS = {False: f"Content-Length: {GIGABYTE}", True: "Transfer-Encoding: chunked"}


@pytest.mark.parametrize("chunked", [False, True])
def test_a_gigabyte_goes_up(zygote: Zygote, whole: tuple[int, int], chunked: bool) -> None:
    """All of it arrives, and the helper grows by two megabytes at most."""
    got = []

    def talk(peer: socket.socket) -> None:
        read_head(peer)
        peer.sendall(OK)
        read_head(peer)
        got.append(take_body(peer, chunked))
        peer.sendall(OK)

    with Blocking(talk) as upstream:
        remote = upstream.remote(limits=LimitsSpec(request_bytes=2 * GIGABYTE))
        with Helper(zygote, remote) as helper, helper.connect() as client:
            client.sendall(helper.head(length=0))
            assert client.recv(1 << 16).endswith(b"{}")
            with Watch(helper) as watch:
                client.sendall(helper.head("POST /mcp HTTP/1.1", FRAMINGS[chunked]))
                send_body(client, chunked)
                assert client.recv(1 << 16).endswith(b"{}")
    assert got == [whole]
    assert watch.growth <= GROWTH


@pytest.mark.parametrize("chunked", [False, True])
def test_a_gigabyte_comes_down(zygote: Zygote, whole: tuple[int, int], chunked: bool) -> None:
    """All of it arrives, and the helper grows by two megabytes at most."""

    def talk(peer: socket.socket) -> None:
        read_head(peer)
        peer.sendall(OK)
        read_head(peer)
        peer.sendall(f"HTTP/1.1 200 OK\r\n{FRAMINGS[chunked]}\r\n\r\n".encode())
        send_body(peer, chunked)

    with Blocking(talk) as upstream, Helper(zygote, upstream.remote()) as helper, helper.connect() as client:
        client.sendall(helper.head(length=0))
        assert client.recv(1 << 16).endswith(b"{}")
        with Watch(helper) as watch:
            client.sendall(helper.head("GET /mcp HTTP/1.1"))
            read_head(client)
            assert take_body(client, chunked) == whole
    assert watch.growth <= GROWTH


class Endless:
    """Answers each request with events for ever; `sent` counts the bytes that it could hand to its own socket."""

    def __init__(self) -> None:
        self.sent = 0
        self._events = b"".join(b"data: %d %b\n\n" % (number, b"x" * 100) for number in range(100))

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"%x\r\n%b\r\n" % (len(self._events), self._events)
        while True:
            await exchange.send(piece)
            self.sent += len(piece)
            await asyncio.sleep(0)

    def wait_until_stalled(self) -> None:
        """Return once not a byte more could be sent for a while."""
        deadline = time.monotonic() + 60
        before = -1
        while self.sent != before:
            assert time.monotonic() < deadline, "the upstream is never held back"
            before = self.sent
            time.sleep(0.5)


def test_an_endless_stream_waits_for_its_client(zygote: Zygote) -> None:
    """Read slowly, then not at all: the upstream is held back, and the helper grows by two megabytes at most."""
    endless = Endless()
    with Upstream(endless) as upstream, Helper(zygote, upstream.remote()) as helper, helper.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.sendall(helper.head("GET /mcp HTTP/1.1"))
        read_head(client)
        with Watch(helper) as watch:
            for _ in range(300):
                assert client.recv(4096)
                time.sleep(0.002)
            endless.wait_until_stalled()
            stalled = endless.sent
            assert sum_of(client, 16 << 20)  # the control: it goes on as soon as it is read
            assert endless.sent > stalled
    assert watch.growth <= GROWTH


def test_two_hundred_clients_that_do_not_read_cost_what_is_on_its_way(zygote: Zygote) -> None:
    """And no more than that, however much has passed: each waits for its own client."""
    endless = Endless()
    patient = LimitsSpec(connect_seconds=60.0)  # two hundred handshakes, while an upstream in Python is kept busy
    with (
        Upstream(endless) as upstream,
        Helper(zygote, upstream.remote(limits=patient)) as helper,
        contextlib.ExitStack() as stack,
    ):
        before = private_bytes(helper.pid)
        clients = [stack.enter_context(helper.connect()) for _ in range(READERS)]
        for client in clients:
            client.sendall(helper.head("GET /mcp HTTP/1.1"))
        for client in clients:
            assert read_head(client).startswith(b"HTTP/1.1 200 ")
        endless.wait_until_stalled()
        for passed in range(1, ROUNDS):
            for client in clients:
                sum_of(client, 1 << 20)
            endless.wait_until_stalled()
            each = (private_bytes(helper.pid) - before) // READERS
            print(f"{each >> 10} KiB for each stream that is held back, after {passed} MiB each")
            assert each <= HELD_BACK
        assert endless.sent > READERS * (ROUNDS << 20)


LEAVE = ["close", "reset", "half close"]


@pytest.mark.parametrize("moment", ["before the answer", "in the answer", "in the request"])
@pytest.mark.parametrize("how", LEAVE)
def test_a_client_that_leaves_cancels_its_request_at_the_upstream(zygote: Zygote, moment: str, how: str) -> None:
    """The upstream's connection ends though it sends nothing: in the median of several within 100 ms."""
    ended = threading.Semaphore(0)
    reached = threading.Semaphore(0)

    async def answering(exchange: Exchange) -> None:
        if moment == "in the answer":
            await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        reached.release()
        try:
            await exchange.reader.readexactly(1 << 20)
        finally:
            ended.release()

    waits = []
    with Upstream(answering) as upstream, Helper(zygote, upstream.remote()) as helper:
        for _ in range(7):
            with helper.connect() as client:
                length = 1 << 21 if moment == "in the request" else 0
                client.sendall(helper.head(length=length))
                assert reached.acquire(timeout=PATIENCE)
                if moment == "in the answer":
                    read_head(client)
                if how == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                begin = time.monotonic()
                if how == "half close":
                    client.shutdown(socket.SHUT_WR)
                else:
                    client.close()
                assert ended.acquire(timeout=PATIENCE), "the request lives on"
                waits.append(time.monotonic() - begin)
                if how == "half close":
                    with contextlib.suppress(ConnectionResetError):
                        assert b"200 OK\r\nContent-Length" not in read_all(client)
    assert statistics.median(waits) <= 0.1
