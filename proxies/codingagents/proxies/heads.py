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

from codingagents.proxies import fields
from codingagents.proxies.errors import Refusal
from codingagents.proxies.framing import CHUNKED, UNTIL_CLOSE

_REQUEST_LINE = re.compile(rb"(" + fields.TOKEN + rb") (/[!\"$-~]*) HTTP/1\.1")  # origin-form has no fragment: no "#"
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])( [\t -~\x80-\xff]*)?")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # TRACE would echo the credential

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
    b"host": fields.HOST, b"content-length": fields.LENGTH, b"authorization": fields.AUTHORIZATION,
    b"connection": fields.CONNECTION, b"transfer-encoding": fields.CODING, b"origin": fields.ORIGIN,
    b"expect": fields.EXPECT, b"mcp-method": fields.MCP_METHOD, b"mcp-name": fields.MCP_NAME,
}  # fmt: skip
_RESPONSE_KINDS = {
    b"content-length": fields.LENGTH, b"connection": fields.CONNECTION, b"transfer-encoding": fields.CODING,
    b"keep-alive": fields.KEEP_ALIVE, b"location": fields.LOCATION, b"content-type": fields.EVENT_STREAM,
    b"content-encoding": fields.ENCODED,
}  # fmt: skip
_ONCE_IN_REQUESTS = {
    fields.HOST: "bad_host", fields.LENGTH: "bad_framing", fields.CODING: "bad_framing",
    fields.AUTHORIZATION: "duplicate_header", fields.ORIGIN: "duplicate_header", fields.EXPECT: "duplicate_header",
}  # fmt: skip
_ONCE_IN_RESPONSES = dict.fromkeys((fields.LENGTH, fields.CODING, fields.KEEP_ALIVE), "bad_response")


class RequestHead(msgspec.Struct, frozen=True, gc=False):
    """A request that is well-formed; nothing says yet that it is allowed."""

    method: str
    line: bytes  # the request line as it came, and as it goes
    lines: list[bytes]  # end-to-end header lines and framing for upstream
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
    lines: list[bytes]  # end-to-end header lines and framing for the client
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
        self._fields = fields.Fields("bad_header", _REQUEST_KINDS, self._is_dropped, _ONCE_IN_REQUESTS)
        self._targets = fields.Cache(self._read_line)

    def read(self, head: bytes) -> RequestHead:
        """Return what `head`, the bytes before the empty line, says, or raise `Refusal`."""
        lines = head.split(b"\r\n")
        line = lines.pop(0)
        method, path_refusal = self._targets[line]
        kept, known = self._fields.sort(lines)
        host = known.get(fields.HOST)
        if host is None:
            raise Refusal("bad_host")
        close = False
        if fields.CONNECTION in known:
            close, names = fields.connection(known[fields.CONNECTION])
            if names & _FRAMING:
                raise Refusal("bad_framing")
            kept = fields.without(kept, names) if names else kept
        if fields.CODING in known:
            if fields.LENGTH in known or known[fields.CODING] != b"chunked":
                raise Refusal("bad_framing")
            kept.append(_CHUNKED)
            length = CHUNKED
        elif fields.LENGTH in known:
            kept.append(known[fields.LENGTH])
            length = int(known[fields.LENGTH][len(fields.LENGTH_NAME) :])
        else:
            length = 0
        if fields.EXPECT in known and known[fields.EXPECT] != b"100-continue":
            raise Refusal("expectation_refused")
        return RequestHead(
            method, line, kept, length, close, fields.EXPECT in known, host, known.get(fields.ORIGIN),
            known.get(fields.AUTHORIZATION), known.get(fields.MCP_METHOD), known.get(fields.MCP_NAME), path_refusal,
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
        self._fields = fields.Fields("bad_response", _RESPONSE_KINDS, _NOT_TO_CLIENT.__contains__, _ONCE_IN_RESPONSES)
        self._statuses = fields.Cache(_read_status)

    def read(self, head: bytes, method: str) -> ResponseHead:
        """Return what `head`, the bytes before the empty line, answers to `method`; raises `Refusal` (bad_response)."""
        lines = head.split(b"\r\n")
        line = lines.pop(0)
        status, current = self._statuses[line]
        kept, known = self._fields.sort(lines)
        reusable = current
        if fields.CONNECTION in known:
            close, names = fields.connection(known[fields.CONNECTION])
            reusable = current and not close
            kept = fields.without(kept, names) if names else kept
        chunked = fields.CODING in known
        if chunked and (fields.LENGTH in known or not current or known[fields.CODING] != b"chunked"):
            raise Refusal("bad_response")
        events = fields.EVENT_STREAM in known
        bodiless = method == "HEAD" or status in _BODILESS or status < 200
        length = UNTIL_CLOSE
        if fields.LENGTH in known:
            length = int(known[fields.LENGTH][len(fields.LENGTH_NAME) :])
            if events and self._rewrites_events and not bodiless:
                kept.append(_CHUNKED)
            elif status != 204:  # RFC 9110 8.6 forbids it there
                kept.append(known[fields.LENGTH])
        if bodiless:
            length = 0
        elif fields.LENGTH not in known:
            kept.append(_CHUNKED)
            length = CHUNKED if chunked else UNTIL_CLOSE
            reusable = reusable and chunked
        idle = known.get(fields.KEEP_ALIVE)
        if not current:
            line = b"HTTP/1.1" + line[8:]
        return ResponseHead(
            status, line, kept, length, reusable, None if idle is None else int(idle),
            events, fields.ENCODED in known, known.get(fields.LOCATION),
        )  # fmt: skip


def _read_status(line: bytes) -> tuple[int, bool]:
    """Return (status, whether the peer speaks HTTP/1.1)."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise Refusal("bad_response")
    return int(match[2]), match[1] == b"1"
