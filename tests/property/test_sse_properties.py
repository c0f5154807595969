"""Rewriting an event stream does not depend on how it was cut, and changes endpoints only."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from codingagents.proxies.errors import Refusal
from codingagents.proxies.sse import MAX_HELD, EndpointRewriter

line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
fields = st.sampled_from(
    [
        *(b"event: endpoint", b"event:endpoint", b"event: message", b"event", b"data: /m", b"data:", b"data: {}"),
        *(
            b": comment",
            b"id: 1",
            b"retry: 5",
            b"\xef\xbb\xbfevent: endpoint",
            b"",
            b"",
            b"\x00",
            b"data: " + b"x" * 90,
        ),
        b"data: " + b"y" * (MAX_HELD - 40),
    ]
)
streams = st.lists(st.tuples(fields, line_ends), max_size=14).map(lambda parts: b"".join(a + b for a, b in parts))
cuts = st.lists(st.integers(min_value=1, max_value=30), min_size=1, max_size=8)


def resolve(reference: bytes) -> bytes:
    if not reference:
        raise Refusal("endpoint_refused")
    return b"/ours"


def run(pieces: list[bytes]) -> tuple[bytes, bool]:
    """Return (what went on, whether the stream was refused)."""
    rewriter = EndpointRewriter(resolve)
    out = b""
    try:
        for piece in pieces:
            out += rewriter.feed(piece)
        return out + rewriter.end(), False
    except Refusal:
        return out, True


def events(stream: bytes) -> list[tuple[bytes, bytes]]:
    """Return (type, data) of each event that the HTML standard dispatches: an independent reading."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    found = []
    kind, data = b"", None
    for line in text.split(b"\n")[:-1]:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data is not None:
                found.append((kind, data))
            kind, data = b"", None
        elif name == b"event":
            kind = value
        elif name == b"data":
            data = value if data is None else data + b"\n" + value
    return found


@given(streams, cuts)
@settings(max_examples=100, deadline=None)
def test_the_cuts_do_not_matter(stream: bytes, sizes: list[int]) -> None:
    """The same bytes go on, or the stream is refused either way and what went on is the beginning of the same."""
    pieces: list[bytes] = []
    rest = stream
    while rest:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(rest[:size])
        rest = rest[size:]
    whole, refused = run([stream])
    cut, cut_refused = run(pieces)
    assert refused == cut_refused
    if not refused:
        assert whole == cut


@given(streams)
@settings(max_examples=300, deadline=None)
def test_a_client_reads_the_same_events_but_for_endpoints(stream: bytes) -> None:
    """And no endpoint but ours."""
    out, refused = run([stream])
    theirs, ours = events(stream), events(out)
    if refused:
        assert all(data == b"/ours" for kind, data in ours if kind == b"endpoint")
        return
    assert ours == [(kind, b"/ours" if kind == b"endpoint" else data) for kind, data in theirs]
    if not any(b"event" in line and b"endpoint" in line for line in stream.splitlines()):
        assert out == stream
