"""One relay on the bench: how much, how long, and how fast; bodies and heads over a limit, deadlines, back-pressure."""

from collections.abc import Callable

import pytest

from codingagents.proxies.relay import HEAD_SECONDS, LINGER_BYTES, LINGER_SECONDS, Relay
from codingagents.rewrite.specs import LimitsSpec
from relay_bench import ALWAYS, TOKEN, Bench, UpstreamRecorder, dialed, request

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
FORWARDED = b"POST /mcp HTTP/1.1\r\n" + ALWAYS + TOKEN + b"Content-Length: 4\r\n\r\nbody"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused(chunked: bool) -> None:
    """By its declared length before anything upstream is asked for, chunked when it grows past the limit."""
    bench = Bench(limits=LimitsSpec(request_bytes=10))
    if chunked:
        upstream = dialed(bench, request("POST /mcp HTTP/1.1", "Transfer-Encoding: chunked", length=False))
        bench.relay.client_data(b"8\r\n12345678\r\n")
        bench.relay.client_data(b"8\r\n12345678\r\n")
        assert upstream.state == "closed"
        assert b"0\r\n\r\n" not in upstream.written
    else:
        bench.relay.client_data(request(body=b"x" * 11))
        assert bench.asked == 0
    assert b"413" in bench.client.take()[:16]
    assert bench.client.end == "eof"


def test_a_refused_client_may_finish_speaking_but_not_for_long() -> None:
    """Reading on keeps the kernel from resetting the answer away; bytes and time are limited."""
    bench = Bench(allowed=False)
    bench.relay.client_data(request(body=b"body"))
    assert bench.client.end == "eof"
    bench.relay.client_data(b"x" * 1000)
    assert bench.client.end == "eof"
    bench.relay.client_data(b"x" * LINGER_BYTES)
    assert bench.client.end == "close"
    bench = Bench(allowed=False)
    bench.relay.client_data(request())
    bench.relay.tick(bench.now + LINGER_SECONDS)
    assert bench.client.end == "close"


def test_back_pressure_goes_both_ways() -> None:
    """Who cannot write makes the other leg stop reading, and nothing stays stopped."""
    bench = Bench()
    upstream = dialed(bench, request(body=b"body")[:-1])
    bench.relay.upstream_full(True)
    assert bench.client.paused
    bench.relay.upstream_full(False)
    assert not bench.client.paused
    bench.relay.client_data(b"y")
    bench.relay.client_full(True)
    assert upstream.paused
    bench.relay.upstream_data(ANSWER)
    assert upstream.state == "released"
    following = dialed(bench, request())
    assert following.paused
    bench.relay.client_full(False)
    assert not following.paused


@pytest.mark.parametrize(
    "ends", [Relay.client_closed, Relay.give_up, lambda relay: relay.upstream_failed("dns_failed")]
)
def test_who_is_not_read_from_is_watched_instead(ends: Callable[[Relay], None]) -> None:
    """Until it is read from again, or ended."""
    bench = Bench()
    bench.relay.client_data(request(body=b"body")[:-1])
    assert (bench.client.paused, bench.watched) == (True, True)
    upstream = UpstreamRecorder()
    bench.relay.upstream_ready(upstream)
    assert (bench.client.paused, bench.watched) == (False, False)
    bench.relay.upstream_full(True)
    assert bench.watched
    bench.relay.client_closed()
    assert (bench.watched, bench.client.end, upstream.state) == (False, "abort", "closed")
    assert bench.last_request.error_type == "client_closed"

    bench = Bench()
    bench.relay.client_data(request(body=b"body")[:-1])
    ends(bench.relay)
    assert not bench.watched


def test_deadlines() -> None:
    """An idle connection is closed, a slow head answered 408, a silent upstream 504, a silent stream broken off."""
    limits = LimitsSpec(idle_seconds=60)
    bench = Bench(limits=limits, at_hand=[UpstreamRecorder()])
    bench.relay.client_data(request())
    bench.relay.upstream_data(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    bench.client.take()
    bench.relay.tick(bench.now + 59)
    assert bench.client.end is None
    bench.relay.tick(bench.now + 60)
    assert bench.client.take() == b""
    assert bench.client.end == "close"

    bench = Bench(limits=limits)
    bench.relay.client_data(b"POST /mcp")
    bench.now += HEAD_SECONDS - 1
    bench.relay.client_data(b" HTTP/1.1\r\n")
    bench.relay.tick(bench.now + 1)
    assert b"408" in bench.client.take()[:16]

    bench = Bench(limits=limits)
    dialed(bench, request(body=b"body")[:-1])
    bench.relay.tick(bench.relay.deadline)
    assert b"408" in bench.client.take()[:16]

    bench = Bench(limits=limits)
    upstream = dialed(bench, request())
    bench.now += 59
    bench.relay.tick(bench.now)
    bench.relay.tick(bench.now + 1)
    assert b"504" in bench.client.take()[:16]
    assert upstream.state == "closed"

    bench = Bench(limits=limits)
    dialed(bench, request())
    bench.relay.upstream_data(b"HTTP/1.1 200 OK\r\nContent-Type: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(10):
        bench.now += 50
        bench.relay.tick(bench.now)
        bench.relay.upstream_data(b"1\r\nx\r\n")
    assert bench.client.end is None
    bench.relay.tick(bench.now + 60)
    assert bench.client.end == "abort"


@pytest.mark.parametrize(("idle_seconds", "allowed"), [(900, HEAD_SECONDS), (5, 5)])
def test_who_connects_and_says_nothing_is_soon_gone(idle_seconds: int, allowed: float) -> None:
    """Before anybody is asked for a bearer; between two requests of one client it is `idle_seconds`, see above."""
    bench = Bench(limits=LimitsSpec(idle_seconds=idle_seconds))
    assert bench.relay.deadline == bench.now + allowed
    bench.relay.tick(bench.now + allowed - 1)
    assert bench.client.end is None
    bench.relay.tick(bench.now + allowed)
    assert bench.client.end == "close"
    assert (bench.client.take(), bench.facts) == (b"", [])


def test_a_head_over_the_limit_is_refused() -> None:
    """Whether it is complete or still grows."""
    for data in (request("POST /mcp HTTP/1.1", "X: " + "x" * 2048), b"POST /" + b"a" * 2048):
        bench = Bench()
        bench.relay.client_data(data)
        assert b"431" in bench.client.take()[:16]
        assert bench.refused == ["head_too_large"]
    bench = Bench()
    dialed(bench, request())
    bench.relay.upstream_data(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2048)
    assert b"bad_response" in bench.client.take()
