"""The relay against h11 and httptools: what it lets through both read as it does; what it sends on means one thing.

Where one of them disagrees the relay refuses. Where the two agree and it refuses all the same, the reason is in the
message and in `REASONS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from hypothesis import assume, event, example, given, settings
from hypothesis import strategies as st

from codingagents.proxies.framing import frame
from codingagents.proxies.heads import METHODS
from http_opinions import (
    Message,
    Opinion,
    requests_by_h11,
    requests_by_httptools,
    response_by_h11,
    response_by_httptools,
)
from relay_bench import PORT, Bench, UpstreamRecorder, request
from smuggling import answers
from strategies import cut, cuts, mutated

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
FRAMING = {b"content-length", b"transfer-encoding", b"host"}

# What ends at a helper, besides what Connection names; the framing is read and written anew.
HOP = {
    *(b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"http2-settings", b"proxy-authorization"),
    *(b"content-length", b"transfer-encoding"),
}
REQUEST_ENDS = HOP | {b"host", b"authorization", b"cookie", b"cookie2", b"origin", b"expect"}
RESPONSE_ENDS = HOP | {
    *(b"set-cookie", b"set-cookie2", b"www-authenticate", b"authentication-info", b"alt-svc"),
    *(b"strict-transport-security", b"proxy-authenticate"),
}


def named_by_connection(message: Message) -> set[bytes]:
    return {name.strip(b" \t").lower() for value in message.values(b"connection") for name in value.split(b",")}


def spells_framing_otherwise(message: Message) -> bool:
    """With an underscore, which servers that follow CGI take for a hyphen; or to be taken away by the next hop."""
    names = {name for name, _ in message.headers}
    return bool({name.replace(b"_", b"-") for name in names if b"_" in name} & FRAMING) or bool(
        named_by_connection(message) & FRAMING
    )


def is_on_the_route(message: Message) -> bool:
    path = message.start[1].split(b"?")[0]
    return path in (b"/mcp", b"/mcp/") or path.startswith(b"/mcp/")


def names_us(message: Message) -> bool:
    (host,) = message.values(b"host")
    return host.lower() in (b"localhost:%d" % PORT, b"127.0.0.1:%d" % PORT, b"[::1]:%d" % PORT)


# By the code of a refusal: what a message that h11 and httptools agree on is refused for. The other codes are for
# messages that one of the two refuses, or that they read differently: one with a code that is not here must be one.
REASONS: Mapping[str, Callable[[bytes, Message], bool]] = {
    # We take one version and one form of targets: others are for proxies, for CONNECT, for OPTIONS of a whole server.
    "bad_request_line": lambda data, message: (
        message.start[1][:1] != b"/" or b"#" in message.start[1] or bool(re.search(rb" HTTP/(?!1\.1\r\n)", data))
    ),
    # TRACE would echo the credential; the rest no MCP client has use for, and case matters.
    "method_refused": lambda _, message: message.start[0].decode() not in METHODS,
    # The others know nothing of CGI, nor of what the next hop takes away.
    "bad_framing": lambda _, message: spells_framing_otherwise(message),
    # An extension of a chunk, which the others drop; so they agree on it only where it is well-formed.
    "bad_chunk": lambda data, _: bool(re.search(rb"\r\n[0-9A-Fa-f]+[ \t]*;", data)),
    # To the others a repeated header is a list; to a server it may be the first of the two, or the last.
    "duplicate_header": lambda _, message: any(
        len(message.values(name)) > 1 for name in (b"authorization", b"origin", b"expect")
    ),
    # The others leave it to their callers to look at these.
    "expectation_refused": lambda _, message: message.values(b"expect")[0].lower() != b"100-continue",
    "host_refused": lambda _, message: not names_us(message),
    "origin_refused": lambda _, message: bool(message.values(b"origin") + message.values(b"sec-fetch-site")),
    "bearer_refused": lambda _, message: message.values(b"authorization") != [b"Bearer local"],
    "outside_route": lambda _, message: not is_on_the_route(message),
}

values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_categories=["Cc"]), max_size=12)
names = st.sampled_from(
    ["Accept", "Content-Type", "Mcp-Session-Id", "Last-Event-ID", "Mcp-Param-X", "X_Y", "x-y", "Cookie", "TE", "Via"]
)
plain = st.lists(st.builds("{}:{}".format, names, values), max_size=4)
odd: st.SearchStrategy[list[str]] = st.just([]) | st.lists(
    st.sampled_from(
        [
            *("Connection: close", "Connection: keep-alive, X_Y", "Connection: upgrade", "Connection: content-length"),
            *("Upgrade: h2c", "Expect: 100-continue", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked"),
            *("Content-Length: 3", "Content-Length: 03", "Content_Length: 1", "Host: up.test", "Origin: null"),
            *("Sec-Fetch-Site: same-site", "Keep-Alive: timeout=5", "X: y\r\n z", "X: \x00"),
        ]
    ),
    max_size=2,
)
bodies = st.binary(max_size=30) | st.sampled_from([b"0\r\n\r\n", b"GET /admin HTTP/1.1\r\n\r\n", b"\r\n"])
chunks = st.lists(bodies.filter(bool), max_size=3)
targets = st.sampled_from(
    [*("/mcp", "/mcp?a=b&c", "/mcp/x%2fy", "/mcp/~|^") * 4, "*", "/admin", "/mcp#a", "http://127.0.0.1:8080/mcp"]
)
methods = st.sampled_from([*("POST", "GET", "DELETE", "OPTIONS", "PUT") * 4, "TRACE", "post"])


def chunked(pieces: list[bytes]) -> bytes:
    return b"".join(map(frame, pieces)) + b"0\r\n\r\n"


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Draw a request that is right, or nearly."""
    lines = draw(plain) + draw(odd)
    first = f"{draw(methods)} {draw(targets)} HTTP/1.1"
    if draw(st.booleans()):
        return request(first, *lines, "Transfer-Encoding: chunked", length=False) + chunked(draw(chunks))
    body = draw(bodies)
    return request(first, *lines, body=body, length=bool(body))


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """Draw a response that is right, or nearly, and says itself where it ends."""
    lines = "".join(f"{line}\r\n" for line in draw(plain) + draw(odd)).encode("latin-1")
    start = draw(st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.1 202 ", b"HTTP/1.1 404 Not Found", b"HTTP/1.0 200 OK"]))
    if draw(st.booleans()):
        return b"%b\r\n%bTransfer-Encoding: chunked\r\n\r\n%b" % (start, lines, chunked(draw(chunks)))
    body = draw(bodies)
    return b"%b\r\n%bContent-Length: %d\r\n\r\n%b" % (start, lines, len(body), body)


def passed_on(message: Message, ends: set[bytes]) -> list[tuple[bytes, bytes]]:
    """Return the header lines of `message` that are end to end."""
    ends = ends | named_by_connection(message)
    return [(name, value) for name, value in message.headers if name not in ends]


def proposes_upgrade(message: Message) -> bool:
    """Say whether httptools takes all that follows the head for the other protocol's.

    RFC 9110 7.8 has the server read the request first, whose body it is therefore; so does h11. The helper passes no
    Upgrade on, and there is none to switch to.
    """
    return bool(message.values(b"upgrade")) and b"upgrade" in named_by_connection(message)


def is_read_by_h11_alone(data: bytes) -> bool:
    """Say whether httptools has a reason of its own not to read a message as we and h11 do.

    To it a tab at the end of a line belongs to the value, where RFC 9110 5.5 has it stripped: neither "chunked" nor a
    length is one then. And what stands behind the size of a response's chunk must follow a grammar, where we and h11
    drop it unseen. The next hop is told of neither: both are written anew.
    """
    return bool(re.search(rb"(?i)(?:chunked|[0-9])[ \t]*\t[ \t]*\r\n|\r\n[0-9a-f]+;", data))


def at(opinion: Opinion, number: int) -> Message | None:
    return opinion.messages[number] if number < len(opinion.messages) else None


def play(data: bytes, sizes: list[int]) -> tuple[Bench, list[Message]]:
    """Return what comes of `data` in pieces of `sizes`, and the complete requests at upstreams that answer them."""
    upstreams = [UpstreamRecorder() for _ in range(4)]
    bench = Bench(at_hand=upstreams[::-1])
    for piece in cut(data, sizes):
        if bench.client.end is None:
            bench.relay.client_data(piece)
    arrived: list[Message] = []
    for upstream in upstreams:
        sent = requests_by_h11(bytes(upstream.written))
        assert sent == requests_by_httptools(bytes(upstream.written))
        assert not sent.error
        assert len(sent.messages) + sent.unfinished <= 1
        if sent.messages:
            arrived += sent.messages
            bench.relay.upstream_data(OK)
    return bench, arrived


@given(mutated(st.lists(requests(), min_size=1, max_size=3).map(b"".join)), cuts)
@example(request("POST /mcp HTTP/1.1", "Transfer-Encoding: chunked", body=b"2;*\r\n{}\r\n0\r\n\r\n", length=False), [1])
@settings(max_examples=1500, deadline=None)
def test_requests_pass_as_both_read_them_or_not_at_all(data: bytes, sizes: list[int]) -> None:
    """Method, target, headers, body and where each of them ends."""
    by_h11, by_httptools = requests_by_h11(data), requests_by_httptools(data)
    bench, arrived = play(data, sizes)
    event(f"passed: {len(arrived)}")
    switched = False
    for number, ours in enumerate(arrived):
        theirs = by_h11.messages[number]
        assert (ours.start, ours.body) == (theirs.start, theirs.body)
        assert passed_on(ours, HOP | {b"host", b"authorization"}) == passed_on(theirs, REQUEST_ENDS)
        assert (ours.values(b"host"), ours.values(b"authorization")) == ([b"up.test"], [b"Bearer upstream"])
        if not switched:
            switched = proposes_upgrade(theirs)
            others = at(by_httptools, number)
            if others is None:
                assert is_read_by_h11_alone(data)
                switched = True
            else:
                assert (replace(others, body=theirs.body) if switched else others) == theirs
    got = [answer for answer in answers(bench.client.take()) if answer != "200"]
    theirs_next = at(by_h11, len(arrived))
    if theirs_next is None or theirs_next != at(by_httptools, len(arrived)):
        return  # the two disagree, or wait as we do, or one refuses: whatever was answered is right
    assert got, "waits for more than both of the others do"
    (answer,) = got
    code = answer.split(" ")[1]
    event(f"stricter: {code}")
    assert REASONS[code](data, theirs_next)


@given(mutated(responses()), cuts)
@settings(max_examples=1200, deadline=None)
def test_a_response_passes_as_both_read_it_or_not_at_all(data: bytes, sizes: list[int]) -> None:
    """Status, headers and body; what is not passed on is not ended as if it were complete."""
    # RFC 9112 7.1.1 has a recipient take space before the extension of a chunk; neither of the others does.
    assume(not re.search(rb"\r\n[0-9a-f]+[ \t]+;", data))
    upstream = UpstreamRecorder()
    bench = Bench(at_hand=[upstream])
    bench.relay.client_data(request("GET /mcp HTTP/1.1", length=False))
    for piece in cut(data, sizes):
        if upstream.state == "used" and bench.client.end is None:
            bench.relay.upstream_data(piece)
    got = bench.client.take()
    ours = response_by_h11(got).only
    theirs, others = at(response_by_h11(data), 0), at(response_by_httptools(data), 0)
    if ours is None:
        event("nothing whole")
        assert theirs is None or theirs != others
    elif ours.values(b"cache-control") == [b"no-store"]:
        event("an answer of ours")
        assert answers(got) == ["502 bad_response"]
        # RFC 9112 6.1: the framing of an HTTP/1.0 message with a Transfer-Encoding is faulty. The others read it. A
        # Keep-Alive that stands twice says two things about how long a connection may be used.
        assert theirs is None or theirs != others or data[:8] == b"HTTP/1.0" or len(theirs.values(b"keep-alive")) > 1
    else:
        event("passed")
        assert theirs is not None
        assert others == theirs or (others is None and is_read_by_h11_alone(data))
        assert not bench.relay.busy
        assert (ours.start, ours.body) == (theirs.start, theirs.body)
        assert passed_on(ours, HOP) == passed_on(theirs, RESPONSE_ENDS)
        assert response_by_httptools(got).only == ours
