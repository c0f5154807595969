"""What an MCP client and server may not notice of a helper between them, line by line: headers, statuses, paths.

The revisions 2024-11-05 to 2026-07-28 of MCP's transports, and RFC 9110 7.6.1 on hop-by-hop headers.
"""

from __future__ import annotations

import pytest

from relay_bench import ALWAYS, TOKEN, Bench, UpstreamRecorder, request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def arrived(first: str, *lines: str, body: bytes = b"") -> bytes:
    """Return what reaches the upstream behind the request line, and assert that this one arrives as it is."""
    upstream = UpstreamRecorder()
    bench = Bench(at_hand=[upstream])
    bench.relay.client_data(request(first, *lines, body=body))
    line, _, rest = bytes(upstream.written).partition(b"\r\n")
    assert line == first.encode()
    return rest


def passed_back(*lines: str, status: str = "200 OK", body: bytes = b"") -> bytes:
    """Return what reaches the client of a response."""
    bench = Bench(at_hand=[UpstreamRecorder()], credential=False)
    bench.relay.client_data(request())
    head = "\r\n".join([f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}", "", ""])
    bench.relay.upstream_data(head.encode("latin-1") + body)
    return bench.client.take()


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE", "OPTIONS", "HEAD", "PUT", "PATCH"])
@pytest.mark.parametrize(
    "target", ["/mcp", "/mcp/", "/mcp/a//b", "/mcp?sessionId=1", "/mcp?a=%7E&b=/../", "/mcp/%41%2f?", "/mcp?q=a+b%20c"]
)
def test_method_and_target_pass_unchanged(method: str, target: str) -> None:
    """No decoding, no normal form, no slash more or less, nothing lost of the query."""
    arrived(f"{method} {target} HTTP/1.1")


@pytest.mark.parametrize(
    "body",
    [b'{"a": 1,\n "b":  1.0}', b'{"a":1,"a":2}', b"\xef\xbb\xbf{}", b"\x00\xff", b'[{"x":"\\u00e9"}]', b"{}\r\n"],
)
def test_the_bytes_of_a_body_pass_unchanged(body: bytes) -> None:
    """JSON is not written anew."""
    assert arrived("POST /mcp HTTP/1.1", body=body).endswith(b"\r\n\r\n" + body)


@pytest.mark.parametrize(
    "line",
    [
        *("Accept: application/json, text/event-stream", "Content-Type: application/json", "MCP-Session-Id: s"),
        *("Mcp-Session-Id: s", "MCP-Protocol-Version: 2025-11-25", "Last-Event-ID: 7", "Mcp-Method: tools/call"),
        *("Mcp-Name: =?base64?w6k=?=", "Mcp-Param-Region: eu", "Mcp-Future: x", "traceparent: 00-1-2-01"),
        *("tracestate: a=b", "baggage: a=b", "User-Agent: x", "Accept-Encoding: gzip", "Accept-Language: de"),
        *("X-Custom:  two  spaces ", "Content-Encoding: gzip", "If-None-Match: x", "Cache-Control: no-cache"),
        *("X-Forwarded-For: 1.2.3.4", "Prefer: respond-async", "X-Latin: \xe9"),
    ],
)
def test_end_to_end_headers_of_a_request_pass(line: str) -> None:
    """By a list of what does not, never by one of what does: the next revision has other names."""
    assert b"\r\n" + line.encode("latin-1") + b"\r\n" in b"\r\n" + arrived("POST /mcp HTTP/1.1", line)


@pytest.mark.parametrize(
    "lines",
    [
        *(("Authorization: Bearer mine",), ("AUTHORIZATION: Bearer mine",), ("Proxy-Authorization: Basic mine",)),
        *(("Cookie: mine=1",), ("Cookie: a=1", "cookie: mine=1"), ("Origin: http://127.0.0.1:8080",)),
        *(("Connection: keep-alive",), ("Connection: X-Mine", "X-Mine: 1"), ("Keep-Alive: timeout=mine",)),
        *(("TE: trailers",), ("Trailer: X-Mine",), ("Upgrade: mine",), ("Proxy-Connection: mine",)),
        *(("Expect: 100-continue",), ("HTTP2-Settings: mine",)),
    ],
)
def test_what_is_the_clients_or_one_hops_own_stays_here(lines: tuple[str, ...]) -> None:
    """The local bearer, cookies and Origin, and whatever is for one connection only."""
    bench = Bench(at_hand=[upstream := UpstreamRecorder()])
    base = request("POST /mcp HTTP/1.1", *lines, body=b"")
    if lines[0].lower().startswith("authorization"):
        base = base.replace(b"Authorization: Bearer local\r\n", b"").replace(b"Bearer mine", b"Bearer local")
    bench.relay.client_data(base)
    assert bytes(upstream.written) == b"POST /mcp HTTP/1.1\r\n" + ALWAYS + TOKEN + b"Content-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "status",
    [
        *("200 OK", "201 Created", "202 Accepted", "400 Bad Request", "401 Unauthorized", "403 Forbidden"),
        *(
            "404 Not Found",
            "405 Method Not Allowed",
            "406 Not Acceptable",
            "409 Conflict",
            "415 Unsupported Media Type",
        ),
        *("421 Misdirected Request", "429 Too Many Requests", "500 Oops", "501 No", "502 Bad Gateway", "503 Later"),
        *("599 Odd", "404", "404 "),
    ],
)
def test_statuses_and_their_bodies_pass(status: str) -> None:
    """A 404 means begin anew, a 405 means no stream, and of a 400 the body says which era the server is of."""
    body = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32020,"message":"x"}}'
    answer = passed_back("Content-Type: application/json", status=status, body=body)
    assert answer.startswith(f"HTTP/1.1 {status}\r\n".encode())
    assert answer.endswith(b"\r\n\r\n" + body)


@pytest.mark.parametrize(
    "line",
    [
        *("Content-Type: text/event-stream", "Mcp-Session-Id: s", "MCP-Session-Id: s", "Cache-Control: no-cache"),
        *("X-Accel-Buffering: no", "Allow: POST", "Retry-After: 3", "Date: now", "Server: x", "Vary: Origin"),
        *("ETag: x", "Content-Encoding: gzip", "MCP-Protocol-Version: 2025-06-18", "Mcp-Future: x", "Link: <x>"),
        *("Access-Control-Allow-Origin: http://127.0.0.1:8080", "X-Latin: \xe9"),
    ],
)
def test_end_to_end_headers_of_a_response_pass(line: str) -> None:
    assert b"\r\n" + line.encode("latin-1") + b"\r\n" in passed_back(line)


@pytest.mark.parametrize(
    "lines",
    [
        *(("Set-Cookie: a=b",), ("set-cookie: a=b", "Set-Cookie2: c"), ("WWW-Authenticate: Bearer rm=x",)),
        *(("Proxy-Authenticate: Basic",), ("Authentication-Info: x",), ("Connection: X-Mine", "X-Mine: 1")),
        *(("Keep-Alive: timeout=5",), ("Upgrade: h2c",), ("Trailer: X",), ("Alt-Svc: h3=':1'",)),
        *(("Strict-Transport-Security: max-age=1",), ("Location: https://up.test/x",)),
    ],
)
def test_what_would_lead_a_client_astray_stays_here(lines: tuple[str, ...]) -> None:
    """Cookies are credentials; a challenge begins a login that cannot succeed; a Location leads around the helper."""
    assert passed_back(*lines) == OK


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_refused_credential_is_told_as_ours(status: str) -> None:
    """By a status that starts no login: the client holds nothing that it could renew."""
    bench = Bench(at_hand=[UpstreamRecorder()])
    bench.relay.client_data(request())
    challenge = b"WWW-Authenticate: Bearer resource_metadata=x\r\nContent-Length: 0\r\n\r\n"
    bench.relay.upstream_data(f"HTTP/1.1 {status}\r\n".encode() + challenge)
    answer = bench.client.take()
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"credential_refused" in answer
    assert b"Authorization from TOKEN" in answer
    assert b"resource_metadata" not in answer


@pytest.mark.parametrize(
    "path",
    [
        *("oauth-protected-resource", "oauth-protected-resource/mcp", "oauth-authorization-server"),
        *("openid-configuration", "oauth-authorization-server/mcp?x=1", ""),
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_metadata_is_not_found_and_not_asked_for(path: str, legacy: bool) -> None:
    """Without the bearer, too: that is how clients look for it."""
    bench = Bench(legacy=legacy)
    bench.relay.client_data(f"GET /.well-known/{path} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n".encode())
    assert bench.client.take().startswith(b"HTTP/1.1 404 ")
    assert (bench.asked, bench.refused) == (0, ["well_known"])


def test_nothing_is_added_to_a_request_but_authority_and_credential() -> None:
    """No Via, no Forwarded, no default Accept or User-Agent."""
    assert arrived("GET /mcp HTTP/1.1") == ALWAYS + TOKEN + b"Content-Length: 0\r\n\r\n"
    assert passed_back() == OK


def test_the_head_of_an_answer_goes_before_its_first_event() -> None:
    """An answer to a POST is a stream as often as not; each piece goes when it comes."""
    bench = Bench(at_hand=[UpstreamRecorder()])
    bench.relay.client_data(request())
    bench.relay.upstream_data(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    assert bench.client.take().endswith(b"\r\n\r\n")
    for piece in (b"id: 1\ndata:\n\n", b": ping\n\n", b"retry: 5\r\n", b"event: message\rdata: x\r\r"):
        bench.relay.upstream_data(piece)
        assert bench.client.take() == b"%x\r\n%b\r\n" % (len(piece), piece)


def test_a_post_is_sent_once_whatever_becomes_of_its_connection() -> None:
    """A call may have been carried out once a byte of it was sent."""
    for answered in (b"", b"HTTP/1.1 2"):
        bench = Bench(at_hand=[UpstreamRecorder(), UpstreamRecorder(reused=True)])
        bench.relay.client_data(request(body=b"{}"))
        if answered:
            bench.relay.upstream_data(answered)
        bench.relay.upstream_closed(clean=True)
        assert bench.asked == 1
        assert b"upstream_closed" in bench.client.take()
