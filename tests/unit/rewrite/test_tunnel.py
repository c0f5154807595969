"""CONNECT: what the proxy is sent, and which answers of it grant a tunnel."""

import pytest

from codingagents.rewrite.tunnel import MAX_ANSWER, Answer, TunnelError, request

GRANTED = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 squid\r\n\r\n"


@pytest.mark.parametrize(
    ("host", "target"), [("mcp.example", b"mcp.example:443"), ("192.0.2.1", b"192.0.2.1:443"), ("::1", b"[::1]:443")]
)
def test_the_proxy_is_sent_the_target_and_nothing_else(host: str, target: bytes) -> None:
    """No credential, no header of the client, no name of the software."""
    assert request(host, 443) == b"CONNECT " + target + b" HTTP/1.1\r\nHost: " + target + b"\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        GRANTED,
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 200 \r\n\r\n",
        b"HTTP/1.1 299 \xe9\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n",  # RFC 9110 9.3.6: no content
    ],
)
def test_any_success_grants_a_tunnel_however_it_is_cut(answer: bytes) -> None:
    """The last byte of the head is the one that grants it."""
    for size in range(1, len(answer) + 1):
        pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
        reader = Answer()
        assert [reader.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]


@pytest.mark.parametrize("status", [100, 301, 403, 407, 502, 503])
def test_any_other_status_is_a_refusal_that_names_it(status: int) -> None:
    """What else the proxy says, in its reason or its page, is not repeated."""
    with pytest.raises(TunnelError, match=f"^the proxy answered {status}$") as caught:
        Answer().feed(b"HTTP/1.1 %d Secret\r\nProxy-Authenticate: Basic\r\n\r\n<html>" % status)
    assert caught.value.code == "proxy_refused"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "closed the connection"),
        (b"HTTP/2 200\r\n\r\n", "not valid"),
        (b"HTTP/1.1 20\r\n\r\n", "not valid"),
        (b"HTTP/1.1 600 x\r\n\r\n", "not valid"),
        (b"HTTP/1.1  200 OK\r\n\r\n", "not valid"),
        (b" HTTP/1.1 200 OK\r\n\r\n", "not valid"),
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n", "not valid"),
        (b"HTTP/1.1 200 OK\r\nVia : x\r\n\r\n", "not valid"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n", "not valid"),
        (b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", "not valid"),
        (b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", "not valid"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not valid"),
        (b"SSH-2.0-OpenSSH\r\n", "not valid"),
        (b"\x16", "not valid"),
        (b"HTTP/2", "not valid"),
        (GRANTED + b"x", "before the client did"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * MAX_ANSWER, "over 8192 bytes"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * MAX_ANSWER + b"\r\n\r\n", "over 8192 bytes"),
    ],
)
def test_what_is_no_answer_to_connect_is_a_failure(answer: bytes, reason: str) -> None:
    """Malformed, endless, cut short, or already talking inside the tunnel."""
    with pytest.raises(TunnelError, match=reason) as caught:
        Answer().feed(answer)
    assert caught.value.code == "proxy_failed"


def test_an_end_in_the_middle_of_the_answer_is_a_failure() -> None:
    """A proxy that dies."""
    reader = Answer()
    assert not reader.feed(GRANTED[:20])
    with pytest.raises(TunnelError, match="closed the connection"):
        reader.feed(b"")
