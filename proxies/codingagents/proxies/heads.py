"""CORE: message heads, strictly: a request head in, what goes upstream out; a response head in, the client's out.

Strict by construction: a head is split at CRLF, and every line must match one grammar (RFC 9110 5.5, RFC 9112 2 to 6)
that has no bare CR or LF, no folding, no space before a colon; nothing is repaired. What a line means to us is a pure
function of its bytes, so it is looked up in a bounded cache: real clients repeat most lines, and a hit costs a
twentieth of the regular expression. No I/O, no body, no decision about who may ask (`gate`) or what follows (`relay`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from codingagents.proxies.errors import Refusal
from codingagents.proxies.framing import CHUNKED, UNTIL_CLOSE

MAX_CACHED_LINES = 512
MAX_CACHED_LINE = 512  # bytes; together at most a quarter megabyte per cache

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") (/[!\"$-~]*) HTTP/1\.1")  # origin-form has no fragment: no "#"
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])( [\t -~\x80-\xff]*)?")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):([\t -~\x80-\xff]*)")
_DIGITS = re.compile(rb"[0-9]{1,15}")
_TIMEOUT = re.compile(rb"(?:^|[ ,])timeout=([0-9]{1,6})(?:$|[ ,])")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # TRACE would echo the credential

_HOP_BY_HOP = frozenset({b"keep-alive", b"te", b"trailer", b"upgrade", b"http2-settings"})  # and proxy-*
_PERSISTENCE = frozenset({b"", b"close", b"keep-alive"})  # what a Connection header may name besides headers
_NO_NAMES: frozenset[bytes] = frozenset()
_BODILESS = (204, 304)
_LENGTH_NAME = b"Content-Length: "
_END = (b"", b"")  # joined with CRLF, the end of the last line and the empty one
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

# What a line means is (kind, value). A value that is looked at is in one spelling already (`_known`): what can be done
# once for all requests with the same line is not done for each.
_Meaning: TypeAlias = tuple[int, bytes]
_PASS: Final = 0
_DROP: Final = 1
_HOST: Final = 2
_LENGTH: Final = 3
_AUTHORIZATION: Final = 4
_CONNECTION: Final = 5
_CODING: Final = 6
_ORIGIN: Final = 7
_EXPECT: Final = 8
_KEEP_ALIVE: Final = 9
_REQUEST_KINDS = {
    b"host": _HOST, b"content-length": _LENGTH, b"authorization": _AUTHORIZATION, b"connection": _CONNECTION,
    b"transfer-encoding": _CODING, b"origin": _ORIGIN, b"expect": _EXPECT,
}  # fmt: skip
_RESPONSE_KINDS = {
    b"content-length": _LENGTH, b"connection": _CONNECTION, b"transfer-encoding": _CODING, b"keep-alive": _KEEP_ALIVE
}  # fmt: skip

_REQUEST_DUPLICATES = {
    _HOST: "bad_host", _LENGTH: "bad_framing", _CODING: "bad_framing",
    _AUTHORIZATION: "duplicate_header", _ORIGIN: "duplicate_header", _EXPECT: "duplicate_header",
}  # fmt: skip
_RESPONSE_DUPLICATES = dict.fromkeys((_LENGTH, _CODING, _KEEP_ALIVE), "bad_response")


class RequestHead(msgspec.Struct, frozen=True, gc=False):
    """A request that is well-formed; nothing says yet that it is allowed."""

    method: str
    line: bytes  # the request line as it came, and as it goes
    fields: bytes  # end-to-end header lines and framing for upstream, each with its CRLF, and the empty line
    length: int  # body bytes, or CHUNKED
    close: bool  # the client wants no further request on this connection
    expect: bool  # it waits for 100 Continue
    host: bytes  # lower case, as is origin
    origin: bytes | None
    authorization: bytes | None
    path_refusal: str | None  # a code where the target is not one of this helper


class ResponseHead(msgspec.Struct, frozen=True, gc=False):
    """A response that is well-formed."""

    status: int
    line: bytes  # the status line for the client
    fields: bytes  # end-to-end header lines and framing for the client, each with its CRLF; no empty line yet
    length: int  # body bytes, CHUNKED or UNTIL_CLOSE
    reusable: bool  # upstream keeps the connection
    idle_seconds: int | None  # how long it says it will


class _Lines(dict[bytes, _Meaning]):
    """line -> meaning, computed on a miss; emptied when full, so that a hostile peer costs time but no memory."""

    def __init__(self, meaning: Callable[[bytes], _Meaning]) -> None:
        super().__init__()
        self._meaning = meaning

    def __missing__(self, line: bytes) -> _Meaning:
        found = self._meaning(line)
        if len(line) <= MAX_CACHED_LINE:
            if len(self) >= MAX_CACHED_LINES:
                self.clear()
            self[line] = found
        return found


def _field(line: bytes, code: str) -> tuple[bytes, bytes]:
    match = _FIELD.fullmatch(line)
    if match is None:
        raise Refusal(code)
    return match[1].lower(), match[2].strip(b" \t")


def _is_hop_by_hop(name: bytes) -> bool:
    return name in _HOP_BY_HOP or name.startswith(b"proxy-")


def _sort(lines: list[bytes], meanings: _Lines, duplicates: dict[int, str]) -> tuple[list[bytes], dict[int, bytes]]:
    """Return (lines to pass on, {kind: value} of those looked at); only Connection, a list, may stand twice."""
    kept: list[bytes] = []
    known: dict[int, bytes] = {}
    for line in lines:
        kind, value = meanings[line]
        if kind == _PASS:
            kept.append(line)
        elif kind != _DROP:
            if kind in known:
                if kind != _CONNECTION:
                    raise Refusal(duplicates[kind])
                value = known[kind] + b"," + value
            known[kind] = value
    return kept, known


def _connection(value: bytes) -> tuple[bool, frozenset[bytes]]:
    """Return (close, header names to leave out) of a Connection header's value."""
    if value == b"keep-alive":
        return False, _NO_NAMES
    options = frozenset(option.strip(b" \t") for option in value.split(b","))
    return b"close" in options, options - _PERSISTENCE


def _known(kind: int, value: bytes, code: str) -> _Meaning:
    """Return the meaning of a line that is looked at, its value in the one spelling that is looked for."""
    if kind == _LENGTH:
        if not _DIGITS.fullmatch(value):
            raise Refusal(code)
        return kind, _LENGTH_NAME + b"%d" % int(value)
    return kind, value if kind == _AUTHORIZATION else value.lower()


def _without(lines: list[bytes], names: frozenset[bytes]) -> list[bytes]:
    return [line for line in lines if line.split(b":", 1)[0].lower() not in names]


class RequestHeads:
    """Reads request heads of one helper."""

    def __init__(self, attached: frozenset[bytes], judge_path: Callable[[bytes], str | None]) -> None:
        """`attached` are the lower-case names that the helper attaches; `judge_path` gets each request target."""
        # Servers that follow CGI read X_Api_Key and X-Api-Key as the same header.
        self._attached = frozenset(name.replace(b"_", b"-") for name in attached)
        self._judge_path = judge_path
        self._lines = _Lines(self._meaning)
        self._targets: dict[bytes, tuple[str, str | None]] = {}

    def read(self, head: bytes) -> RequestHead:
        """Return what `head`, the bytes before the empty line, says, or raise `Refusal`."""
        line, *lines = head.split(b"\r\n")
        method, path_refusal = self._targets.get(line) or self._read_line(line)
        kept, known = _sort(lines, self._lines, _REQUEST_DUPLICATES)
        host = known.get(_HOST)
        if host is None:
            raise Refusal("bad_host")
        close = False
        if _CONNECTION in known:
            close, names = _connection(known[_CONNECTION])
            if names & _FRAMING:
                raise Refusal("bad_framing")
            kept = _without(kept, names) if names else kept
        if _CODING in known:
            if _LENGTH in known or known[_CODING] != b"chunked":
                raise Refusal("bad_framing")
            kept.append(b"Transfer-Encoding: chunked")
            length = CHUNKED
        elif _LENGTH in known:
            kept.append(known[_LENGTH])
            length = int(known[_LENGTH][len(_LENGTH_NAME) :])
        else:
            length = 0
        if _EXPECT in known and known[_EXPECT] != b"100-continue":
            raise Refusal("expectation_refused")
        kept += _END
        return RequestHead(
            method, line, b"\r\n".join(kept), length, close, _EXPECT in known,
            host, known.get(_ORIGIN), known.get(_AUTHORIZATION), path_refusal,
        )  # fmt: skip

    def _read_line(self, line: bytes) -> tuple[str, str | None]:
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            raise Refusal("bad_request_line")
        method = match[1].decode("ascii")
        if method not in METHODS:
            raise Refusal("method_refused")
        found = method, self._judge_path(match[2])
        if len(line) <= MAX_CACHED_LINE:
            if len(self._targets) >= MAX_CACHED_LINES:
                self._targets.clear()
            self._targets[line] = found
        return found

    def _meaning(self, line: bytes) -> _Meaning:
        name, value = _field(line, "bad_header")
        if name in _REQUEST_KINDS:
            return _known(_REQUEST_KINDS[name], value, "bad_framing")
        if _is_hop_by_hop(name) or name in _NOT_TO_UPSTREAM or name.replace(b"_", b"-") in self._attached:
            return _DROP, b""
        return _PASS, b""


class ResponseHeads:
    """Reads response heads of one helper's upstream."""

    def __init__(self) -> None:
        """Start with empty caches."""
        self._lines = _Lines(self._meaning)
        self._statuses: dict[bytes, tuple[int, bool]] = {}

    def read(self, head: bytes, method: str) -> ResponseHead:
        """Return what `head`, the bytes before the empty line, answers to `method`; raises `Refusal` (bad_response)."""
        line, *lines = head.split(b"\r\n")
        status, current = self._statuses.get(line) or self._read_line(line)
        kept, known = _sort(lines, self._lines, _RESPONSE_DUPLICATES)
        reusable = current
        if _CONNECTION in known:
            close, names = _connection(known[_CONNECTION])
            reusable = current and not close
            kept = _without(kept, names) if names else kept
        chunked = _CODING in known
        if chunked and (_LENGTH in known or not current or known[_CODING] != b"chunked"):
            raise Refusal("bad_response")
        length = UNTIL_CLOSE
        if _LENGTH in known:
            length = int(known[_LENGTH][len(_LENGTH_NAME) :])
            if status != 204:  # RFC 9110 8.6 forbids it there
                kept.append(known[_LENGTH])
        if method == "HEAD" or status in _BODILESS or status < 200:
            length = 0
        elif _LENGTH not in known:
            kept.append(b"Transfer-Encoding: chunked")
            length = CHUNKED if chunked else UNTIL_CLOSE
            reusable = reusable and chunked
        kept.append(b"")
        idle = known.get(_KEEP_ALIVE)
        hint = _TIMEOUT.search(idle) if idle is not None else None
        if not current:
            line = b"HTTP/1.1" + line[8:]
        return ResponseHead(status, line, b"\r\n".join(kept), length, reusable, int(hint[1]) if hint else None)

    def _read_line(self, line: bytes) -> tuple[int, bool]:
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise Refusal("bad_response")
        found = int(match[2]), match[1] == b"1"
        if len(self._statuses) >= MAX_CACHED_LINES:
            self._statuses.clear()
        if len(line) <= MAX_CACHED_LINE:
            self._statuses[line] = found
        return found

    @staticmethod
    def _meaning(line: bytes) -> _Meaning:
        name, value = _field(line, "bad_response")
        if name in _RESPONSE_KINDS:
            return _known(_RESPONSE_KINDS[name], value, "bad_response")
        return (_DROP if _is_hop_by_hop(name) or name in _NOT_TO_CLIENT else _PASS), b""
