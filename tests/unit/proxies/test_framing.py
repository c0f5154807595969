"""Bodies: chunked ones read strictly and framed anew, the others counted."""

import pytest

from codingagents.proxies.errors import Refusal
from codingagents.proxies.framing import (
    CHUNKED,
    MAX_SIZE_LINE,
    MAX_TRAILERS,
    UNTIL_CLOSE,
    ChunkedReader,
    frame,
    request_body,
    response_body,
)


@pytest.mark.parametrize(
    ("data", "payload", "rest"),
    [
        (b"0\r\n\r\n", b"", b""),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc", b""),
        (b"3\r\nabc\r\n00A\r\n0123456789\r\n0\r\n\r\nNEXT", b"abc0123456789", b"NEXT"),
        (b"1\r\n\r\r\n1\r\n\n\r\n0\r\n\r\n", b"\r\n", b""),
        (b"1\r\na\r\n0\r\nX-Trailer: v\r\n\r\nN", b"a", b"N"),
    ],
)
@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_chunks_are_read_however_they_arrive(data: bytes, payload: bytes, rest: bytes, step: int) -> None:
    """Payload and what follows are the same for every segmentation."""
    reader = ChunkedReader(request=True)
    got = b""
    for start in range(0, len(data), step):
        piece, left = reader.feed(data[start : start + step])
        got += piece
        if left is not None:
            assert got == payload
            assert left + data[start + step :] == rest
            return
    pytest.fail("the body did not end")


@pytest.mark.parametrize(
    "data",
    [
        *(b"\r\n", b"x\r\n", b"0x1\r\na", b"1_0\r\n", b"+1\r\na", b"-1\r\n", b" 1\r\n", b"1 \r\n", b"1\n", b"\n"),
        *(b"1\rx", b"1\r\nab\r\n", b"1\r\na\n", b"1\r\naX", b"1234567890abcdef\r\n", b"1;ext=1\r\na", b"1\t\r\n"),
        *(b"0\r\n folded\r\n", b"0\r\nno colon\r\n", b"0\r\nX: a\nb\r\n", b"0\r\nX : v\r\n", b"1" * MAX_SIZE_LINE),
        b"0\r\nX: " + b"v" * MAX_TRAILERS,
        b"0\r\n" + b"X: v\r\n" * MAX_TRAILERS,
    ],
)
def test_a_malformed_chunked_request_is_refused(data: bytes) -> None:
    """As soon as it can never become right, or has grown too long."""
    with pytest.raises(Refusal, match="bad_chunk"):
        ChunkedReader(request=True).feed(data)


def test_a_responses_chunk_extensions_are_dropped_but_not_believed() -> None:
    """Servers may send them; a bare LF inside one is still refused."""
    assert ChunkedReader(request=False).feed(b'3;a=b;c="d"\r\nabc\r\n0 ;e\r\n\r\n') == (b"abc", b"")
    with pytest.raises(Refusal, match="bad_response"):
        ChunkedReader(request=False).feed(b"3;a\nb\r\nabc\r\n")


def test_a_chunked_body_is_framed_anew() -> None:
    """No extension, trailer or odd size reaches the other leg."""
    body = response_body(CHUNKED)
    assert body.feed(b"0003;x\r\nab") == (b"2\r\nab\r\n", None)
    assert body.feed(b"c\r\n0\r\nT: v\r\n\r\nrest") == (b"1\r\nc\r\n0\r\n\r\n", b"rest")
    assert body.count == 3
    assert request_body(CHUNKED).feed(b"00\r\n\r\n") == (b"0\r\n\r\n", b"")


def test_a_body_of_known_length_ends_there() -> None:
    """What follows it is the rest, and only the body is counted."""
    body = request_body(5)
    assert body.feed(b"abc") == (b"abc", None)
    assert body.feed(b"deNEXT") == (b"de", b"NEXT")
    assert body.count == 5
    assert response_body(0).feed(b"") == (b"", b"")
    assert response_body(0).feed(b"x") == (b"", b"x")
    assert response_body(2).feed(b"ab") == (b"ab", b"")


def test_a_body_until_the_close_is_chunked_for_the_client() -> None:
    """Its end is not in its bytes."""
    body = response_body(UNTIL_CLOSE)
    assert body.feed(b"0\r\n\r\n") == (frame(b"0\r\n\r\n"), None)
    assert body.feed(b"") == (b"", None)
    assert body.count == 5
