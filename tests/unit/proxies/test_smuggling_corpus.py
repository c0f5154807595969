"""Requests that two parsers read in two ways: each has one answer, and not a byte goes upstream."""

import pytest

from relay_bench import HEAD, Bench, UpstreamRecorder

H = HEAD.encode() + b"\r\n"
POST = b"POST /mcp HTTP/1.1\r\n" + H
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

CORPUS: dict[str, tuple[bytes, int]] = {
    # Content-Length against Transfer-Encoding, in every order and spelling
    "CL.TE": (POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", 400),
    "TE.CL": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\nG", 400),
    "TE.TE": (POST + b"Transfer-Encoding: chunked\r\nTransfer-encoding: x\r\n\r\n0\r\n\r\n", 400),
    "TE with a space before the colon": (POST + b"Transfer-Encoding : chunked\r\n\r\n", 400),
    "TE behind a tab": (POST + b"X: y\r\n\tTransfer-Encoding: chunked\r\n\r\n", 400),
    "TE behind a bare LF": (POST + b"X: y\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "TE behind a bare CR": (POST + b"X: y\rTransfer-Encoding: chunked\r\n\r\n", 400),
    "TE with a vertical tab": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400),
    "TE with a NUL": (POST + b"Transfer-Encoding: chunked\x00\r\n\r\n", 400),
    "TE with two codings": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 400),
    "TE identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", 400),
    "TE in HTTP/1.0": (b"POST /mcp HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "TE quoted": (POST + b'Transfer-Encoding: "chunked"\r\n\r\n', 400),
    "TE named by Connection": (
        POST + b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n", 400,
    ),
    "CL named by Connection": (POST + b"Connection: Content-Length\r\nContent-Length: 1\r\n\r\na", 400),
    "two CL": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "two CL alike": (POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
    "CL list": (POST + b"Content-Length: 1, 1\r\n\r\na", 400),
    "CL signed": (POST + b"Content-Length: +1\r\n\r\na", 400),
    "CL hexadecimal": (POST + b"Content-Length: 0x1\r\n\r\na", 400),
    "CL with a space inside": (POST + b"Content-Length: 1 0\r\n\r\na", 400),
    "CL folded": (POST + b"Content-Length:\r\n 1\r\n\r\na", 400),
    # chunks
    "chunk size 0x": (CHUNKED + b"0x1\r\na\r\n0\r\n\r\n", 400),
    "chunk size negative": (CHUNKED + b"-1\r\n\r\n", 400),
    "chunk size with _": (CHUNKED + b"1_0\r\n\r\n", 400),
    "chunk size overflow": (CHUNKED + b"" + b"f" * 17 + b"\r\n", 400),
    "chunk extension": (CHUNKED + b"1;x=\ny\r\na\r\n0\r\n\r\n", 400),
    "chunk ends with LF": (CHUNKED + b"1\na\n0\n\n", 400),
    "chunk longer than said": (CHUNKED + b"1\r\nab\r\n0\r\n\r\n", 400),
    "trailer smuggles a head": (
        CHUNKED + b"0\r\nGET / HTTP/1.1\r\n\r\n", 400,
    ),
    # lines and heads
    "leading CRLF": (b"\r\nPOST /mcp HTTP/1.1\r\n" + H + b"\r\n", 400),
    "leading space": (b" POST /mcp HTTP/1.1\r\n" + H + b"\r\n", 400),
    "bare LF throughout": (b"POST /mcp HTTP/1.1\nHost: 127.0.0.1:8080\n\n", 400),
    "bare CR throughout": (b"POST /mcp HTTP/1.1\rHost: 127.0.0.1:8080\r\r\n\r\n", 400),
    "first header folded": (b"POST /mcp HTTP/1.1\r\n X: y\r\n" + H + b"\r\n", 400),
    "line without a colon": (POST + b"X\r\n\r\n", 400),
    "empty name": (POST + b": y\r\n\r\n", 400),
    "NUL in a name": (POST + b"X\x00: y\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /mcp\r\n\r\n", 400),
    "HTTP/1.0": (b"GET /mcp HTTP/1.0\r\n" + H + b"\r\n", 400),
    "HTTP/1.2": (b"GET /mcp HTTP/1.2\r\n" + H + b"\r\n", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
    "absolute form": (b"GET http://127.0.0.1:8080/mcp HTTP/1.1\r\n" + H + b"\r\n", 400),
    "authority form": (b"CONNECT up.test:443 HTTP/1.1\r\n" + H + b"\r\n", 400),
    "asterisk form": (b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n", 400),
    "fragment": (b"GET /mcp#x HTTP/1.1\r\n" + H + b"\r\n", 400),
    "space in the target": (b"GET /mcp /x HTTP/1.1\r\n" + H + b"\r\n", 400),
    "TRACE": (b"TRACE /mcp HTTP/1.1\r\n" + H + b"\r\n", 501),
    "no Host": (b"GET /mcp HTTP/1.1\r\nAuthorization: Bearer local\r\n\r\n", 400),
    "two Host": (b"GET /mcp HTTP/1.1\r\n" + H + b"Host: up.test\r\n\r\n", 400),
    "Host of another": (b"GET /mcp HTTP/1.1\r\nHost: up.test\r\nAuthorization: Bearer local\r\n\r\n", 421),
    "two bearers": (b"GET /mcp HTTP/1.1\r\n" + H + b"Authorization: Bearer x\r\n\r\n", 400),
    "Expect of another kind": (POST + b"Expect: smuggle\r\nContent-Length: 0\r\n\r\n", 417),
    "head over the limit": (b"GET /mcp HTTP/1.1\r\n" + H + b"X: " + b"x" * 2048 + b"\r\n\r\n", 431),
    "body over the limit": (POST + b"Content-Length: 10001\r\n\r\n", 413),
    # a request hidden behind a good gate
    "path climbs out": (b"GET /mcp/../admin HTTP/1.1\r\n" + H + b"\r\n", 400),
    "path climbs out, encoded": (b"GET /mcp/%2e%2e/admin HTTP/1.1\r\n" + H + b"\r\n", 400),
    "path beside the route": (b"GET /mcpadmin HTTP/1.1\r\n" + H + b"\r\n", 404),
}  # fmt: skip


@pytest.mark.parametrize("name", CORPUS)
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_one_answer_and_nothing_upstream(name: str, step: int) -> None:
    """Whatever the segmentation: the status, the end of the connection, and no byte of it upstream."""
    data, status = CORPUS[name]
    bench = Bench()
    for start in range(0, len(data), step):
        bench.relay.client_data(data[start : start + step])
    assert bench.client.take().startswith(b"HTTP/1.1 %d " % status)
    assert bench.client.end == "eof"
    upstream = UpstreamRecorder()
    # A broken chunk is only seen after its head had passed: the connection that was asked for is given up.
    assert bench.asked - bench.cancelled == 0
    assert upstream.written == b""


def test_the_corpus_is_refused_for_its_faults_alone() -> None:
    """The same head without a fault passes: the tests above are about the faults."""
    bench = Bench(at_hand=[UpstreamRecorder()])
    bench.relay.client_data(CHUNKED + b"1\r\na\r\n0\r\n\r\n")
    assert bench.client.take() == b""
    assert bench.asked == 1
