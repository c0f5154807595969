"""Request and response heads: what passes, what is left out, what is refused."""

import pytest

from codingagents.proxies.errors import Refusal
from codingagents.proxies.fields import MAX_CACHED
from codingagents.proxies.framing import CHUNKED, UNTIL_CLOSE
from codingagents.proxies.heads import MAX_FORMS, RequestHead, RequestHeads, ResponseHead, ResponseHeads

LINE = b"POST /mcp HTTP/1.1"
HOST = b"Host: h"


def requests(*attached: bytes) -> RequestHeads:
    return RequestHeads(frozenset(attached), lambda target: "outside_route" if target == b"/no" else None)


def head(*lines: bytes) -> bytes:
    return b"\r\n".join(lines)


def written(found: RequestHead | ResponseHead) -> bytes:
    return b"".join(line + b"\r\n" for line in found.lines)


def refusal_of(data: bytes) -> str:
    with pytest.raises(Refusal) as caught:
        requests().read(data)
    return caught.value.code


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"POST", b"POST /mcp", b"POST /mcp HTTP/1.0", b"POST /mcp HTTP/2.0", b"POST /mcp http/1.1"),
        *(b"POST /mcp HTTP/1.1 ", b" POST /mcp HTTP/1.1", b"POST  /mcp HTTP/1.1", b"POST\t/mcp HTTP/1.1"),
        *(b"POST mcp HTTP/1.1", b"POST * HTTP/1.1", b"POST http://h/mcp HTTP/1.1", b"POST h:443 HTTP/1.1"),
        *(b"POST /m\x00cp HTTP/1.1", b"POST /m cp HTTP/1.1", b"POST /m\xe9 HTTP/1.1", b"POST /a#b HTTP/1.1"),
        *(b"POST /a\rb HTTP/1.1", b"POST /a\nb HTTP/1.1", b"P(ST /mcp HTTP/1.1", b"POST /mcp HTTP/1.10"),
    ],
)
def test_a_request_line_is_http_1_1_in_origin_form(line: bytes) -> None:
    """Everything else is refused, however well another parser would understand it."""
    assert refusal_of(head(line, HOST)) == "bad_request_line"


@pytest.mark.parametrize("method", [b"TRACE", b"CONNECT", b"PRI", b"get", b"PROPFIND"])
def test_a_method_that_is_not_relayed(method: bytes) -> None:
    """TRACE would echo the credential; methods are case-sensitive."""
    assert refusal_of(head(method + b" /mcp HTTP/1.1", HOST)) == "method_refused"


@pytest.mark.parametrize(
    "line",
    [
        *(b"X", b": v", b"X : v", b" X: v", b"\tfolded", b"X: a\rb", b"X: a\nb", b"X\x00: v", b"X: \x00", b"X: \x7f"),
        *(b"X y: v", b"X(: v", "é: v".encode(), b"\rX: v", b"X: v\r", b""),
    ],
)
def test_a_header_line_that_is_not_one(line: bytes) -> None:
    """No folding, no bare CR or LF, no control character, no space before the colon."""
    assert refusal_of(head(LINE, HOST, line)) == "bad_header"


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ((), "bad_host"),
        ((HOST, HOST), "bad_host"),
        ((HOST, b"HOST: other"), "bad_host"),
        ((HOST, b"Content-Length: 1", b"Content-Length: 1"), "bad_framing"),
        ((HOST, b"Content-Length: 1", b"content-length: 2"), "bad_framing"),
        ((HOST, b"Content-Length: 1, 1"), "bad_framing"),
        ((HOST, b"Content-Length: +1"), "bad_framing"),
        ((HOST, b"Content-Length: 1_0"), "bad_framing"),
        ((HOST, b"Content-Length: 0x1"), "bad_framing"),
        ((HOST, b"Content-Length: -1"), "bad_framing"),
        ((HOST, b"Content-Length:"), "bad_framing"),
        ((HOST, b"Content-Length: 9999999999999999"), "bad_framing"),
        ((HOST, b"Content-Length: 1", b"Transfer-Encoding: chunked"), "bad_framing"),
        ((HOST, b"Transfer-Encoding: chunked", b"Content-Length: 1"), "bad_framing"),
        ((HOST, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), "bad_framing"),
        ((HOST, b"Transfer-Encoding: gzip, chunked"), "bad_framing"),
        ((HOST, b"Transfer-Encoding: chunked, identity"), "bad_framing"),
        ((HOST, b"Transfer-Encoding: xchunked"), "bad_framing"),
        ((HOST, b"Transfer-Encoding: \x0bchunked"), "bad_header"),
        ((HOST, b"Transfer-Encoding:"), "bad_framing"),
        ((HOST, b"Connection: Transfer-Encoding", b"Transfer-Encoding: chunked"), "bad_framing"),
        ((HOST, b"Connection: close, host"), "bad_framing"),
        ((HOST, b"Authorization: a", b"Authorization: b"), "duplicate_header"),
        ((HOST, b"Origin: a", b"Origin: b"), "duplicate_header"),
        ((HOST, b"Expect: 200-ok"), "expectation_refused"),
    ],
)
def test_ambiguous_framing_and_duplicates_are_refused(lines: tuple[bytes, ...], code: str) -> None:
    """Whatever two parsers could read in two ways is read by none."""
    assert refusal_of(head(LINE, *lines)) == code


def test_end_to_end_headers_pass_as_they_came() -> None:
    """Case, spacing, order and bytes that are not ASCII stay; what was never heard of passes, too."""
    kept = [b"Accept: application/json,text/event-stream", b"mcp-NAME:  =?base64?w6k=?= ", b"X-Latin: \xe9", b"Empty:"]
    found = requests().read(head(LINE, kept[0], HOST, *kept[1:]))
    assert written(found) == b"".join(line + b"\r\n" for line in kept)
    assert found.line == LINE
    assert found.length == 0


def test_what_is_the_clients_own_or_one_hops_is_left_out() -> None:
    """Credentials, cookies, Origin, hop-by-hop headers, what Connection names, and what the helper attaches itself."""
    found = requests(b"x-api-key").read(
        head(
            *(LINE, HOST, b"Authorization: Bearer x", b"Cookie: a", b"Proxy-Authorization: b", b"Proxy-Foo: c"),
            *(b"Origin: http://localhost", b"Connection: keep-alive, X-Hop", b"x-hop: d", b"Keep-Alive: timeout=5"),
            *(b"TE: trailers", b"Trailer: X", b"Upgrade: h2c", b"HTTP2-Settings: e", b"X-API-KEY: f", b"X_Api_Key: g"),
            *(b"Expect: 100-continue", b"X-Kept: h"),
        )
    )
    assert written(found) == b"X-Kept: h\r\n"
    assert (found.form.authorization, found.form.origin, found.form.host) == (b"Bearer x", b"http://localhost", b"h")
    assert found.form.expect
    assert not found.form.close


def test_framing_is_written_anew() -> None:
    """One spelling goes upstream, at the end, whatever the client's was."""
    assert written(requests().read(head(LINE, b"content-LENGTH:  007", HOST))) == b"Content-Length: 7\r\n"
    found = requests().read(head(LINE, b"transfer-encoding: Chunked ", HOST, b"Connection: Close"))
    assert written(found) == b"Transfer-Encoding: chunked\r\n"
    assert (found.length, found.form.close) == (CHUNKED, True)


def test_the_judge_of_paths_is_asked_and_its_answer_kept() -> None:
    """A refused path is a fact of the head; the gate decides when to say so."""
    reader = requests()
    for _ in range(2):
        assert reader.read(head(b"GET /no HTTP/1.1", HOST)).form.path_refusal == "outside_route"
        assert reader.read(head(b"GET /yes HTTP/1.1", HOST)).form.path_refusal is None


def test_the_caches_stay_bounded() -> None:
    """A client that never repeats a line costs no memory, and its lines are read right all the same."""
    reader = requests()
    for number in range(3 * MAX_CACHED):
        found = reader.read(head(b"GET /%d HTTP/1.1" % number, HOST, b"X-%d: v" % number, b"Y: " + b"y" * 600))
        assert written(found).startswith(b"X-%d: v\r\nY: y" % number)
    assert len(reader._fields) <= MAX_CACHED
    assert len(reader._fields._names) <= MAX_CACHED
    assert len(reader._targets) <= MAX_CACHED
    assert all(len(line) < 600 for line in reader._fields)


OK = b"HTTP/1.1 200 OK"


def test_the_caches_of_responses_stay_bounded() -> None:
    """An upstream that never repeats a head costs no memory, and the answer to HEAD is not mixed up with another's."""
    reader = ResponseHeads()
    for number in range(3 * MAX_CACHED):
        found = reader.read(head(b"HTTP/1.1 200 %d" % number, b"X-%d: v" % number, b"Content-Length: 7"), "GET")
        assert (found.lines[0], found.length) == (b"X-%d: v" % number, 7)
    assert len(reader._forms) <= MAX_FORMS
    assert len(reader._statuses) <= MAX_CACHED
    for method, length in (("HEAD", 0), ("GET", 7), ("HEAD", 0)):
        assert reader.read(head(OK, b"Content-Length: 7"), method).length == length


@pytest.mark.parametrize(
    ("lines", "method", "length", "reusable", "fields"),
    [
        ((OK, b"Content-Length: 5"), "GET", 5, True, b"Content-Length: 5\r\n"),
        ((OK, b"Content-Length: 5"), "HEAD", 0, True, b"Content-Length: 5\r\n"),
        ((OK, b"Transfer-Encoding: chunked"), "GET", CHUNKED, True, b"Transfer-Encoding: chunked\r\n"),
        ((OK, b"Transfer-Encoding: chunked"), "HEAD", 0, True, b""),
        ((OK,), "GET", UNTIL_CLOSE, False, b"Transfer-Encoding: chunked\r\n"),
        ((OK,), "HEAD", 0, True, b""),
        ((b"HTTP/1.1 204 No Content", b"Content-Length: 0"), "GET", 0, True, b""),
        ((b"HTTP/1.1 304 Not Modified", b"Content-Length: 9"), "GET", 0, True, b"Content-Length: 9\r\n"),
        ((OK, b"Content-Length: 5", b"Connection: close"), "GET", 5, False, b"Content-Length: 5\r\n"),
        ((b"HTTP/1.0 200 OK", b"Content-Length: 5"), "GET", 5, False, b"Content-Length: 5\r\n"),
        (
            (b"HTTP/1.0 200 OK", b"Connection: keep-alive"),
            "GET",
            UNTIL_CLOSE,
            False,
            b"Transfer-Encoding: chunked\r\n",
        ),
        ((b"HTTP/1.1 202 ", b"Content-Length: 0"), "POST", 0, True, b"Content-Length: 0\r\n"),
        ((b"HTTP/1.1 202", b"Content-Length: 0"), "POST", 0, True, b"Content-Length: 0\r\n"),
    ],
)
def test_how_a_response_is_framed(
    lines: tuple[bytes, ...], method: str, length: int, reusable: bool, fields: bytes
) -> None:
    """RFC 9112 6.3, and one spelling towards the client."""
    found = ResponseHeads().read(head(*lines), method)
    assert (found.length, found.form.reusable, written(found)) == (length, reusable, fields)
    assert found.line == b"HTTP/1.1" + lines[0][8:]


@pytest.mark.parametrize(
    "lines",
    [
        *((b"",), (b"HTTP/1.1",), (b"HTTP/2 200 OK",), (b"HTTP/1.1 20 OK",), (b"HTTP/1.1 2000 OK",), (b"ICY 200 OK",)),
        *((b"HTTP/1.1 600 No",), (OK, b"X : v"), (OK, b" folded"), (OK, b"X: a\nb")),
        (OK, b"Content-Length: 1", b"Content-Length: 1"),
        (OK, b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        (OK, b"Transfer-Encoding: gzip, chunked"),
        (OK, b"Content-Length: one"),
        (b"HTTP/1.0 200 OK", b"Transfer-Encoding: chunked"),
    ],
)
def test_a_response_that_is_not_valid(lines: tuple[bytes, ...]) -> None:
    """A response that two parsers could read in two ways is not passed on."""
    with pytest.raises(Refusal, match="bad_response"):
        ResponseHeads().read(head(*lines), "GET")


def test_what_a_client_must_not_see_is_left_out_of_a_response() -> None:
    """Cookies are credentials; the others would lead the client to other origins or into OAuth."""
    found = ResponseHeads().read(
        head(
            *(OK, b"Set-Cookie: a=b", b"WWW-Authenticate: Bearer", b"Alt-Svc: h3", b"Strict-Transport-Security: x"),
            *(b"Proxy-Authenticate: Basic", b"Keep-Alive: timeout=7, max=3", b"Connection: X-Hop", b"X-Hop: 1"),
            *(b"Mcp-Session-Id: s", b"X-Accel-Buffering: no", b"Retry-After: 3", b"Content-Length: 0"),
        ),
        "POST",
    )
    assert written(found) == b"Mcp-Session-Id: s\r\nX-Accel-Buffering: no\r\nRetry-After: 3\r\nContent-Length: 0\r\n"
    assert found.form.idle_seconds == 7
    assert found.form.reusable
