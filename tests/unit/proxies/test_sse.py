"""Event streams: what passes, which endpoint becomes which, where an event ends."""

import pytest

from codingagents.proxies.errors import Refusal
from codingagents.proxies.framing import CHUNKED, UNTIL_CLOSE, frame
from codingagents.proxies.sse import MAX_HELD, EndpointRewriter, Endpoints, EventBody, farewell
from codingagents.proxies.targets import Origin

ORIGIN = Origin("https", "up.test", 443)


def rewriter(learned: list[bytes] | None = None) -> EndpointRewriter:
    paths: list[bytes] = [] if learned is None else learned
    return Endpoints(ORIGIN, paths.append).rewriter(b"/base/sse?x=1")


def rewritten(stream: bytes, learned: list[bytes] | None = None) -> bytes:
    found = rewriter(learned)
    return found.feed(stream) + found.end()


@pytest.mark.parametrize(
    ("endpoint", "ours"),
    [
        (b"/messages/?session_id=1", b"/messages/?session_id=1"),
        (b"messages?s=1", b"/base/messages?s=1"),
        (b"?s=1", b"/base/sse?s=1"),
        (b"https://up.test/m?s=1", b"/m?s=1"),
        (b"https://UP.test:443/m", b"/m"),
    ],
)
@pytest.mark.parametrize(
    "event",
    [
        b"event: endpoint\ndata: %b\n\n",
        b"event:endpoint\ndata:%b\n\n",
        b"event: endpoint\r\ndata: %b\r\n\r\n",
        b"event: endpoint\rdata: %b\r\r",
        b"data: %b\nevent: endpoint\nid: 7\n\n",
        b"\xef\xbb\xbfevent: endpoint\ndata: %b\n\n",
        b": hello\n\nid: 1\n: within\nevent: message\nevent: endpoint\nretry: 5\ndata: %b \n\n",
        b"event: endpoint\ndata: %b\n",  # cut off: some clients act on it
        b"event: endpoint\ndata: %b",
    ],
)
def test_the_endpoint_becomes_a_path_of_the_helper(event: bytes, endpoint: bytes, ours: bytes) -> None:
    """However the event is written; all its other bytes stay."""
    learned: list[bytes] = []
    expected = event.replace(b"%b ", b"%b") if event.endswith(b"%b \n\n") else event
    assert rewritten(event % endpoint, learned) == expected % ours
    assert learned == [ours.split(b"?")[0]]


@pytest.mark.parametrize(
    "stream",
    [
        b"data: /messages\n\n",
        b"event: message\ndata: event: endpoint\ndata: https://evil.test/\n\n",
        b"event: endpoints\ndata: https://evil.test/\n\n",
        b"event: Endpoint\ndata: https://evil.test/\n\n",
        b"event:  endpoint\ndata: https://evil.test/\n\n",
        b"event: endpoint\nevent: message\ndata: https://evil.test/\n\n",
        b"event: endpoint\nevent\ndata: https://evil.test/\n\n",
        b"event: endpoint\n\ndata: https://evil.test/\n\n",
        b"event: endpoint\nid: 1\n\n",
        b": event: endpoint\n: x\r\n\r\r\n\n\n",
        b"id: 1\ndata:\n\nretry: 10\n\n",
        b"x\n\xef\xbb\xbfevent: endpoint\ndata: https://evil.test/\n\n",
        b"data: " + b"x" * MAX_HELD * 3 + b"\ndata: y\n\nevent: message\ndata: z\n\n",
        (b"data: " + b"x" * 1000 + b"\r\n") * 40 + b"\r\ndata: short\n\n",
        b"no field at all",
        b"",
    ],
)
def test_everything_else_passes_byte_for_byte(stream: bytes) -> None:
    """In one piece and one byte at a time."""
    assert rewritten(stream) == stream
    found = rewriter()
    assert b"".join(found.feed(bytes([byte])) for byte in stream) + found.end() == stream


@pytest.mark.parametrize(
    "event",
    [
        b"event: endpoint\ndata: https://evil.test/m\n\n",
        b"event: endpoint\ndata: //evil.test/m\n\n",
        b"event: endpoint\ndata: http://up.test/m\n\n",
        b"event: endpoint\ndata: /m\ndata: /n\n\n",
        b"event: endpoint\ndata:\n\n",
        b"event: endpoint\ndata: /.well-known/x\n\n",
        b"event: endpoint\ndata: /%2e%2e/x\n\n",
        b"event: endpoint\ndata: /\\evil.test\n\n",
        b"event: endpoint\ndata: /m\n" + b": comment\n" * 2000 + b"\n",
        b": comment\ndata: /m\n" + b": comment\n" * 2000 + b"event: endpoint\n\n",
        b"data: " + b"x" * MAX_HELD + b"\nevent: endpoint\n\n",
        b"event: endpoint\ndata: " + b"x" * MAX_HELD * 2 + b"\nevent: message\n\n",
    ],
)
@pytest.mark.parametrize("step", [1, 100, 1_000_000])
def test_an_endpoint_elsewhere_ends_the_stream(event: bytes, step: int) -> None:
    """Nor does an endpoint pass in an event that is too long to be looked at whole."""
    found = rewriter()
    out: list[bytes] = []

    pieces = (event[start : start + step] for start in range(0, len(event), step))
    with pytest.raises(Refusal, match="endpoint_refused"):
        out.extend(map(found.feed, pieces))
    assert b"evil" not in b"".join(out)


def test_a_complete_event_does_not_wait() -> None:
    """Nor does a comment, which keeps the client from giving up; half an event does."""
    found = rewriter()
    assert found.feed(b": ping\n") == b": ping\n"
    assert found.feed(b"data: 1\n") == b""
    assert found.feed(b"\r") == b"data: 1\n\r"
    assert found.feed(b"\ndata: 2\r") == b"\n"
    assert found.feed(b"\r") == b"data: 2\r\r"


def test_memory_is_bounded() -> None:
    """An event without an end passes as it comes."""
    found = rewriter()
    passed = sum(len(found.feed(b"data: " + b"x" * 994)) for _ in range(1000))
    assert passed >= 1_000_000 - MAX_HELD
    found = rewriter()
    passed = sum(len(found.feed(b"data: xxx\n")) for _ in range(100_000))
    assert passed >= 1_000_000 - MAX_HELD


@pytest.mark.parametrize(
    ("stream", "between"),
    [
        (b"", True),
        (b"\n", True),
        (b"\r\n", True),
        (b"data: 1", False),
        (b"data: 1\n", False),
        (b"data: 1\r\n", False),
        (b"data: 1\r", False),
        (b"data: 1\n\n", True),
        (b"data: 1\r\n\r\n", True),
        (b"data: 1\r\r", True),
        (b"data: 1\r\n\r", True),
        (b"data: 1\r\n\n", True),
        (b"data: 1\n\ndata", False),
    ],
)
def test_where_an_event_ends(stream: bytes, between: bool) -> None:
    """Only there may something be said in between."""
    for step in (1, 3, 100):
        body = EventBody(UNTIL_CLOSE, None)
        for start in range(0, len(stream), step):
            body.feed(stream[start : start + step])
        assert body.between_events == between


def test_how_events_are_framed() -> None:
    """Chunked, whatever the upstream's framing; a held event goes at the end, and is counted when it comes."""
    event = b"event: endpoint\ndata: m\n\n"
    ours = b"event: endpoint\ndata: /base/m\n\n"
    whole = EventBody(len(event), rewriter())
    assert whole.feed(event + b"surplus") == (frame(ours) + b"0\r\n\r\n", b"surplus")
    assert (whole.count, whole.end()) == (len(event), None)
    chunked = EventBody(CHUNKED, rewriter())
    assert chunked.feed(frame(event[:-1])) == (b"", None)
    assert chunked.feed(b"0\r\n\r\n") == (frame(ours[:-1]) + b"0\r\n\r\n", b"")
    ended = EventBody(UNTIL_CLOSE, rewriter())
    assert ended.feed(event[:-2]) == (b"", None)
    assert ended.end() == frame(ours[:-2]) + b"0\r\n\r\n"
    assert EventBody(UNTIL_CLOSE, None).end() == b"0\r\n\r\n"
    assert farewell(b"bye") == b"7\r\n: bye\n\n\r\n0\r\n\r\n"
