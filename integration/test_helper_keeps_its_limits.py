"""Each limit of a server, against a real helper: at it all is well, past it there is a clear answer."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from codingagents.rewrite.specs import LimitsSpec, Ping
from codingagents.trust import facts
from helper_rig import PATIENCE, Helper, Zygote, ask, closing_children, code, read_all, read_response, status
from scripted_upstream import OK, Exchange, Upstream, answer_ok

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="helpers take UIDs of their own: needs root")

IDLE = 0.6  # seconds


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with closing_children(), Zygote() as started:
        yield started


def settle(helper: Helper, *, connections: int) -> None:
    """Wait until the helper counts so many clients."""
    deadline = time.monotonic() + PATIENCE
    while True:
        helper.tell(Ping(number=0))
        if helper.fact(facts.Pong).connections == connections:
            return
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_connections_are_counted_in_and_out(zygote: Zygote) -> None:
    """One too many gets 503 and the name of the limit; when another leaves there is room again."""
    with Upstream() as upstream:
        remote = upstream.remote(limits=LimitsSpec(connections=3))
        with Helper(zygote, remote) as helper, ExitStack() as open_ones:
            clients = [open_ones.enter_context(helper.connect()) for _ in range(3)]
            settle(helper, connections=3)
            response = ask(helper, helper.head(length=0))
            assert (status(response), code(response)) == (503, "too_many_connections")
            assert helper.fact(facts.Refused).reason == "too_many_connections"
            for client in clients:
                client.sendall(helper.head(length=0))
                assert status(read_response(client)) == 200
            clients.pop().close()
            settle(helper, connections=2)
            assert status(ask(helper, helper.head(length=0))) == 200


def test_many_streams_leave_room_for_requests(zygote: Zygote) -> None:
    """There is no other limit behind that of connections: a hundred open streams, and a request passes."""

    async def answering(exchange: Exchange) -> None:
        if b"GET" in exchange.head:
            await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
            await exchange.reader.read(1)
        else:
            await answer_ok(exchange)

    with Upstream(answering) as upstream, Helper(zygote, upstream.remote()) as helper, ExitStack() as streams:
        for _ in range(100):
            client = streams.enter_context(helper.connect())
            client.sendall(helper.head("GET /mcp HTTP/1.1"))
            data = b""
            while not data.endswith(b"1\r\nx\r\n"):
                data += client.recv(1 << 16)
        assert status(ask(helper, helper.head(length=0))) == 200
        helper.tell(Ping(number=1))
        pong = helper.fact(facts.Pong)
        assert pong.connections >= 100
        assert pong.upstream_connections == 101


@pytest.mark.parametrize("silent_after", ["nothing", "handshake"])
def test_a_connection_that_does_not_come_costs_connect_seconds(zygote: Zygote, silent_after: str) -> None:
    """No TLS hello, or half of one; the time is in the answer's code, and the control connects within it."""
    with socket.create_server(("127.0.0.1", 0)) as silent, Upstream() as upstream:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        remote = upstream.remote(connect_to=address, limits=LimitsSpec(connect_seconds=0.5))
        with Helper(zygote, remote) as helper, helper.connect() as client:
            begin = time.monotonic()
            client.sendall(helper.head(length=0))
            there, _ = silent.accept()
            with there:
                if silent_after == "handshake":
                    there.recv(1 << 16)
                    there.sendall(b"\x16\x03\x03\x00\x80")
                response = read_response(client)
            assert (status(response), code(response)) == (504, "connect_timeout")
            assert time.monotonic() - begin >= 0.5
            assert helper.fact(facts.UpstreamFailed).error_type == "connect_timeout"
        with Helper(zygote, upstream.remote(limits=LimitsSpec(connect_seconds=5.0))) as helper:
            assert status(ask(helper, helper.head(length=0))) == 200


def test_an_upstream_that_says_nothing_costs_idle_seconds(zygote: Zygote) -> None:
    """Before its head it is 504, in the middle of a stream the stream is broken off."""

    async def answering(exchange: Exchange) -> None:
        if b"?stream" in exchange.head:
            await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await exchange.reader.read(1)

    with (
        Upstream(answering) as upstream,
        Helper(zygote, upstream.remote(limits=LimitsSpec(idle_seconds=IDLE))) as helper,
    ):
        response = ask(helper, helper.head(length=0))
        assert (status(response), code(response)) == (504, "upstream_timeout")
        with helper.connect() as client:
            client.sendall(helper.head("GET /mcp?stream HTTP/1.1"))
            data = b""
            with suppress(ConnectionResetError):
                data = read_all(client)
            assert not data.endswith(b"0\r\n\r\n")
        assert [helper.fact(facts.Request).error_type for _ in range(2)] == ["upstream_timeout"] * 2


def test_a_stream_that_speaks_now_and_then_lives_on(zygote: Zygote) -> None:
    """Longer than idle_seconds in all, never so long without a word: there is no total time."""

    async def answering(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(10):
            await asyncio.sleep(IDLE / 4)
            await exchange.send(b"2\r\n:\n\r\n")
        await exchange.send(b"0\r\n\r\n")

    with (
        Upstream(answering) as upstream,
        Helper(zygote, upstream.remote(limits=LimitsSpec(idle_seconds=IDLE))) as helper,
        helper.connect() as client,
    ):
        begin = time.monotonic()
        client.sendall(helper.head("GET /mcp HTTP/1.1", "Connection: close"))
        data = read_all(client)
        assert data.count(b":\n") == 10
        assert data.endswith(b"0\r\n\r\n")
        assert time.monotonic() - begin > 2 * IDLE


def test_a_client_that_says_nothing_costs_idle_seconds(zygote: Zygote) -> None:
    """Between requests it is closed without a word; in the middle of a body it is told."""
    with Upstream() as upstream, Helper(zygote, upstream.remote(limits=LimitsSpec(idle_seconds=IDLE))) as helper:
        with helper.connect() as client:
            client.sendall(helper.head(length=0))
            assert status(read_response(client)) == 200
            assert client.recv(10) == b""
        with helper.connect() as client:
            assert client.recv(10) == b""
        with helper.connect() as client:
            client.sendall(helper.head(length=10) + b"half")
            response = read_response(client)
            assert (status(response), code(response)) == (408, "request_timeout")


def test_a_head_is_at_most_header_bytes(zygote: Zygote) -> None:
    """To the byte; one that never ends is refused too, and none of it reaches the upstream."""
    with Upstream() as upstream, Helper(zygote, upstream.remote(limits=LimitsSpec(header_bytes=2048))) as helper:
        base = len(helper.head("GET /mcp HTTP/1.1", "X-Fill: ")) - 4
        for surplus, expected in ((0, 200), (1, 431)):
            head = helper.head("GET /mcp HTTP/1.1", "X-Fill: " + "x" * (2048 - base + surplus))
            response = ask(helper, head)
            assert status(response) == expected
        assert code(response) == "head_too_large"
        with helper.connect() as client:
            client.sendall(helper.head()[:-4] + b"\r\nX-Endless: " + b"x" * 4096)
            assert code(read_response(client)) == "head_too_large"
        assert len(upstream.received) == 1


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_is_at_most_request_bytes(zygote: Zygote, chunked: bool) -> None:
    """To the byte; what is announced too long never begins, and what grows too long never ends at the upstream."""
    bodies: list[bytes] = []

    async def answering(exchange: Exchange) -> None:
        if exchange.header("Content-Length"):
            bodies.append(await exchange.read(int(exchange.header("Content-Length")[0])))
        else:
            body = b""
            while size := int((await exchange.reader.readuntil(b"\r\n")).strip(), 16):
                body += (await exchange.reader.readexactly(size + 2))[:-2]
            await exchange.reader.readexactly(2)
            bodies.append(body)
        await exchange.send(OK)

    def request(helper: Helper, size: int) -> bytes:
        if not chunked:
            return helper.head(length=size) + b"x" * size
        pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (b"x" * (size // 2), b"x" * (size - size // 2))]
        return helper.head("POST /mcp HTTP/1.1", "Transfer-Encoding: chunked") + b"".join(pieces) + b"0\r\n\r\n"

    with (
        Upstream(answering) as upstream,
        Helper(zygote, upstream.remote(limits=LimitsSpec(request_bytes=100_000))) as helper,
    ):
        assert status(ask(helper, request(helper, 100_000))) == 200
        response = ask(helper, request(helper, 100_001))
        assert (status(response), code(response)) == (413, "body_too_large")
        assert bodies == [b"x" * 100_000]
        if not chunked:
            assert len(upstream.received) == 1
            with helper.connect() as client:  # still sending when the answer comes
                client.sendall(helper.head(length=500_000))
                with suppress(ConnectionError):
                    client.sendall(b"x" * 500_000)
                assert code(read_response(client)) == "body_too_large"


def test_who_connects_while_a_helper_drains_is_served_by_the_next(zygote: Zygote) -> None:
    """The listener is closed in the one process only; a connection waits in its backlog, and nothing is refused."""
    requests: list[Exchange] = []

    async def answering(exchange: Exchange) -> None:
        requests.append(exchange)
        if b"slow" in exchange.head:
            await exchange.reader.read(1)
        else:
            await exchange.send(OK)

    with (
        Upstream(answering) as upstream,
        Helper(zygote, upstream.remote()) as old,
        old.connect() as busy,
        old.connect() as idle,
        old.connect() as late,
    ):
        busy.sendall(old.head("POST /mcp?slow HTTP/1.1", length=0))
        settle(old, connections=3)
        late.close()
        settle(old, connections=2)
        deadline = time.monotonic() + PATIENCE
        while not requests:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        old.signal(signal.SIGTERM)
        assert idle.recv(10) == b""  # it drains now
        with old.connect() as waiting:
            waiting.sendall(old.head(length=0))
            upstream.call(lambda: requests[0].writer.write(OK))
            assert status(read_response(busy)) == 200
            assert old.wait() == 0
            with Helper(zygote, upstream.remote(), listener=old.listener):
                assert status(read_response(waiting)) == 200


def test_a_stream_that_does_not_end_is_broken_off_when_the_drain_is_over(zygote: Zygote) -> None:
    """Within seconds, without a clean end, and the helper's exit code is 0."""

    async def answering(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await exchange.reader.read(1)

    with Upstream(answering) as upstream, Helper(zygote, upstream.remote()) as helper, helper.connect() as client:
        client.sendall(helper.head("GET /mcp HTTP/1.1"))
        assert client.recv(1 << 16)
        helper.signal(signal.SIGTERM)
        client.settimeout(3 * PATIENCE)
        data = b""
        with suppress(ConnectionResetError):
            data = read_all(client)
        assert not data.endswith(b"0\r\n\r\n")
        assert helper.fact(facts.Request).error_type is not None
        assert helper.wait() == 0
