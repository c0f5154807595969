"""Event streams against a parser of our own making, by the letter of the HTML standard: what a client acts on."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from codingagents.proxies.errors import Refusal
from codingagents.proxies.sse import Endpoints
from codingagents.proxies.targets import Origin
from strategies import cut, cuts

ORIGIN = Origin("https", "up.test", 443)
BASE = b"/sse"

# References that a search for them in their own line would find too early, foreign ones, odd ones.
references = st.sampled_from(
    [
        *(
            b"/m?sessionId=1",
            b"m",
            b"a",
            b"data",
            b"d",
            b":",
            b": ",
            b"?x",
            b"#x",
            b"",
            b" ",
            b"/m /n",
            b"\t/m",
            b"/m\x00",
        ),
        *(
            b"//evil.test/m",
            b"https://evil.test/m",
            b"https://up.test/m",
            b"http://up.test/m",
            b"https://up.test@evil/",
        ),
        *(
            b"\\\\evil.test/m",
            b"/\\evil.test",
            b"https:m",
            b"javascript:x",
            b"\xc3\xa9",
            b"/../m",
            b"https://up.test:443/m",
        ),
    ]
)
names = st.sampled_from(
    [b"event", b"data", b"id", b"retry", b"Event", b" event", b"event ", b"datax", b"\xef\xbb\xbfevent"]
)
separators = st.sampled_from([b":", b": ", b":  ", b":\t", b""])
values = references | st.sampled_from([b"endpoint", b"endpoint", b"message", b"endpoint ", b"Endpoint", b"{}", b"1"])
lines = st.builds(lambda name, separator, value: name + separator + value, names, separators, values) | st.sampled_from(
    [b"", b"", b"", b":", b": event: endpoint", b"event: endpoint", b"event: endpoint", b"data"]
)
ends = st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"])
streams = st.lists(st.tuples(lines, ends), max_size=16).map(lambda parts: b"".join(line + end for line, end in parts))


def dispatched(stream: bytes) -> list[tuple[bytes, bytes]]:
    """Return (type, data) of each event: HTML standard, 9.2.6, read byte by byte."""
    found: list[tuple[bytes, bytes]] = []
    kind = b""
    data: list[bytes] = []
    line = bytearray()
    after_cr = False
    for byte in stream.removeprefix(b"\xef\xbb\xbf"):
        if byte == 0x0A and after_cr:
            after_cr = False
            continue
        after_cr = byte == 0x0D
        if byte not in (0x0A, 0x0D):
            line.append(byte)
            continue
        text, line = bytes(line), bytearray()
        if not text:
            if data:
                found.append((kind or b"message", b"\n".join(data)))
            kind, data = b"", []
            continue
        name, _, value = text.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if name == b"event":
            kind = value
        elif name == b"data":
            data.append(value)
    return found


def rewritten(pieces: list[bytes]) -> tuple[bytes, list[bytes], bool]:
    """Return (what went on, the paths that were learnt, whether the stream was refused)."""
    learnt: list[bytes] = []
    rewriter = Endpoints(ORIGIN, learnt.append).rewriter(BASE)
    out = b""
    try:
        for piece in pieces:
            out += rewriter.feed(piece)
        out += rewriter.end()
    except Refusal:
        return out, learnt, True
    return out, learnt, False


@given(streams, cuts)
@settings(max_examples=600, deadline=None)
def test_a_client_acts_on_the_same_events_and_on_endpoints_of_ours(stream: bytes, sizes: list[int]) -> None:
    """However it was cut: the same events, endpoints apart, which are paths that the gate was told of."""
    whole = rewritten([stream])
    assert rewritten(cut(stream, sizes))[1:] == whole[1:]
    out, learnt, refused = whole
    theirs, ours = dispatched(stream), dispatched(out)
    assert len(ours) <= len(theirs) if refused else len(ours) == len(theirs)
    for (kind, data), (our_kind, our_data) in zip(theirs, ours, strict=False):
        assert our_kind == kind
        if kind != b"endpoint":
            assert our_data == data
            continue
        assert our_data == ORIGIN.resolve(BASE, data.strip(b" \t"))
        assert our_data.startswith(b"/")
        assert not our_data.startswith((b"//", b"/\\"))
        assert our_data.split(b"?")[0] in learnt


@given(streams, cuts)
@settings(max_examples=300, deadline=None)
def test_nothing_is_held_back_that_a_client_could_act_on(stream: bytes, sizes: list[int]) -> None:
    """After every piece the client has each event that is complete by then."""
    rewriter = Endpoints(ORIGIN, lambda path: None).rewriter(BASE)
    came = out = b""
    try:
        for piece in cut(stream, sizes):
            came += piece
            out += rewriter.feed(piece)
            assert len(dispatched(out)) == len(dispatched(came))
    except Refusal:
        pass
