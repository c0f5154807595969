"""The relay under any segmentation: the same bytes pass, and h11 reads in them what was meant."""

from __future__ import annotations

import re

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from codingagents.proxies.framing import frame
from relay_bench import ALWAYS, TOKEN, Bench, UpstreamRecorder, request

bodies = st.binary(max_size=60) | st.sampled_from(
    [b"0\r\n\r\n", b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"POST /mcp HTTP/1.1"]
)
cuts = st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=12)
names = st.from_regex(r"X-[A-Za-z0-9-]{1,8}", fullmatch=True)
values = st.from_regex(r"[!-~]([ -~]{0,12}[!-~])?", fullmatch=True)
extra = st.lists(st.builds("{}: {}".format, names, values), max_size=3)


def chunked(pieces: list[bytes]) -> bytes:
    return b"".join(frame(piece) for piece in pieces if piece) + b"0\r\n\r\n"


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Draw (request, its body)."""
    lines = draw(extra)
    if draw(st.booleans()):
        pieces = draw(st.lists(bodies, max_size=3))
        body = b"".join(pieces)
        head = request("POST /mcp HTTP/1.1", *lines, "Transfer-Encoding: chunked", length=False)
        return head + chunked(pieces), body
    body = draw(bodies)
    return request("POST /mcp HTTP/1.1", *lines, body=body), body


@st.composite
def responses(draw: st.DrawFn) -> tuple[bytes, bytes, bool]:
    """Draw (response, its body, whether its end is the connection's)."""
    lines = "".join(line + "\r\n" for line in draw(extra)).encode()
    kind = draw(st.sampled_from(["length", "chunked", "close"]))
    pieces = draw(st.lists(bodies, max_size=3))
    body = b"".join(pieces)
    if kind == "length":
        return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (lines, len(body), body), body, False
    if kind == "chunked":
        return b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n%b" % (lines, chunked(pieces)), body, False
    return b"HTTP/1.1 200 OK\r\n%b\r\n%b" % (lines, body), body, True


def segments(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut `data` at the running sum of `sizes`, over and over."""
    found = []
    start = index = 0
    while start < len(data):
        size = sizes[index % len(sizes)]
        found.append(data[start : start + size])
        start += size
        index += 1
    return found


def read_by_h11(
    role: type[h11.CLIENT | h11.SERVER], data: bytes, ask: bytes | None = None
) -> tuple[h11.Request | h11.Response, bytes]:
    """Return head and body of the one message in `data`, by an independent parser; it must end there."""
    connection = h11.Connection(role)
    if ask is not None:
        connection.send(h11.Request(method=ask, target="/", headers=[("Host", "h")]))
        connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    head = connection.next_event()
    assert isinstance(head, h11.Request | h11.Response)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert connection.trailing_data[0] == b""
    return head, body


def without_framing(data: bytes) -> bytes:
    """Return chunked bytes with the sizes taken out where they depend on the segmentation: head and payload."""
    head, _, body = data.partition(b"\r\n\r\n")
    if b"Transfer-Encoding: chunked" not in head:
        return data
    payload = b""
    while match := re.match(rb"([0-9a-f]+)\r\n", body):
        size = int(match[1], 16)
        payload += body[match.end() : match.end() + size]
        body = body[match.end() + size + 2 :]
    assert body == b""
    return head + b"\r\n\r\n" + payload


@given(requests(), cuts, st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_request_arrives_upstream_as_it_was_meant(
    message: tuple[bytes, bytes], sizes: list[int], dials: bool
) -> None:
    """Any segmentation, an idle connection or one that comes up in the middle: h11 reads the same body."""
    data, body = message
    whole = UpstreamRecorder()
    Bench(at_hand=[whole]).relay.client_data(data)
    upstream = UpstreamRecorder()
    bench = Bench(at_hand=[] if dials else [upstream])
    for segment in segments(data, sizes):
        bench.relay.client_data(segment)
        if bench.client.paused:
            bench.relay.upstream_ready(upstream)
    if dials and not upstream.written:
        bench.relay.upstream_ready(upstream)
    assert bench.client.take() == b""
    assert without_framing(bytes(upstream.written)) == without_framing(bytes(whole.written))
    head, read = read_by_h11(h11.SERVER, bytes(upstream.written))
    assert read == body
    assert (ALWAYS + TOKEN) in bytes(upstream.written)
    assert [value for name, value in head.headers if name == b"authorization"] == [b"Bearer upstream"]


@given(responses(), cuts)
@settings(max_examples=60, deadline=None)
def test_a_response_arrives_at_the_client_as_it_was_meant(message: tuple[bytes, bytes, bool], sizes: list[int]) -> None:
    """Any segmentation: the same bytes but for the sizes of chunks, the same body for h11, one fact."""
    data, body, until_close = message
    written = []
    for pieces in ([data], segments(data, sizes)):
        bench = Bench(at_hand=[UpstreamRecorder()])
        bench.relay.client_data(request())
        for piece in pieces:
            bench.relay.upstream_data(piece)
        if until_close:
            bench.relay.upstream_closed(clean=True)
        assert not bench.relay.busy
        assert bench.last_request.response_bytes == len(body)
        written.append(bench.client.take())
    assert without_framing(written[0]) == without_framing(written[1])
    head, read = read_by_h11(h11.CLIENT, written[1], ask=b"GET")
    assert isinstance(head, h11.Response)
    assert read == body


@given(responses(), st.data())
@settings(max_examples=50, deadline=None)
def test_a_response_cut_anywhere_never_ends_cleanly(message: tuple[bytes, bytes, bool], data: st.DataObject) -> None:
    """Wherever the upstream breaks off, the client is cut off or gets an error of ours, never a short body."""
    response, _, until_close = message
    end = data.draw(st.integers(min_value=0, max_value=len(response) - (0 if until_close else 1)))
    bench = Bench(at_hand=[UpstreamRecorder()])
    bench.relay.client_data(request())
    if end:
        bench.relay.upstream_data(response[:end])
    bench.relay.upstream_closed(clean=False)
    written = bench.client.take()
    if written.startswith(b"HTTP/1.1 200"):
        assert bench.client.end == "abort"
    else:
        assert written.startswith(b"HTTP/1.1 502 ") or bench.client.end == "abort"
    assert bench.last_request.error_type == "upstream_closed"


@given(st.lists(requests(), min_size=2, max_size=4), cuts)
@settings(max_examples=60, deadline=None)
def test_requests_sent_ahead_never_mix(messages: list[tuple[bytes, bytes]], sizes: list[int]) -> None:
    """Each goes up whole, alone and in order."""
    upstreams = [UpstreamRecorder() for _ in messages]
    bench = Bench(at_hand=upstreams[::-1])
    for segment in segments(b"".join(data for data, _ in messages), sizes):
        bench.relay.client_data(segment)
    for upstream, (_, body) in zip(upstreams, messages, strict=True):
        assert read_by_h11(h11.SERVER, bytes(upstream.written))[1] == body
        bench.relay.upstream_data(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        assert upstream.state == "released"
    assert bench.client.take().count(b"202 Accepted") == len(messages)


@given(
    st.binary(max_size=200)
    | st.builds(lambda head, tail: head + tail, st.just(request()[:-2]), st.binary(max_size=60)),
    cuts,
)
@settings(max_examples=80, deadline=None)
def test_any_bytes_of_a_client_are_survived(data: bytes, sizes: list[int]) -> None:
    """Refused with an answer of ours, or waited on; never an exception, and h11 reads what goes upstream."""
    upstream = UpstreamRecorder()
    bench = Bench(at_hand=[upstream])
    for segment in segments(data, sizes):
        bench.relay.client_data(segment)
    if upstream.written:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(bytes(upstream.written))
        assert isinstance(connection.next_event(), h11.Request)


@given(st.binary(max_size=200) | responses().map(lambda drawn: drawn[0] + b"\x00"), cuts, st.binary(max_size=8))
@settings(max_examples=80, deadline=None)
def test_any_bytes_of_an_upstream_are_survived(data: bytes, sizes: list[int], noise: bytes) -> None:
    """An answer of ours, a broken connection, or a response that h11 reads so far; never an exception."""
    upstream = UpstreamRecorder()
    bench = Bench(at_hand=[upstream])
    bench.relay.client_data(request())
    for segment in segments(data + noise, sizes):
        if upstream.state == "used":
            bench.relay.upstream_data(segment)
    written = bench.client.take()
    if written:
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method="POST", target="/", headers=[("Host", "h"), ("Content-Length", "0")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(written)
        assert isinstance(connection.next_event(), h11.Response)
