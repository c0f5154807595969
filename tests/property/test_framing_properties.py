"""Chunked bodies against h11 and httptools: what we accept they read alike, and we accept no more than both."""

from __future__ import annotations

import h11
import httptools
from hypothesis import given, settings
from hypothesis import strategies as st

from codingagents.proxies.errors import Refusal
from codingagents.proxies.framing import ChunkedReader, frame
from codingagents.proxies.heads import RequestHeads

HEAD = b"POST /mcp HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
pieces = st.lists(st.binary(min_size=1, max_size=40), max_size=4)
# Near misses: what a chunked body is made of, in any order.
scraps = st.lists(
    st.sampled_from(
        [b"0", b"1", b"a", b"00", b"5", b"\r\n", b"\n", b"\r", b" ", b";", b"x=y", b"0x", b"-", b"_", b"T: v", b"hello"]
    ),
    max_size=14,
).map(b"".join)


def read(data: bytes, size: int) -> tuple[bytes, bytes] | None:
    """Return (payload, rest) as our reader has it in segments of `size`, or None where it refuses or waits."""
    reader = ChunkedReader(request=True)
    payload = b""
    try:
        for start in range(0, len(data), size):
            piece, rest = reader.feed(data[start : start + size])
            payload += piece
            if rest is not None:
                return payload, rest + data[start + size :]
    except Refusal:
        pass
    return None


class Httptools:
    """Collects the body that httptools sees."""

    def __init__(self) -> None:
        self.body = b""
        self.complete = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


def by_httptools(data: bytes) -> bytes | None:
    seen = Httptools()
    try:
        httptools.HttpRequestParser(seen).feed_data(HEAD + data)
    except httptools.HttpParserError:
        return None
    return seen.body if seen.complete else None


def by_h11(data: bytes) -> bytes | None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(HEAD + data)
    body = b""
    try:
        connection.next_event()
        while isinstance(event := connection.next_event(), h11.Data):
            body += bytes(event.data)
    except h11.RemoteProtocolError:
        return None
    return body if isinstance(event, h11.EndOfMessage) else None


@given(pieces, st.integers(min_value=1, max_value=30), st.binary(max_size=10))
@settings(max_examples=150, deadline=None)
def test_every_body_is_read_in_every_segmentation(parts: list[bytes], size: int, rest: bytes) -> None:
    """What is framed is read back, and what follows is left alone."""
    data = b"".join(map(frame, parts)) + b"0\r\n\r\n" + rest
    assert read(data, size) == (b"".join(parts), rest)


@given(scraps, st.integers(min_value=1, max_value=5))
@settings(max_examples=400, deadline=None)
def test_what_we_accept_others_read_alike(data: bytes, size: int) -> None:
    """No body is a different one, or none, to another parser; and no segmentation changes our own mind."""
    found = read(data, size)
    assert found == read(data, len(data) or 1)
    if found is not None:
        payload, rest = found
        complete = data[: len(data) - len(rest)]
        assert by_h11(complete) == payload
        assert by_httptools(complete) == payload


class HttptoolsHead(Httptools):
    """Collects the head that httptools sees."""

    def __init__(self) -> None:
        super().__init__()
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))


words = st.sampled_from(
    [
        b"X",
        b"Host",
        b": ",
        b":",
        b" ",
        b"\t",
        b"h",
        b"Content-Length",
        b"3",
        b"\r\n",
        b"\n",
        b"\r",
        b"chunked",
        b"Transfer-Encoding",
        b"\xe9",
        b"\x00",
    ]
)


@given(st.lists(words, max_size=10).map(b"".join))
@settings(max_examples=400, deadline=None)
def test_a_head_we_accept_says_the_same_to_httptools(lines: bytes) -> None:
    """Target, framing and every header that goes on: a second parser reads nothing else in what we send."""
    reader = RequestHeads(frozenset(), lambda target: None)
    try:
        head = reader.read(b"POST /mcp HTTP/1.1\r\nHost: h\r\n" + lines)
    except Refusal:
        return
    seen = HttptoolsHead()
    parser = httptools.HttpRequestParser(seen)
    parser.feed_data(head.line + b"\r\nHost: up\r\n" + b"".join(line + b"\r\n" for line in [*head.lines, b""]))
    assert seen.url == b"/mcp"
    ours = [line.split(b":", 1) for line in head.lines]
    stripped = [(name, value.strip(b" \t")) for name, value in ours]
    assert [(name, value.strip(b" \t")) for name, value in seen.headers[1:]] == stripped
