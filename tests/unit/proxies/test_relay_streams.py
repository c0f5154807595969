"""Event streams through the relay: as long as they like, told of the end, and a legacy server's endpoints."""

from __future__ import annotations

import math

import pytest

from codingagents.proxies.framing import LAST_CHUNK, frame
from codingagents.rewrite.specs import LimitsSpec
from relay_bench import Bench, UpstreamRecorder, request

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
STREAM = EVENTS + b"Transfer-Encoding: chunked\r\n\r\n"
GET = request("GET /mcp HTTP/1.1", length=False)
FAREWELL = frame(b": the helper is being stopped\n\n") + LAST_CHUNK


def streaming(first: bytes = GET, answer: bytes = STREAM, *, legacy: bool = False) -> tuple[Bench, UpstreamRecorder]:
    upstream = UpstreamRecorder()
    bench = Bench(at_hand=[upstream], limits=LimitsSpec(idle_seconds=60), legacy=legacy)
    bench.relay.client_data(first)
    bench.relay.upstream_data(answer)
    return bench, upstream


@pytest.mark.parametrize("first", [GET, request(body=b"{}")])
@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked\r\n\r\n", b"\r\n", b"Content-Length: 99\r\n\r\n"])
def test_a_stream_may_be_silent_and_the_next_request_may_not(first: bytes, framing: bytes) -> None:
    """Servers keep streams open for hours; dead peers are TCP's to find."""
    bench, _ = streaming(first, EVENTS + framing)
    for _ in range(3):
        bench.now += 1e6
        bench.relay.tick(bench.now)
        assert bench.relay.deadline == math.inf
        bench.relay.upstream_data(frame(b"data: 1\n\n") if b"chunked" in framing else b"data: 1\n\n")
    assert bench.client.end is None


def test_after_a_stream_limits_hold_again() -> None:
    bench, _ = streaming()
    bench.relay.upstream_data(LAST_CHUNK)
    assert bench.relay.deadline == bench.now + 60
    bench.at_hand.append(UpstreamRecorder())
    bench.relay.client_data(GET)
    bench.now += 60
    bench.relay.tick(bench.now)
    assert b"upstream_timeout" in bench.client.take()


def test_another_body_may_not_be_silent() -> None:
    """The control."""
    bench, _ = streaming(answer=STREAM.replace(b"event-stream", b"event-streams"))
    bench.relay.tick(bench.now + 60)
    assert bench.client.end == "abort"


@pytest.mark.parametrize(("full", "code"), [(True, "client_stalled"), (False, "upstream_timeout")])
def test_a_client_that_does_not_read_is_no_fault_of_the_server(full: bool, code: str) -> None:
    """Or the record would blame the server, and its helper be degraded, for what the agent does."""
    bench, _ = streaming(answer=STREAM.replace(b"event-stream", b"event-streams"))
    bench.relay.client_full(full)
    bench.relay.tick(bench.now + 60)
    assert bench.client.end == "abort"
    assert bench.last_request.error_type == code


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked\r\n\r\n", b"\r\n"])
@pytest.mark.parametrize("event", [b"", b"data: 1\n\n", b"data: 1\r\n\r\n"])
def test_a_stream_between_events_is_told_and_ended(framing: bytes, event: bytes) -> None:
    """Cleanly: the client has every event whole, and connects again."""
    bench, upstream = streaming(answer=EVENTS + framing)
    if event:
        bench.relay.upstream_data(frame(event) if b"chunked" in framing else event)
    bench.client.take()
    bench.relay.drain()
    assert bench.client.take() == FAREWELL
    assert (bench.client.end, upstream.state) == ("close", "closed")
    assert (bench.last_request.status, bench.last_request.error_type) == (200, "drained")


def test_a_stream_within_an_event_is_ended_after_it() -> None:
    bench, _ = streaming()
    bench.relay.upstream_data(frame(b"data: 1\n"))
    bench.relay.drain()
    assert bench.client.end is None
    bench.client.take()
    bench.relay.upstream_data(frame(b"\n"))
    assert bench.client.take() == frame(b"\n") + FAREWELL
    assert bench.client.end == "close"


def test_a_stream_that_begins_while_draining_is_told_at_once() -> None:
    bench = Bench(at_hand=[UpstreamRecorder()])
    bench.relay.client_data(GET)
    bench.relay.drain()
    assert bench.relay.busy
    bench.relay.upstream_data(STREAM)
    assert bench.client.take().endswith(b"Connection: close\r\n\r\n" + FAREWELL)


@pytest.mark.parametrize(
    ("first", "answer"),
    [
        (request(body=b"{}"), STREAM),
        (GET, EVENTS + b"Content-Length: 99\r\n\r\n"),
        (GET, STREAM.replace(b"text/event-stream", b"application/json")),
    ],
)
def test_what_ends_by_itself_is_waited_for_and_then_broken_off(first: bytes, answer: bytes) -> None:
    """An answer to a call must not look complete where it is not."""
    bench, upstream = streaming(first, answer)
    bench.relay.drain()
    assert not bench.client.end
    bench.client.take()
    bench.relay.give_up()
    assert (bench.client.take(), bench.client.end, upstream.state) == (b"", "abort", "closed")
    assert bench.last_request.error_type == "drained"


def test_a_request_in_flight_finishes_while_draining_or_is_answered() -> None:
    bench = Bench(at_hand=[UpstreamRecorder()])
    bench.relay.client_data(request(body=b"{}"))
    bench.relay.drain()
    bench.relay.upstream_data(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert bench.client.take() == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    late = Bench(at_hand=[UpstreamRecorder()])
    late.relay.client_data(request(body=b"{}"))
    late.relay.drain()
    late.relay.give_up()
    answer = late.client.take()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"drained" in answer
    assert late.client.end == "close"
    idle = Bench()
    idle.relay.client_data(b"POST")
    idle.relay.drain()
    assert idle.client.end is None
    idle.relay.give_up()
    idle.relay.give_up()
    assert idle.client.end == "close"


def test_the_endpoint_of_a_legacy_server_opens_its_route() -> None:
    """Before, nothing is relayed there; after, it is, on any connection of the helper."""
    bench, _ = streaming(legacy=True)
    post = request("POST /messages/?s=1 HTTP/1.1", body=b"{}")
    denied = Bench(legacy=True)
    denied.relay.client_data(post)
    assert b"outside_route" in denied.client.take()
    bench.client.take()
    bench.relay.upstream_data(frame(b"event: endpoint\ndata: https://up.test/messages/?s=1\n\n"))
    assert bench.client.take() == frame(b"event: endpoint\ndata: /messages/?s=1\n\n")
    assert bench.route.judge(b"/messages/?s=1") is None
    bench.relay.upstream_data(frame(b"data: 1\n\n") + LAST_CHUNK)
    upstream = UpstreamRecorder()
    bench.at_hand.append(upstream)
    bench.relay.client_data(post)
    assert upstream.written.startswith(b"POST /messages/?s=1 HTTP/1.1\r\n")


def test_a_legacy_stream_of_known_length_gets_longer() -> None:
    event = b"event: endpoint\ndata: m\n\n"
    bench, upstream = streaming(answer=EVENTS + b"Content-Length: %d\r\n\r\n%b" % (len(event), event), legacy=True)
    ours = frame(b"event: endpoint\ndata: /m\n\n") + LAST_CHUNK
    assert bench.client.take() == EVENTS + b"Transfer-Encoding: chunked\r\n\r\n" + ours
    assert upstream.state == "released"
    assert bench.last_request.response_bytes == len(event)


@pytest.mark.parametrize("first", [GET, request("HEAD /mcp HTTP/1.1", length=False)])
@pytest.mark.parametrize("length", [0, 99])
def test_a_legacy_stream_without_a_body_is_complete_with_its_head(first: bytes, length: int) -> None:
    answer = EVENTS + b"Content-Length: %d\r\n\r\n" % length
    bench, _ = streaming(first, answer, legacy=True)
    if length and first == GET:
        assert bench.relay.busy  # the control: this one has a body
        return
    assert (bench.client.take(), bench.relay.busy) == (answer, False)
    assert bench.relay.deadline == bench.now + 60


def test_an_endpoint_on_another_origin_is_refused() -> None:
    """With the head still in hand as an answer, later by breaking off."""
    event = b"event: endpoint\ndata: https://evil.test/\n\n"
    bench, upstream = streaming(answer=STREAM + frame(event), legacy=True)
    assert b"endpoint_refused" in bench.client.take()
    assert upstream.state == "closed"
    bench, upstream = streaming(legacy=True)
    bench.client.take()
    bench.relay.upstream_data(frame(event))
    assert (bench.client.take(), bench.client.end, upstream.state) == (b"", "abort", "closed")
    assert bench.last_request.error_type == "endpoint_refused"


def test_a_compressed_stream_of_a_legacy_server_is_refused() -> None:
    """Its endpoint could not be read; another answer, and a modern server's stream, pass as they are."""
    coded = b"Content-Encoding: gzip\r\n"
    bench, _ = streaming(answer=EVENTS + coded + b"\r\n", legacy=True)
    assert b"endpoint_refused" in bench.client.take()
    other = b"HTTP/1.1 202 Accepted\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b"
    bench, _ = streaming(answer=other, legacy=True)
    assert bench.client.take() == other
    bench, _ = streaming(answer=EVENTS + coded + b"\r\n")
    assert bench.client.take() == EVENTS + coded + b"Transfer-Encoding: chunked\r\n\r\n"
    bench, _ = streaming(answer=EVENTS + b"Content-Encoding: identity\r\n\r\n", legacy=True)
    assert bench.client.take().startswith(b"HTTP/1.1 200")


def test_a_legacy_stream_that_ends_with_its_connection_lets_go_of_what_was_held() -> None:
    bench, _ = streaming(answer=EVENTS + b"\r\n", legacy=True)
    bench.client.take()
    bench.relay.upstream_data(b"data: 1\n\ndata: 2\n")
    assert bench.client.take() == frame(b"data: 1\n\n")
    bench.relay.upstream_closed(clean=True)
    assert bench.client.take() == frame(b"data: 2\n") + LAST_CHUNK
    assert bench.last_request.error_type is None
