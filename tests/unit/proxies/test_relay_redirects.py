"""Redirects: of the upstream to itself they are followed inside, and nothing else ever is."""

from __future__ import annotations

import pytest

from codingagents.proxies.exchange import MAX_HOPS, MAX_KEPT
from codingagents.proxies.framing import LAST_CHUNK, frame
from codingagents.rewrite.specs import LimitsSpec
from relay_bench import ALWAYS, TOKEN, Bench, UpstreamRecorder, request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def redirect(location: bytes | None, status: int = 307, more: bytes = b"Content-Length: 0\r\n\r\n") -> bytes:
    line = b"" if location is None else b"Location: %b\r\n" % location
    return b"HTTP/1.1 %d Go\r\n%b%b" % (status, line, more)


def answered(bench: Bench, answer: bytes, *, first: bytes = request(body=b"body")) -> bytes:
    """Return what the client got where the upstream first says `answer`."""
    bench.relay.client_data(first)
    bench.relay.upstream_data(answer)
    return bench.client.take()


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize(
    ("location", "target"),
    [
        (b"/mcp/", b"/mcp/"),
        (b"https://up.test/mcp/", b"/mcp/"),
        (b"https://UP.TEST:443/mcp/?a=b", b"/mcp/?a=b"),
        (b"/mcp/v2?a=b", b"/mcp/v2?a=b"),
        (b"mcp/v2", b"/mcp/v2"),
    ],
)
def test_a_redirect_to_itself_is_followed_with_method_body_and_credential(
    status: int, location: bytes, target: bytes
) -> None:
    """The client sees the final answer only; the connection is used again where it may be."""
    first, second = UpstreamRecorder(), UpstreamRecorder(reused=True)
    bench = Bench(at_hand=[second, first])
    assert answered(bench, redirect(location, status)) == b""
    assert first.state == "released"
    assert bytes(second.written) == (
        b"POST " + target + b" HTTP/1.1\r\n" + ALWAYS + TOKEN + b"Content-Length: 4\r\n\r\nbody"
    )
    bench.relay.upstream_data(OK)
    assert bench.client.take() == OK
    assert len(bench.facts) == 1
    assert (bench.last_request.status, bench.last_request.error_type) == (200, None)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 306, 307, 308])
@pytest.mark.parametrize("location", [b"https://evil.test/mcp", None])
def test_a_redirect_elsewhere_is_refused(status: int, location: bytes | None) -> None:
    """Its Location would lead the client, or the credential, around the helper."""
    upstream = UpstreamRecorder()
    bench = Bench(at_hand=[UpstreamRecorder(), upstream])
    answer = answered(bench, redirect(location, status))
    assert b"redirect_refused" in answer
    assert b"evil" not in answer
    assert (bench.asked, upstream.state) == (1, "closed")


@pytest.mark.parametrize("status", [300, 301, 302, 303])
def test_a_redirect_that_may_change_the_method_is_refused(status: int) -> None:
    """A client would make a GET of it; the call would be lost."""
    assert b"redirect_refused" in answered(Bench(at_hand=[UpstreamRecorder()]), redirect(b"/mcp/", status))


@pytest.mark.parametrize(
    "location",
    [
        *(b"http://up.test/mcp/", b"https://up.test:8443/mcp/", b"https://up.test.evil/", b"//evil.test/mcp/"),
        *(b"https://up.test@evil.test/", b"https://user@up.test/mcp/", b"/mcp/../admin", b"/mcp/%2e%2e/admin", b"../x"),
        *(
            b"/.well-known/oauth-authorization-server",
            b"\\\\evil.test",
            b"/mcp\\..\\admin",
            b"///evil.test",
            b"/a b",
            b"",
        ),
        *(b"/mcp/\xc3\xa9", b"javascript:x", b"/mcp/, https://evil.test/"),
    ],
)
def test_what_only_looks_like_the_same_origin_is_refused(location: bytes) -> None:
    """Another scheme, port or user, a climbing path, a spelling that parsers disagree about."""
    bench = Bench(at_hand=[UpstreamRecorder(), UpstreamRecorder()])
    assert b"redirect_refused" in answered(bench, redirect(location))
    assert bench.asked == 1


@pytest.mark.parametrize("location", [b"/debug/headers", b"mcp2", b"/", b"/mcpx/", b"https://up.test/debug?to=/mcp"])
def test_a_redirect_off_the_route_is_refused(location: bytes) -> None:
    """An open redirect beneath the route must not widen it: the agent could see its credential reflected."""
    bench = Bench(at_hand=[UpstreamRecorder(), UpstreamRecorder()])
    assert b"redirect_refused" in answered(bench, redirect(location))
    assert bench.asked == 1


@pytest.mark.parametrize(("location", "followed"), [(b"/mcp/", True), (b"/mcp/v2", False)])
def test_a_legacy_servers_route_is_one_path_with_or_without_a_slash(location: bytes, followed: bool) -> None:
    bench = Bench(at_hand=[UpstreamRecorder(), UpstreamRecorder()], legacy=True)
    assert (answered(bench, redirect(location)) == b"") is followed


def test_two_locations_are_no_answer() -> None:
    two = redirect(b"/mcp/", more=b"Location: /mcp/\r\nContent-Length: 0\r\n\r\n")
    assert b"bad_response" in answered(Bench(at_hand=[UpstreamRecorder()]), two)


def test_hops_are_counted() -> None:
    """A loop ends."""
    bench = Bench(at_hand=[UpstreamRecorder() for _ in range(9)])
    bench.relay.client_data(request(body=b"body"))
    for _ in range(MAX_HOPS):
        bench.relay.upstream_data(redirect(b"/mcp/"))
        assert bench.client.take() == b""
    bench.relay.upstream_data(redirect(b"/mcp/"))
    assert b"redirect_refused" in bench.client.take()
    assert bench.asked == 1 + MAX_HOPS


@pytest.mark.parametrize(("size", "followed"), [(MAX_KEPT, True), (MAX_KEPT + 1, False)])
def test_a_body_is_kept_for_it_up_to_a_limit(size: int, followed: bool) -> None:
    second = UpstreamRecorder()
    bench = Bench(at_hand=[second, UpstreamRecorder()], limits=LimitsSpec())
    answer = answered(bench, redirect(b"/mcp/"), first=request(body=b"x" * size))
    assert (answer == b"") == followed == second.written.endswith(b"x" * size)
    assert followed or b"redirect_refused" in answer


def test_a_redirect_in_the_middle_of_a_body_goes_on_there() -> None:
    """What came is repeated, what comes follows; the first connection is not used again."""
    first, second = UpstreamRecorder(), UpstreamRecorder()
    bench = Bench(at_hand=[second, first])
    bench.relay.client_data(request("POST /mcp HTTP/1.1", "Transfer-Encoding: chunked", length=False) + frame(b"one"))
    bench.relay.upstream_full(True)
    bench.relay.upstream_data(redirect(b"/mcp/"))
    assert first.state == "closed"
    assert not bench.client.paused
    bench.relay.client_data(frame(b"two") + LAST_CHUNK)
    assert second.written.endswith(b"\r\n\r\n" + frame(b"one") + frame(b"two") + LAST_CHUNK)
    bench.relay.upstream_data(OK)
    assert bench.client.take() == OK


def test_a_redirect_waits_for_its_connection() -> None:
    """And one that does not come up is an error like another; a redirect with a body costs the connection."""
    first = UpstreamRecorder()
    bench = Bench(at_hand=[first])
    assert answered(bench, redirect(b"/mcp/", more=b"Content-Length: 5\r\n\r\nmoved")) == b""
    assert first.state == "released"
    bench.relay.upstream_failed("connect_failed")
    assert b"connect_failed" in bench.client.take()
    first = UpstreamRecorder()
    bench = Bench(at_hand=[first])
    assert answered(bench, redirect(b"/mcp/", more=b"Content-Length: 5\r\n\r\nmov")) == b""
    assert first.state == "closed"
    bench.relay.client_closed()
    assert (bench.cancelled, bench.last_request.error_type) == (1, "client_closed")


def test_a_location_is_never_the_clients() -> None:
    """Not of a 201 either."""
    created = b"HTTP/1.1 201 Created\r\nLocation: https://up.test/x\r\nContent-Length: 0\r\n\r\n"
    assert answered(Bench(at_hand=[UpstreamRecorder()]), created) == created.replace(
        b"Location: https://up.test/x\r\n", b""
    )
