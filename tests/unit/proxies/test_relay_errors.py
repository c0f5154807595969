"""The relay's own errors: in the shape of the request, for its id, and what the record says of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from codingagents.proxies.exchange import MAX_KEPT, MAX_PIECES
from codingagents.proxies.framing import LAST_CHUNK, frame
from codingagents.rewrite.specs import LimitsSpec
from relay_bench import Bench, UpstreamRecorder, request

CALL = b'{"jsonrpc":"2.0","id":"a7","method":"tools/call","params":{"name":"echo"}}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = request("POST /mcp HTTP/1.1", "Transfer-Encoding: chunked", length=False)


def said(bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bench.client.take().partition(b"\r\n\r\n")[2])
    return found


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([request(body=CALL)], "a7"),
        ([request(body=CALL)[: -len(CALL)], CALL], "a7"),
        ([request(body=CALL)[:-20], request(body=CALL)[-20:]], "a7"),
        ([CHUNKED, frame(CALL[:9]), frame(CALL[9:]) + LAST_CHUNK], "a7"),
        ([request(body=CALL)[:-1]], None),
        ([request(body=CALL.replace(b'"id":"a7",', b""))], None),
        ([request(body=b"[" + CALL + b"]")], None),
        ([request(body=CALL[:-1] + b"!")], None),
        ([request()], None),
        ([request(body=CALL + b" " * MAX_KEPT)], None),
        ([request(body=CALL)[: -len(CALL)], *(bytes([byte]) for byte in CALL)], None),
    ],
)
def test_an_error_is_for_the_request_that_failed(pieces: list[bytes], expected: str | None) -> None:
    """Where its body had come whole, within limits, before the upstream broke off."""
    assert len(CALL) > MAX_PIECES
    bench = Bench(at_hand=[UpstreamRecorder()], limits=LimitsSpec())
    for piece in pieces:
        bench.relay.client_data(piece)
    bench.relay.upstream_closed(clean=True)
    answer = said(bench)
    assert (answer["jsonrpc"], answer["id"]) == ("2.0", expected)
    assert answer["error"]["data"]["code"] == "upstream_closed"
    assert answer["error"]["data"]["server"] == "srv"
    assert answer["error"]["data"]["remedy"]


def test_an_error_before_there_is_a_connection_is_for_its_request_too() -> None:
    bench = Bench()
    bench.relay.client_data(request(body=CALL))
    bench.relay.upstream_failed("dns_failed")
    assert said(bench)["id"] == "a7"
    expired = Bench(refusal="pins_expired")
    expired.relay.client_data(request(body=CALL))
    assert said(expired)["id"] == "a7"


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "PUT"])
def test_a_request_that_is_no_post_gets_a_plain_object(method: str) -> None:
    """Refused by the gate, and failed later."""
    for bench, code in ((Bench(allowed=False), "uid_refused"), (Bench(), "dns_failed")):
        bench.relay.client_data(request(f"{method} /mcp HTTP/1.1", length=False))
        if bench.relay.busy:
            bench.relay.upstream_failed(code)
        answer = said(bench)
        assert sorted(answer) == ["code", "message", "remedy", "server"]
        assert (answer["code"], answer["server"]) == (code, "srv")


def test_what_was_not_read_has_no_id() -> None:
    """The gate looks at no body."""
    bench = Bench(allowed=False)
    bench.relay.client_data(request(body=CALL))
    assert said(bench)["id"] is None


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([request(body=CALL)], ("tools/call", "echo")),
        ([request(body=CALL)[: -len(CALL)], CALL], ("tools/call", "echo")),
        (
            [request("POST /mcp HTTP/1.1", "Mcp-Method: tools/call", "mcp-name: echo", body=CALL)],
            ("tools/call", "echo"),
        ),
        ([request("POST /mcp HTTP/1.1", "Mcp-Method: tools/list", body=CALL)], (None, None)),
        ([request("POST /mcp HTTP/1.1", "Mcp-Name: echo", "Mcp-Name: echo", body=CALL)], (None, None)),
        ([request(body=CALL)[:-20], request(body=CALL)[-20:]], (None, None)),
        ([CHUNKED + frame(CALL) + LAST_CHUNK], (None, None)),
        ([request(body=CALL + b" " * MAX_KEPT)], (None, None)),
        ([request("PUT /mcp HTTP/1.1", body=CALL)], (None, None)),
        ([request()], (None, None)),
    ],
)
def test_the_record_names_what_was_called(pieces: list[bytes], expected: tuple[str | None, str | None]) -> None:
    """Whether the answer comes in one piece, in several, or not at all."""
    for ending in ("whole", "stream", "closed"):
        upstream = UpstreamRecorder()
        bench = Bench(at_hand=[upstream], limits=LimitsSpec())
        for piece in pieces:
            bench.relay.client_data(piece)
        if ending == "whole":
            bench.relay.upstream_data(OK)
        elif ending == "stream":
            bench.relay.upstream_data(OK[:-1])
            bench.relay.upstream_data(OK[-1:])
        else:
            bench.relay.upstream_closed(clean=False)
        fact = bench.last_request
        assert (fact.mcp_method, fact.mcp_name) == expected
        assert b"cp-" not in b"".join(pieces) or b"cp-" in upstream.written  # the headers go on in any case


def test_the_record_says_when_the_answer_began() -> None:
    """At the final head; an interim one is none."""
    bench = Bench(at_hand=[UpstreamRecorder()])
    bench.relay.client_data(request(body=CALL))
    bench.now += 0.010
    bench.relay.upstream_data(b"HTTP/1.1 103 Early\r\n\r\n")
    bench.now += 0.010
    bench.relay.upstream_data(OK[:-1])
    bench.now += 0.010
    bench.relay.upstream_data(OK[-1:])
    assert (bench.last_request.response_start_ms, bench.last_request.duration_ms) == (20, 30)
    dialing = Bench()
    dialing.relay.client_data(request())
    dialing.relay.upstream_failed("dns_failed")
    assert dialing.last_request.response_start_ms is None
