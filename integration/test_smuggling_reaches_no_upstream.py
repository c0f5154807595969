"""The corpora against a real helper and a TLS upstream that keeps every byte: one answer, one meaning, one owner."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from codingagents.rewrite.specs import LimitsSpec
from codingagents.trust.vocabulary import Secret
from corpus_rig import Recorder
from helper_rig import BEARER, Helper, Zygote, closing_children
from http_opinions import response_by_h11
from smuggling import HEADER_BYTES, REQUEST_BYTES, Request, Response, agreed, answers, requests, responses

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="helpers take UIDs of their own: needs root")

NEXT = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Recorder]:
    with Recorder() as started:
        yield started


@pytest.fixture(scope="module")
def helper(upstream: Recorder) -> Iterator[Helper]:
    limits = LimitsSpec(header_bytes=HEADER_BYTES, request_bytes=REQUEST_BYTES, connect_seconds=5.0)
    remote = upstream.remote(host="up.test", tls_server_name="up.test", limits=limits)
    with (
        closing_children(),
        Zygote() as zygote,
        Helper(zygote, remote, secrets={"TOKEN": Secret("upstream")}) as started,
    ):
        yield started


@pytest.fixture(scope="module")
def answering(upstream: Recorder) -> Iterator[Helper]:
    """Return a helper for the responses: its limits are those of the configuration."""
    remote = upstream.remote(host="up.test", tls_server_name="up.test")
    with closing_children(), Zygote() as zygote, Helper(zygote, remote) as started:
        yield started


def until(client: socket.socket, done: int) -> bytes:
    """Return what the client gets, up to the end of the stream or the response number `done`."""
    data = b""
    while len(complete(data)) < done:
        try:
            piece = client.recv(1 << 16)
        except ConnectionResetError:
            break
        if not piece:
            break
        data += piece
    return data


def complete(data: bytes) -> list[str]:
    """Return the answers in `data` if the last of them is complete, else none."""
    try:
        return answers(data)
    except (AssertionError, ValueError):
        return []


@pytest.mark.parametrize("step", [1 << 20, 1])
@pytest.mark.parametrize("case", requests())
def test_a_request_means_one_thing_or_reaches_nobody(
    helper: Helper, upstream: Recorder, case: Request, step: int
) -> None:
    """In one piece and byte by byte: the answers, and upstream exactly the requests that two other parsers find."""
    upstream.forget()
    data = case.data(f"127.0.0.1:{helper.port}", BEARER)
    step = step if len(data) < 1000 else 1 << 20
    with helper.connect() as client:
        try:
            for start in range(0, len(data), step):
                client.sendall(data[start : start + step])
        except OSError:  # refused before all of it had been sent
            pass
        got = until(client, len(case.answers))
    case.check_answers(got)
    after = f"GET /mcp?probe HTTP/1.1\r\nHost: 127.0.0.1:{helper.port}\r\nAuthorization: Bearer {BEARER}\r\n\r\n"
    with helper.connect() as client:
        client.sendall(after.encode())
        assert answers(until(client, 1)) == ["200"]
    arrived = []
    for record in list(upstream.received):
        messages, unfinished = agreed(bytes(record))
        assert not unfinished or step == 1 or case.unfinished
        arrived += messages
    probes = [message for message in arrived if message.start[1] == b"/mcp?probe"]
    assert len(probes) == 1
    case.check_arrival([message for message in arrived if message.start[1] != b"/mcp?probe"])


@pytest.mark.parametrize("case", responses())
def test_an_answer_is_right_or_none(answering: Helper, upstream: Recorder, case: Response) -> None:
    """And what a hostile answer left over is not the next request's."""
    upstream.forget(lambda number: (NEXT, "open") if number else (case.data, case.then))
    with answering.connect() as client:
        client.sendall(answering.head(f"{case.ask} /mcp HTTP/1.1"))
        got = b""
        while response_by_h11(got, head=case.ask == "HEAD").unfinished:
            try:
                piece = client.recv(1 << 16)
            except ConnectionResetError:
                break
            if not piece:
                break
            got += piece
        case.check(got)
        if case.client != "aborted":  # or else the connection may be gone
            client.sendall(answering.head("GET /mcp HTTP/1.1"))
            assert until(client, 1).endswith(b"\r\n\r\nnext")
    with answering.connect() as client:
        client.sendall(answering.head("GET /mcp HTTP/1.1"))
        assert until(client, 1).endswith(b"\r\n\r\nnext")
