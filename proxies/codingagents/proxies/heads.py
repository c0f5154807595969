"""CORE: message heads, strictly: a request head in, what goes upstream out; a response head in, the client's out.

Strict by construction: a head is split at CRLF, and every line must match one grammar that has no bare CR or LF, no
folding, no space before a colon; nothing is repaired. First lines are read here (RFC 9112 2 to 4) and framing is
decided (6.3); header lines are `fields`. No I/O, no body, no decision about who may ask (`gate`) or what follows
(`relay`).
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from codingagents.proxies.errors import Refusal
from codingagents.proxies.fields import (
    AUTHORIZATION,
    CODING,
    CONNECTION,
    ENCODED,
    EVENT_STREAM,
    EXPECT,
    HOST,
    KEEP_ALIVE,
    LENGTH,
    LENGTH_NAME,
    LOCATION,
    MCP_METHOD,
    MCP_NAME,
    ORIGIN,
    TOKEN,
    Cache,
    Fields,
    connection,
    without,
)
from codingagents.proxies.framing import CHUNKED, UNTIL_CLOSE

_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") (/[!\"$-~]*) HTTP/1\.1")  # origin-form has no fragment: no "#"
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])( [\t -~\x80-\xff]*)?")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # TRACE would echo the credential

_MAX_CACHED_HEADS = 128  # some kilobyte each
_BODILESS = (204, 304)
_CHUNKED = b"Transfer-Encoding: chunked"
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"host"})  # no Connection header can take these away
_NOT_TO_UPSTREAM = frozenset({b"cookie", b"cookie2"})
# A cookie is a credential; the others lead a client to other origins, other schemes or an OAuth flow that cannot work.
_NOT_TO_CLIENT = frozenset(
    {
        b"set-cookie",
        b"set-cookie2",
        b"www-authenticate",
        b"authentication-info",
        b"alt-svc",
        b"strict-transport-security",
    }
)
_REQUEST_KINDS = {
    b"host": HOST, b"content-length": LENGTH, b"authorization": AUTHORIZATION,
    b"connection": CONNECTION, b"transfer-encoding": CODING, b"origin": ORIGIN,
    b"expect": EXPECT, b"mcp-method": MCP_METHOD, b"mcp-name": MCP_NAME,
}  # fmt: skip
_RESPONSE_KINDS = {
    b"content-length": LENGTH, b"connection": CONNECTION, b"transfer-encoding": CODING,
    b"keep-alive": KEEP_ALIVE, b"location": LOCATION, b"content-type": EVENT_STREAM,
    b"content-encoding": ENCODED,
}  # fmt: skip
_ONCE_IN_REQUESTS = {
    HOST: "bad_host", LENGTH: "bad_framing", CODING: "bad_framing",
    AUTHORIZATION: "duplicate_header", ORIGIN: "duplicate_header", EXPECT: "duplicate_header",
}  # fmt: skip
_ONCE_IN_RESPONSES = dict.fromkeys((LENGTH, CODING, KEEP_ALIVE, LOCATION), "bad_response")


class RequestHead(msgspec.Struct, frozen=True, gc=False):
    """A request that is well-formed; nothing says yet that it is allowed."""

    method: str
    line: bytes  # the request line as it came, and as it goes
    lines: tuple[bytes, ...]  # end-to-end header lines and framing for upstream
    length: int  # body bytes, or CHUNKED
    close: bool  # the client wants no further request on this connection
    expect: bool  # it waits for 100 Continue
    host: bytes  # lower case, as is origin
    origin: bytes | None
    authorization: bytes | None
    mcp_method: bytes | None  # what the headers Mcp-Method and Mcp-Name say; they are passed on, too
    mcp_name: bytes | None
    path_refusal: str | None  # a code where the target is not one of this helper

    @property
    def target(self) -> bytes:
        """The request target, in origin-form."""
        return self.line.split(b" ")[1]

    def to(self, target: bytes) -> RequestHead:
        """Return the same request for another `target`."""
        return msgspec.structs.replace(self, line=b"%b %b HTTP/1.1" % (self.method.encode("ascii"), target))


class ResponseHead(msgspec.Struct, frozen=True, gc=False):
    """A response that is well-formed."""

    status: int
    line: bytes  # the status line for the client
    lines: tuple[bytes, ...]  # end-to-end header lines and framing for the client
    length: int  # body bytes, CHUNKED or UNTIL_CLOSE
    reusable: bool  # upstream keeps the connection
    idle_seconds: int | None  # how long it says it will
    event_stream: bool  # the body is server-sent events
    encoded: bool  # the body is compressed or otherwise coded
    location: bytes | None  # where it redirects to: not for the client


class RequestHeads:
    """Reads request heads of one helper."""

    def __init__(self, attached: frozenset[bytes], judge_path: Callable[[bytes], str | None]) -> None:
        """`attached` are the lower-case names that the helper attaches; `judge_path` gets each request target."""
        # Servers that follow CGI read X_Api_Key and X-Api-Key as the same header.
        self._attached = frozenset(name.replace(b"_", b"-") for name in attached)
        self._judge_path = judge_path
        self._fields = Fields("bad_header", _REQUEST_KINDS, self._is_dropped, _ONCE_IN_REQUESTS)
        self._targets = Cache(self._read_line)

    def read(self, head: bytes) -> RequestHead:
        """Return what `head`, the bytes before the empty line, says, or raise `Refusal`."""
        lines = head.split(b"\r\n")
        line = lines.pop(0)
        method, path_refusal = self._targets[line]
        kept, known = self._fields.sort(lines)
        host = known.get(HOST)
        if host is None:
            raise Refusal("bad_host")
        close = False
        if CONNECTION in known:
            close, names = connection(known[CONNECTION])
            if names & _FRAMING:
                raise Refusal("bad_framing")
            kept = without(kept, names) if names else kept
        if CODING in known:
            if LENGTH in known or known[CODING] != b"chunked":
                raise Refusal("bad_framing")
            kept.append(_CHUNKED)
            length = CHUNKED
        elif LENGTH in known:
            kept.append(known[LENGTH])
            length = int(known[LENGTH][len(LENGTH_NAME) :])
        else:
            length = 0
        if EXPECT in known and known[EXPECT] != b"100-continue":
            raise Refusal("expectation_refused")
        return RequestHead(
            method, line, tuple(kept), length, close, EXPECT in known, host, known.get(ORIGIN),
            known.get(AUTHORIZATION), known.get(MCP_METHOD), known.get(MCP_NAME), path_refusal,
        )  # fmt: skip

    def judge_again(self) -> None:
        """Forget what `judge_path` said so far: it has changed its mind."""
        self._targets.clear()

    def _read_line(self, line: bytes) -> tuple[str, str | None]:
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            raise Refusal("bad_request_line")
        method = match[1].decode("ascii")
        if method not in METHODS:
            raise Refusal("method_refused")
        return method, self._judge_path(match[2])

    def _is_dropped(self, name: bytes) -> bool:
        as_cgi = name.replace(b"_", b"-")
        if as_cgi in _FRAMING:
            raise Refusal("bad_framing")  # one spelling was looked at already; this is the other
        return name in _NOT_TO_UPSTREAM or as_cgi in self._attached


class ResponseHeads:
    """Reads response heads of one helper's upstream."""

    def __init__(self, *, rewrites_events: bool = False) -> None:
        """With `rewrites_events` the length of an event stream is not the one that the upstream says."""
        self._rewrites_events = rewrites_events
        self._fields = Fields("bad_response", _RESPONSE_KINDS, _NOT_TO_CLIENT.__contains__, _ONCE_IN_RESPONSES)
        self._statuses = Cache(_read_status)
        # Within a second, which is what Date resolves, the answers of a busy server have few different heads.
        self._heads = Cache(self._read, _MAX_CACHED_HEADS)

    def read(self, head: bytes, method: str) -> ResponseHead:
        """Return what `head`, the bytes before the empty line, answers to `method`; raises `Refusal` (bad_response)."""
        return self._heads[head] if method != "HEAD" else self._read(head, bodiless=True)

    def _read(self, head: bytes, *, bodiless: bool = False) -> ResponseHead:
        lines = head.split(b"\r\n")
        line = lines.pop(0)
        status, current = self._statuses[line]
        kept, known = self._fields.sort(lines)
        reusable = current
        if CONNECTION in known:
            close, names = connection(known[CONNECTION])
            reusable = current and not close
            kept = without(kept, names) if names else kept
        chunked = CODING in known
        if chunked and (LENGTH in known or not current or known[CODING] != b"chunked"):
            raise Refusal("bad_response")
        events = EVENT_STREAM in known
        bodiless = bodiless or status in _BODILESS or status < 200
        length = UNTIL_CLOSE
        if LENGTH in known:
            length = int(known[LENGTH][len(LENGTH_NAME) :])
            if events and self._rewrites_events and length and not bodiless:
                kept.append(_CHUNKED)
            elif status != 204:  # RFC 9110 8.6 forbids it there
                kept.append(known[LENGTH])
        if bodiless:
            length = 0
        elif LENGTH not in known:
            kept.append(_CHUNKED)
            length = CHUNKED if chunked else UNTIL_CLOSE
            reusable = reusable and chunked
        idle = known.get(KEEP_ALIVE)
        if not current:
            line = b"HTTP/1.1" + line[8:]
        return ResponseHead(
            status, line, tuple(kept), length, reusable, None if idle is None else int(idle),
            events, ENCODED in known, known.get(LOCATION),
        )  # fmt: skip


def _read_status(line: bytes) -> tuple[int, bool]:
    """Return (status, whether the peer speaks HTTP/1.1)."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise Refusal("bad_response")
    return int(match[2]), match[1] == b"1"
