"""A real helper between real sockets: redirects, legacy endpoints, silent streams, half-closed clients, its own end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from codingagents.rewrite.specs import LimitsSpec
from codingagents.trust import facts
from helper_rig import PATIENCE, TOKEN, Helper, Zygote, closing_children, read_all
from scripted_upstream import NAME, OK, Exchange, Upstream, answer_ok

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="helpers take UIDs of their own: needs root")

CALL = b'{"jsonrpc":"2.0","id":"a7","method":"tools/call","params":{"name":"echo"}}'
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


class Arrivals(threading.Semaphore):
    """Counts requests that reached the upstream, for a test that waits for one."""

    def __init__(self) -> None:
        super().__init__(0)

    def wait(self) -> None:
        assert self.acquire(timeout=PATIENCE), "nothing arrived at the upstream"


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with closing_children(), Zygote() as started:
        yield started


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def until(client: socket.socket, end: bytes) -> bytes:
    """Return what comes up to and with `end`."""
    data = b""
    while not data.endswith(end):
        piece = client.recv(1 << 16)
        assert piece, f"ended after {data!r}"
        data += piece
    return data


def ask(helper: Helper, head: bytes, body: bytes = b"") -> tuple[int, Any]:
    """Return status and JSON of the answer on a connection of its own."""
    with helper.connect() as client:
        client.sendall(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + body)
        answer, _, content = read_all(client).partition(b"\r\n\r\n")
    return int(answer.split(b" ")[1]), json.loads(content)


def call(helper: Helper, first: str = "POST /mcp HTTP/1.1") -> tuple[int, Any]:
    return ask(helper, helper.head(first, length=len(CALL)), CALL)


@pytest.mark.parametrize(
    ("location", "followed"),
    [
        (b"/mcp/", True),
        (b"https://upstream.test/mcp/", True),
        (b"http://upstream.test/mcp/", False),
        (b"/debug/headers", False),
        (b"//evil/", False),
    ],
)
def test_a_redirect_is_followed_inside_where_it_stays(zygote: Zygote, location: bytes, followed: bool) -> None:
    """Method, body and credential arrive at the second path; elsewhere they never go."""
    seen: list[Exchange] = []

    async def answering(exchange: Exchange) -> None:
        await exchange.read(len(CALL))
        seen.append(exchange)
        moved = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location
        await exchange.send(moved if exchange.head.startswith(b"POST /mcp ") else OK)

    with Upstream(answering) as upstream, Helper(zygote, upstream.remote()) as helper:
        status, said = call(helper)
        if followed:
            assert (status, said) == (200, {})
            assert [exchange.head.split(b" ")[1] for exchange in seen] == [b"/mcp", b"/mcp/"]
            assert seen[1].header("Authorization") == [f"Bearer {TOKEN}"]
            assert bytes(seen[1].record).endswith(CALL)
        else:
            assert (status, said["error"]["data"]["code"], said["id"]) == (502, "redirect_refused", "a7")
            assert len(seen) == 1


def test_errors_and_facts_name_the_request(zygote: Zygote) -> None:
    """The error of a call is for its id; the fact has its method and name, and when the answer began."""

    async def dying(exchange: Exchange) -> None:
        raise ConnectionError

    with Upstream(dying) as upstream, Helper(zygote, upstream.remote()) as helper:
        status, said = call(helper)
        assert (status, said["id"], said["error"]["data"]["server"]) == (502, "a7", "srv")
        fact = helper.fact(facts.Request)
        assert (fact.mcp_method, fact.mcp_name, fact.response_start_ms) == ("tools/call", "echo", None)
        status, said = ask(helper, helper.head("GET /mcp HTTP/1.1"))
        assert (status, said["code"], "jsonrpc" in said) == (502, "upstream_closed", False)
    with Upstream() as upstream, Helper(zygote, upstream.remote()) as helper:
        assert call(helper)[0] == 200
        answered = helper.fact(facts.Request)
        assert (answered.mcp_method, answered.mcp_name) == ("tools/call", "echo")
        assert answered.response_start_ms is not None


def test_a_legacy_server_is_used_through_the_helper_alone(zygote: Zygote) -> None:
    """Its endpoint becomes a path here, which is served from then on, with the credential; not the whole origin."""
    seen: list[Exchange] = []

    async def answering(exchange: Exchange) -> None:
        seen.append(exchange)
        if exchange.head.startswith(b"GET "):
            endpoint = f"event: endpoint\ndata: https://{NAME}/messages/?session_id=5\n\n".encode()
            await exchange.send(STREAM + chunk(endpoint[:20]))
            await exchange.send(chunk(endpoint[20:]))
            await exchange.reader.readexactly(1)
        else:
            await answer_ok(exchange)

    remote = {"path": "/sse", "transport": "sse"}
    with Upstream(answering) as upstream, Helper(zygote, upstream.remote(**remote)) as helper:
        post = "POST /messages/?session_id=5 HTTP/1.1"
        status, said = call(helper, post)
        assert (status, said["error"]["data"]["code"]) == (404, "outside_route")
        assert seen == []
        with helper.connect() as stream:
            stream.sendall(helper.head("GET /sse HTTP/1.1", "Accept-Encoding: gzip"))
            data = until(stream, b"session_id=5\n\n\r\n")
            assert data.endswith(chunk(b"event: endpoint\ndata: /messages/?session_id=5\n\n"))
            assert NAME.encode() not in data
            assert call(helper, post)[0] == 200
            assert call(helper, "POST /admin HTTP/1.1")[0] == 404
    assert [exchange.head.split(b" ")[1] for exchange in seen] == [b"/sse", b"/messages/?session_id=5"]
    assert seen[0].header("Accept-Encoding") == ["identity"]
    assert all(exchange.header("Authorization") == [f"Bearer {TOKEN}"] for exchange in seen)


def broken_off(client: socket.socket) -> tuple[bytes, bool]:
    """Return what still comes, and whether its end was that of a complete chunked body."""
    data = b""
    try:
        while piece := client.recv(1 << 16):
            data += piece
    except ConnectionResetError:
        pass
    return data, data.endswith(LAST_CHUNK)


def test_an_endpoint_on_another_origin_breaks_the_stream(zygote: Zygote) -> None:
    """No byte of it reaches the client."""
    leave = asyncio.Semaphore(0)

    async def answering(exchange: Exchange) -> None:
        await exchange.send(STREAM + chunk(b": hello\n\n"))
        await leave.acquire()
        await exchange.send(chunk(b"event: endpoint\ndata: https://evil.example/messages\n\n"))
        await exchange.reader.readexactly(1)

    remote = {"path": "/sse", "transport": "sse"}
    with Upstream(answering) as upstream, Helper(zygote, upstream.remote(**remote)) as helper:
        with helper.connect() as stream:
            stream.sendall(helper.head("GET /sse HTTP/1.1"))
            until(stream, chunk(b": hello\n\n"))
            upstream.call(leave.release)
            assert broken_off(stream) == (b"", False)
        assert helper.fact(facts.Request).error_type == "endpoint_refused"
        assert upstream.lost.wait(5)


def test_a_client_that_closes_its_half_has_cancelled(zygote: Zygote) -> None:
    """The end of its stream is all that a server ever sees of a client that goes away; this one still listens."""

    async def answering(exchange: Exchange) -> None:
        await exchange.send(STREAM)
        await exchange.reader.readexactly(1)

    with Upstream(answering) as upstream, Helper(zygote, upstream.remote()) as helper, helper.connect() as client:
        client.sendall(helper.head(length=len(CALL)) + CALL)
        until(client, b"\r\n\r\n")
        assert not upstream.lost.is_set()
        client.shutdown(socket.SHUT_WR)
        assert upstream.lost.wait(5)
        assert broken_off(client) == (b"", False)
        assert helper.fact(facts.Request).error_type == "client_closed"


def test_a_client_that_goes_while_its_answer_is_waited_for_has_cancelled(zygote: Zygote) -> None:
    """Before there is a byte of it."""

    async def answering(exchange: Exchange) -> None:
        await exchange.read(len(CALL))
        arrived.release()
        await exchange.reader.readexactly(1)

    arrived = Arrivals()
    with Upstream(answering) as upstream, Helper(zygote, upstream.remote()) as helper:
        with helper.connect() as client:
            client.sendall(helper.head(length=len(CALL)) + CALL)
            arrived.wait()
            assert not upstream.lost.is_set()
        assert upstream.lost.wait(5)
        assert helper.fact(facts.Request).error_type == "client_closed"


def test_a_silent_stream_outlives_the_idle_limit_and_another_body_does_not(zygote: Zygote) -> None:
    """The other body, begun after the stream, shows when the limit has passed for both."""
    leave = asyncio.Semaphore(0)

    async def answering(exchange: Exchange) -> None:
        if exchange.head.startswith(b"GET /mcp/stream"):
            await exchange.send(STREAM)
            await leave.acquire()
            await exchange.send(chunk(b"data: 1\n\n") + LAST_CHUNK)
        else:
            await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            await exchange.reader.readexactly(1)

    limits = LimitsSpec(connect_seconds=2.0, idle_seconds=0.4)
    with (
        Upstream(answering) as upstream,
        Helper(zygote, upstream.remote(limits=limits)) as helper,
        helper.connect() as stream,
        helper.connect() as other,
    ):
        stream.sendall(helper.head("GET /mcp/stream HTTP/1.1"))
        until(stream, b"\r\n\r\n")
        other.sendall(helper.head("GET /mcp HTTP/1.1"))
        assert not broken_off(other)[1]
        assert helper.fact(facts.Request).error_type == "upstream_timeout"
        upstream.call(leave.release)
        assert until(stream, LAST_CHUNK) == chunk(b"data: 1\n\n") + LAST_CHUNK
        assert helper.fact(facts.Request).error_type is None


def test_when_the_helper_is_stopped_streams_are_told_calls_finish_and_nothing_looks_complete(zygote: Zygote) -> None:
    """An idle stream ends cleanly at once, a call gets its answer, an answer that is not finished is broken off."""
    leave = asyncio.Semaphore(0)
    arrived = Arrivals()

    async def answering(exchange: Exchange) -> None:
        kind = exchange.head.split(b" ")[1].rpartition(b"/")[2]
        if kind == b"call":
            await exchange.read(len(CALL))
            arrived.release()
            await leave.acquire()
            await exchange.send(OK)
            return
        await exchange.send(STREAM + chunk(b"data: 1\n\n"))
        await exchange.reader.readexactly(1)

    with Upstream(answering) as upstream, Helper(zygote, upstream.remote()) as helper:
        with (
            helper.connect() as stream,
            helper.connect() as asking,
            helper.connect() as answer,
            helper.connect() as idle,
        ):
            stream.sendall(helper.head("GET /mcp/stream HTTP/1.1"))
            until(stream, chunk(b"data: 1\n\n"))
            answer.sendall(helper.head("POST /mcp/answer HTTP/1.1", length=0))
            until(answer, chunk(b"data: 1\n\n"))
            asking.sendall(helper.head("POST /mcp/call HTTP/1.1", length=len(CALL)) + CALL)
            arrived.wait()
            helper.signal(signal.SIGTERM)
            told, complete = broken_off(stream)
            assert (told, complete) == (chunk(b": the helper is being stopped\n\n") + LAST_CHUNK, True)
            assert read_all(idle) == b""
            assert helper.fact(facts.Request).error_type == "drained"
            upstream.call(leave.release)
            assert b"\r\nConnection: close\r\n" in read_all(asking)
            assert helper.fact(facts.Request).error_type is None
            assert broken_off(answer) == (b"", False)
            assert helper.fact(facts.Request).error_type == "drained"
        assert helper.wait() == 0
