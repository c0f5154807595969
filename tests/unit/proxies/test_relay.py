"""One relay on the bench: scripted conversations, effects asserted to the byte."""

import pytest

from codingagents.trust.errors import ConfigError
from codingagents.trust.vocabulary import Secret
from relay_bench import ALWAYS, HEAD, TOKEN, Bench, UpstreamRecorder, dialed, request

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
FORWARDED = b"POST /mcp HTTP/1.1\r\n" + ALWAYS + TOKEN + b"Content-Length: 4\r\n\r\nbody"


def test_a_request_and_its_answer_are_two_writes() -> None:
    """Head and body in one write each way, the connection back to the pool, one fact."""
    idle = UpstreamRecorder(reused=True)
    bench = Bench(at_hand=[idle])
    bench.relay.client_data(request(body=b"body"))
    assert (bytes(idle.written), idle.writes) == (FORWARDED, 1)
    bench.now += 0.025
    bench.relay.upstream_data(ANSWER)
    assert bench.client.take() == ANSWER
    assert idle.state == "released"
    fact = bench.last_request
    assert (fact.method, fact.status, fact.error_type) == ("POST", 200, None)
    assert (fact.request_bytes, fact.response_bytes, fact.duration_ms) == (4, 2, 25)
    assert bench.client.end is None
    assert not bench.relay.busy


def test_while_the_upstream_is_dialed_the_body_waits_and_the_client_is_paused() -> None:
    """Memory is bounded by what one read brought."""
    bench = Bench()
    bench.relay.client_data(request(body=b"body")[:-2])
    assert bench.client.paused
    upstream = UpstreamRecorder()
    bench.relay.upstream_ready(upstream)
    assert not bench.client.paused
    bench.relay.client_data(b"dy")
    assert bytes(upstream.written) == FORWARDED


def test_a_complete_request_does_not_pause_its_client() -> None:
    """Else its going away would not be seen while the upstream is dialed."""
    bench = Bench()
    bench.relay.client_data(request(body=b"body"))
    assert not bench.client.paused
    bench.relay.client_closed()
    assert bench.cancelled == 1
    assert bench.last_request.error_type == "client_closed"
    assert bench.client.end == "abort"


def test_a_renewed_credential_is_attached_from_the_next_request_on() -> None:
    """On the same client connection; values that are unfit change nothing."""
    first, second, third = (UpstreamRecorder(reused=True) for _ in range(3))
    bench = Bench(at_hand=[third, second, first])
    bench.relay.client_data(request())
    assert b"Bearer upstream\r\n" in first.written
    bench.attachment.renew({"TOKEN": Secret("renewed")})
    bench.relay.upstream_data(ANSWER)
    bench.relay.client_data(request())
    assert b"Bearer renewed\r\n" in second.written
    with pytest.raises(ConfigError, match="Authorization"):
        bench.attachment.renew({"TOKEN": Secret("a\nb")})
    bench.relay.upstream_data(ANSWER)
    bench.relay.client_data(request())
    assert b"Bearer renewed\r\n" in third.written


def test_an_untrusted_connection_gets_no_credential() -> None:
    """What holds no secret is attached all the same."""
    upstream = dialed(Bench(), request(), trusted=False)
    assert bytes(upstream.written) == b"POST /mcp HTTP/1.1\r\n" + ALWAYS + b"Content-Length: 0\r\n\r\n"


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"403 Forbidden"])
@pytest.mark.parametrize(
    ("trusted", "credential", "expected"),
    [
        (True, True, b"credential_refused"),
        (False, True, b"credential_withheld"),
        (True, False, None),
    ],
)
def test_a_refused_credential_is_ours_to_explain(
    status: bytes, trusted: bool, credential: bool, expected: bytes | None
) -> None:
    """Without a credential of ours the status is the client's, without the challenge."""
    bench = Bench(credential=credential)
    upstream = dialed(bench, request(), trusted=trusted)
    bench.relay.upstream_data(b"HTTP/1.1 " + status + b"\r\nWWW-Authenticate: x\r\nContent-Length: 0\r\n\r\n")
    answer = bench.client.take()
    if expected is None:
        assert answer == b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n"
    else:
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert expected in answer
        assert b"Authorization from TOKEN" in answer
        assert upstream.state == "closed"
    assert bench.client.end is None  # the request had arrived: the connection lives on


@pytest.mark.parametrize("status", [202, 304, 400, 404, 405, 409, 429, 500, 503])
def test_other_statuses_and_their_bodies_pass(status: int) -> None:
    """An MCP client reads both, of errors above all."""
    bench = Bench()
    dialed(bench, request())
    answer = b"HTTP/1.1 %d X\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n" % status
    bench.relay.upstream_data(answer)
    assert bench.client.take() == answer


def test_interim_responses_stay_here() -> None:
    """100 was answered by the helper; a 103 is dropped; a switch of protocols is refused."""
    bench = Bench()
    dialed(bench, request(body=b"body"))
    bench.relay.upstream_data(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 O")
    assert bench.client.take() == b""
    bench.relay.upstream_data(b"K\r\nContent-Length: 2\r\n\r\n{}")
    assert bench.client.take() == ANSWER
    dialed(bench, request())
    bench.relay.upstream_data(b"HTTP/1.1 101 Switching\r\n\r\n")
    assert b"bad_response" in bench.client.take()


def test_a_client_that_waits_for_100_gets_it_at_once() -> None:
    """Before any upstream is there, and only after the gate."""
    bench = Bench()
    bench.relay.client_data(request("POST /mcp HTTP/1.1", "Expect: 100-continue", body=b"body")[:-4])
    assert bench.client.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    upstream = UpstreamRecorder()
    bench.relay.upstream_ready(upstream)
    bench.relay.client_data(b"body")
    assert bytes(upstream.written) == FORWARDED
    refused = Bench(allowed=False)
    refused.relay.client_data(request("POST /mcp HTTP/1.1", "Expect: 100-continue", body=b"body")[:-4])
    assert b"100 Continue" not in refused.client.take()
    expired = Bench(refusal="pins_expired")
    expired.relay.client_data(request("POST /mcp HTTP/1.1", "Expect: 100-continue", body=b"body")[:-4])
    assert b"100 Continue" not in expired.client.take()


def test_requests_sent_ahead_are_served_in_order() -> None:
    """Three at once: the next is looked at when the answer before it is complete."""
    bench = Bench()
    first, second, third = (request(f"POST /mcp/{n} HTTP/1.1", body=b"x" * n) for n in (1, 2, 3))
    upstream = dialed(bench, first + second + third)
    assert upstream.written.startswith(b"POST /mcp/1 ")
    for number in (2, 3):
        following = UpstreamRecorder(reused=True)
        bench.at_hand.append(following)
        bench.relay.upstream_data(ANSWER)
        assert following.written.startswith(b"POST /mcp/%d " % number)
        assert following.written.endswith(b"x" * number)
    bench.relay.upstream_data(ANSWER)
    assert bench.client.take() == ANSWER * 3


def test_a_flood_of_requests_sent_ahead_is_not_read_on() -> None:
    """Back-pressure, and reading goes on when it is their turn."""
    bench = Bench()
    dialed(bench, request())
    bench.relay.client_data(b"G" * 70_000)
    assert bench.client.paused
    bench.relay.upstream_data(ANSWER)
    assert not bench.client.paused
    assert b"431" in bench.client.take()


def test_events_pass_as_they_come() -> None:
    """The head before the first event, each event at once, no rewriting."""
    bench = Bench()
    upstream = dialed(bench, request("GET /mcp HTTP/1.1", length=False))
    bench.relay.upstream_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert bench.client.take() == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    bench.relay.upstream_data(b"9\r\ndata: 1\n\n\r\n")
    assert bench.client.take() == b"9\r\ndata: 1\n\n\r\n"
    bench.relay.upstream_data(b"9\r\ndata")
    assert bench.client.take() == b"4\r\ndata\r\n"
    bench.relay.upstream_data(b": 2\n\n\r\n0\r\n\r\n")
    assert bench.client.take() == b"5\r\n: 2\n\n\r\n0\r\n\r\n"
    assert upstream.state == "released"


@pytest.mark.parametrize(
    ("response", "clean", "ends_well"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", True, False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", True, False),
        (b"HTTP/1.1 200 OK\r\n\r\nhalf", False, False),
        (b"HTTP/1.1 200 OK\r\n\r\nhalf", True, True),
    ],
)
def test_an_upstream_that_ends_in_a_body(response: bytes, clean: bool, ends_well: bool) -> None:
    """Only a body without a length ends with its connection, and only where TLS or TCP ended in order."""
    bench = Bench()
    dialed(bench, request())
    bench.relay.upstream_data(response)
    bench.relay.upstream_closed(clean=clean)
    if ends_well:
        assert bench.client.take().endswith(b"4\r\nhalf\r\n0\r\n\r\n")
        assert (bench.client.end, bench.last_request.error_type) == (None, None)
    else:
        assert not bench.client.take().endswith(b"0\r\n\r\n")
        assert (bench.client.end, bench.last_request.error_type) == ("abort", "upstream_closed")


def test_a_broken_chunk_of_the_upstream_breaks_the_clients_connection() -> None:
    """A response that has begun cannot be taken back, and must not look complete."""
    bench = Bench()
    upstream = dialed(bench, request())
    bench.relay.upstream_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    bench.relay.upstream_data(b"zz\r\n")
    assert bench.client.end == "abort"
    assert upstream.state == "closed"
    assert bench.last_request.error_type == "bad_response"


@pytest.mark.parametrize(
    ("first", "reused", "answered", "again"),
    [
        ("GET /mcp HTTP/1.1", True, b"", True),
        ("HEAD /mcp HTTP/1.1", True, b"", True),
        ("GET /mcp HTTP/1.1", False, b"", False),
        ("GET /mcp HTTP/1.1", True, b"HTTP", False),
        ("POST /mcp HTTP/1.1", True, b"", False),
        ("DELETE /mcp HTTP/1.1", True, b"", False),
    ],
)
def test_only_what_is_safe_is_asked_again(first: str, reused: bool, answered: bytes, again: bool) -> None:
    """A request that may have been carried out is never repeated, and nothing is repeated twice."""
    bench = Bench(at_hand=[UpstreamRecorder(reused=reused)])
    bench.relay.client_data(request(first))
    if answered:
        bench.relay.upstream_data(answered)
    bench.relay.upstream_closed(clean=True)
    if not again:
        assert b"502" in bench.client.take()[:16]
        assert bench.last_request.error_type == "upstream_closed"
        return
    fresh = UpstreamRecorder()
    bench.relay.upstream_ready(fresh)
    assert fresh.written.startswith(first.encode())
    bench.relay.upstream_closed(clean=True)
    assert bench.last_request.error_type == "upstream_closed"


def test_surplus_bytes_of_the_upstream_are_nobodys() -> None:
    """A connection that sent more than its answer is not used again."""
    bench = Bench()
    upstream = dialed(bench, request())
    bench.relay.upstream_data(ANSWER + b"HTTP/1.1 200 OK\r\n")
    assert bench.client.take() == ANSWER
    assert upstream.state == "closed"


def test_an_answer_before_the_request_was_complete_ends_both_connections() -> None:
    """The rest of the body has nowhere to go; the client reads the answer first."""
    bench = Bench()
    upstream = dialed(bench, request(body=b"body")[:-1])
    bench.relay.upstream_data(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    assert bench.client.take() == b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    assert (bench.client.end, upstream.state) == ("eof", "closed")


def test_a_client_that_wants_no_more_is_closed_after_its_answer() -> None:
    """And told so."""
    bench = Bench()
    dialed(bench, request("POST /mcp HTTP/1.1", "Connection: close"))
    bench.relay.upstream_data(ANSWER)
    assert b"\r\nConnection: close\r\n\r\n{}" in bench.client.take()
    assert bench.client.end == "close"


@pytest.mark.parametrize(
    ("code", "status"),
    [("connect_timeout", 504), ("dns_failed", 502), ("pin_mismatch", 502), ("connect_failed", 502)],
)
def test_a_connection_that_does_not_come_up_is_an_answer(code: str, status: int) -> None:
    """The client's connection lives on where its request had arrived."""
    bench = Bench()
    bench.relay.client_data(request(body=b"body"))
    bench.relay.upstream_failed(code)
    assert b" %d " % status in bench.client.take()[:16]
    assert bench.client.end is None
    assert (bench.last_request.status, bench.last_request.error_type) == (status, code)
    bench.relay.client_data(request(body=b"body")[:-1])
    bench.relay.upstream_failed(code)
    assert b"Connection: close" in bench.client.take()
    assert bench.client.end == "eof"


def test_expired_pins_refuse_and_close() -> None:
    """However many requests were sent ahead."""
    bench = Bench(refusal="pins_expired")
    bench.relay.client_data(request() * 50)
    assert bench.client.take().count(b"pins_expired") == 1
    assert (bench.client.end, bench.asked) == ("eof", 0)


def test_the_peer_is_looked_at_once_for_a_connection() -> None:
    """Its answer holds for all its requests."""
    bench = Bench()
    bench.allowed = True
    dialed(bench, request())
    bench.relay.upstream_data(ANSWER)
    bench.allowed = False
    dialed(bench, request())
    bench.relay.upstream_data(ANSWER)
    assert bench.client.take() == ANSWER * 2


def test_draining_serves_what_is_in_flight_and_no_more() -> None:
    """Idle: closed at once. Busy: the answer, with Connection: close."""
    idle = Bench()
    idle.relay.drain()
    assert idle.client.end == "close"
    busy = Bench()
    dialed(busy, request())
    busy.relay.drain()
    assert busy.client.end is None
    busy.relay.upstream_data(ANSWER)
    assert b"Connection: close" in busy.client.take()
    assert busy.client.end == "close"


def test_the_answer_to_head_is_a_head() -> None:
    """Ours as well as the upstream's, whatever length they name."""
    bench = Bench()
    dialed(bench, request("HEAD /mcp HTTP/1.1"))
    bench.relay.upstream_data(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
    assert bench.client.take() == b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
    bench.relay.client_data(request("HEAD /mcp HTTP/1.1"))
    bench.relay.upstream_failed("dns_failed")
    assert bench.client.take().endswith(b"\r\n\r\n")
    bench.allowed = False
    refused = Bench(allowed=False)
    refused.relay.client_data(request("HEAD /mcp HTTP/1.1"))
    assert refused.client.take().endswith(b"\r\n\r\n")


def test_nothing_happens_after_the_end() -> None:
    """Late news of the shell is no error."""
    bench = Bench()
    bench.relay.client_data(request())
    bench.relay.client_closed()
    bench.relay.client_closed()
    bench.relay.client_data(b"more")
    bench.relay.client_full(True)
    bench.relay.client_full(False)
    bench.relay.tick(1e12)
    bench.relay.drain()
    assert bench.client.end == "abort"
    assert len(bench.facts) == 1


def test_the_head_may_come_byte_by_byte() -> None:
    """And is found where it ends."""
    bench = Bench()
    for byte in request(body=b"body"):
        bench.relay.client_data(bytes([byte]))
    upstream = UpstreamRecorder()
    bench.relay.upstream_ready(upstream)
    assert bytes(upstream.written).startswith(FORWARDED[:-4])
    assert HEAD.encode() not in upstream.written
