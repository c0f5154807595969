"""CORE: message heads, strictly: a request head in, what goes upstream out; a response head in, the client's out.

Strict by construction: a head is split at CRLF, and every line must match one grammar that has no bare CR or LF, no
folding, no space before a colon; nothing is repaired. First lines are read here (RFC 9112 2 to 4) and framing is
decided (6.3); header lines are `fields`. What follows from the shape of a head is its form, and is worked out once:
of each further head of that shape only what is new in it is read. No I/O, no body, no decision about who may ask
(`gate`) or what follows (`relay`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Final, TypeAlias, TypeVar

from codingagents.proxies.errors import Refusal
from codingagents.proxies.fields import (
    AS_OURS,
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
    LENGTH_VALUE,
    LOCATION,
    MCP_METHOD,
    MCP_NAME,
    ORIGIN,
    OTHER_SITE,
    TOKEN,
    Cache,
    Fields,
    Shape,
    connection,
    values,
    without,
)
from codingagents.proxies.framing import CHUNKED, UNTIL_CLOSE

_REQUEST_LINE: Final = re.compile(rb"(" + TOKEN + rb") (/[!\"$-~]*) HTTP/1\.1")  # origin-form has no fragment: no "#"
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])( [\t -~\x80-\xff]*)?")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # TRACE would echo the credential

MAX_FORMS: Final = 64
_MAX_FORM_LINES: Final = 64
_MAX_FORM_BYTES: Final = 2048  # of the head; with what the lines mean, a form keeps some 8 KiB at most
_BODILESS: Final = (204, 304)
_CHUNKED: Final = b"Transfer-Encoding: chunked"
# No Connection header can take these away.
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"host"})
_NOT_TO_UPSTREAM: Final = frozenset({b"cookie", b"cookie2"})
# A cookie is a credential; the others lead a client to other origins, other schemes or an OAuth flow that cannot work.
_NOT_TO_CLIENT: Final = frozenset(
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
    b"sec-fetch-site": OTHER_SITE,
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


_Asked: TypeAlias = tuple[str, str | None]  # method, and `RequestForm.path_refusal`
_Status: TypeAlias = tuple[int, bool]  # status, and `ResponseForm.current`
_K = TypeVar("_K")
_F = TypeVar("_F")


@dataclass(frozen=True, kw_only=True, eq=False)
class Form:
    """What is the same in all heads of one shape: how they are framed, and which lines are passed on."""

    pick: Callable[[list[bytes]], tuple[bytes, ...]]  # of the head's lines and, after them, of the one that is added
    length: int  # of the body, where no line says it
    length_at: int  # which line says it; -1: none
    respelled: bool  # that line is added in our spelling
    added: bytes  # another framing line, or b""


@dataclass(frozen=True, kw_only=True, eq=False)
class RequestForm(Form):
    """A request but for what varies. Heads with the same form are the same to the gate."""

    method: str
    close: bool  # the client wants no further request on this connection
    expect: bool  # it waits for 100 Continue
    host: bytes  # lower case, as is origin
    origin: bytes | None
    other_site: bool  # a browser says that a page of another site is behind it (Fetch Metadata 2.4)
    authorization: bytes | None
    path_refusal: str | None  # a code where the target is not one of this helper
    mcp_method: list[int]  # the places of Mcp-Method and Mcp-Name; they are passed on, too
    mcp_name: list[int]


class RequestHead:
    """A request that is well-formed; nothing says yet that it is allowed."""

    __slots__ = ("form", "length", "line", "lines", "mcp_method", "mcp_name")

    def __init__(
        self,
        line: bytes,
        lines: tuple[bytes, ...],
        length: int,
        form: RequestForm,
        *,
        mcp_method: bytes | None = None,
        mcp_name: bytes | None = None,
    ) -> None:
        """Hold what was read."""
        self.line: Final = line  # the request line as it came, and as it goes
        self.lines: Final = lines  # end-to-end header lines and framing for upstream
        self.length: Final = length  # body bytes, or CHUNKED
        self.form: Final = form
        self.mcp_method: Final = mcp_method  # what the headers Mcp-Method and Mcp-Name say
        self.mcp_name: Final = mcp_name

    @property
    def target(self) -> bytes:
        """The request target, in origin-form."""
        return self.line.split(b" ")[1]

    def to(self, target: bytes) -> RequestHead:
        """Return the same request for another `target`."""
        line = b"%b %b HTTP/1.1" % (self.form.method.encode("ascii"), target)
        return RequestHead(line, self.lines, self.length, self.form, mcp_method=self.mcp_method, mcp_name=self.mcp_name)


@dataclass(frozen=True, kw_only=True, eq=False)
class ResponseForm(Form):
    """A response but for what varies."""

    status: int
    current: bool  # the peer speaks HTTP/1.1
    bodiless: bool
    rewritten: bool  # the length of its body is not the one that the upstream says
    reusable: bool  # upstream keeps the connection
    idle_seconds: int | None  # how long it says it will
    event_stream: bool  # the body is server-sent events
    encoded: bool  # the body is compressed or otherwise coded
    location: bytes | None  # where it redirects to: not for the client


class ResponseHead:
    """A response that is well-formed."""

    __slots__ = ("form", "length", "line", "lines")

    def __init__(self, line: bytes, lines: tuple[bytes, ...], length: int, form: ResponseForm) -> None:
        """Hold what was read."""
        self.line: Final = line  # the status line for the client
        self.lines: Final = lines  # end-to-end header lines and framing for the client
        self.length: Final = length  # body bytes, CHUNKED or UNTIL_CLOSE
        self.form: Final = form


class RequestHeads:
    """Reads request heads of one helper."""

    def __init__(self, attached: frozenset[bytes], judge_path: Callable[[bytes], str | None]) -> None:
        """`attached` are the lower-case names that the helper attaches; `judge_path` gets each request target."""
        # Servers that follow CGI read X_Api_Key and X-Api-Key as the same header.
        self._attached = frozenset(name.replace(b"_", b"-") for name in attached)
        self._judge_path = judge_path
        self._fields = Fields("bad_header", _REQUEST_KINDS, self._is_dropped, _ONCE_IN_REQUESTS)
        self._meaning = self._fields.__getitem__
        self._targets = Cache(self._read_line)
        self._forms: dict[tuple[_Asked, Shape], RequestForm] = {}

    def read(self, head: bytes) -> RequestHead:
        """Return what `head`, the bytes before the empty line, says, or raise `Refusal`."""
        lines = head.split(b"\r\n")
        line = lines.pop(0)
        key = (self._targets[line], tuple(map(self._meaning, lines)))
        form = self._forms.get(key) or self._form(key, lines, len(head))
        length = form.length
        if form.length_at >= 0:
            length = int(lines[form.length_at][LENGTH_VALUE:])
            if form.respelled:
                lines.append(LENGTH_NAME + b"%d" % length)
        elif form.added:
            lines.append(form.added)
        if form.mcp_method or form.mcp_name:
            return RequestHead(
                line,
                form.pick(lines),
                length,
                form,
                mcp_method=values(lines, form.mcp_method),
                mcp_name=values(lines, form.mcp_name),
            )
        return RequestHead(line, form.pick(lines), length, form)

    def judge_again(self) -> None:
        """Forget what `judge_path` said so far: it has changed its mind."""
        self._targets.clear()

    def _form(self, key: tuple[_Asked, Shape], lines: list[bytes], size: int) -> RequestForm:
        """Return the form of a head of `size` bytes with these `lines`, or raise `Refusal`."""
        (method, path_refusal), shape = key
        kept, known, places = self._fields.sort(shape)
        host = known.get(HOST)
        if host is None:
            raise Refusal("bad_host")
        close, names = connection(known.get(CONNECTION, b""))
        if names & _FRAMING:
            raise Refusal("bad_framing")
        kept = without(kept, lines, names)
        length_at, respelled = -1, False
        chunked = CODING in known
        if chunked:
            if LENGTH in known or known[CODING] != b"chunked":
                raise Refusal("bad_framing")
            kept.append(len(lines))
        elif LENGTH in known:
            (length_at,) = places[LENGTH]
            respelled = known[LENGTH] != AS_OURS
            kept.append(len(lines) if respelled else length_at)
        if EXPECT in known and known[EXPECT] != b"100-continue":
            raise Refusal("expectation_refused")
        form = RequestForm(
            pick=_picker(kept),
            length=CHUNKED if chunked else 0,
            length_at=length_at,
            respelled=respelled,
            added=_CHUNKED if chunked else b"",
            method=method,
            close=close,
            expect=EXPECT in known,
            host=host,
            origin=known.get(ORIGIN),
            other_site=OTHER_SITE in known,
            authorization=known.get(AUTHORIZATION),
            path_refusal=path_refusal,
            mcp_method=places.get(MCP_METHOD, []),
            mcp_name=places.get(MCP_NAME, []),
        )
        if not names:  # else it depends on the names of lines, which are not in the shape
            _remember(self._forms, key, form, len(lines), size)
        return form

    def _read_line(self, line: bytes) -> _Asked:
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
        self._meaning = self._fields.__getitem__
        self._statuses = Cache(_read_status)
        self._forms: dict[tuple[_Status, bool, Shape], ResponseForm] = {}

    def read(self, head: bytes, method: str) -> ResponseHead:
        """Return what `head`, the bytes before the empty line, answers to `method`; raises `Refusal` (bad_response)."""
        lines = head.split(b"\r\n")
        line = lines.pop(0)
        key = (self._statuses[line], method == "HEAD", tuple(map(self._meaning, lines)))
        form = self._forms.get(key) or self._form(key, lines, len(head))
        length = form.length
        if form.length_at >= 0:
            length = int(lines[form.length_at][LENGTH_VALUE:])
            if form.respelled:
                lines.append(_CHUNKED if form.rewritten and length else LENGTH_NAME + b"%d" % length)
                length = 0 if form.bodiless else length
        elif form.added:
            lines.append(form.added)
        return ResponseHead(line if form.current else b"HTTP/1.1" + line[8:], form.pick(lines), length, form)

    def _form(self, key: tuple[_Status, bool, Shape], lines: list[bytes], size: int) -> ResponseForm:
        """Return the form of a head of `size` bytes with these `lines`, or raise `Refusal`."""
        (status, current), bodiless, shape = key
        kept, known, places = self._fields.sort(shape)
        close, names = connection(known.get(CONNECTION, b""))
        kept = without(kept, lines, names)
        chunked = CODING in known
        if chunked and (LENGTH in known or not current or known[CODING] != b"chunked"):
            raise Refusal("bad_response")
        reusable = current and not close
        bodiless = bodiless or status in _BODILESS or status < 200
        rewritten = self._rewrites_events and EVENT_STREAM in known and not bodiless
        length, length_at, respelled, added = 0, -1, False, b""
        if LENGTH in known:
            (at,) = places[LENGTH]
            respelled = known[LENGTH] != AS_OURS or rewritten
            if status == 204:
                respelled = False  # RFC 9110 8.6 forbids it there
            else:
                kept.append(len(lines) if respelled else at)
            if respelled or not bodiless:
                length_at = at
        elif not bodiless:
            added = _CHUNKED
            kept.append(len(lines))
            length = CHUNKED if chunked else UNTIL_CLOSE
            reusable = reusable and chunked
        form = ResponseForm(
            pick=_picker(kept),
            length=length,
            length_at=length_at,
            respelled=respelled,
            added=added,
            status=status,
            current=current,
            bodiless=bodiless,
            rewritten=rewritten,
            reusable=reusable,
            idle_seconds=int(known[KEEP_ALIVE]) if KEEP_ALIVE in known else None,
            event_stream=EVENT_STREAM in known,
            encoded=ENCODED in known,
            location=known.get(LOCATION),
        )
        if not names:
            _remember(self._forms, key, form, len(lines), size)
        return form


def _read_status(line: bytes) -> _Status:
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise Refusal("bad_response")
    return int(match[2]), match[1] == b"1"


def _picker(places: list[int]) -> Callable[[list[bytes]], tuple[bytes, ...]]:
    """Return what takes the lines at `places` out of a head."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda lines: tuple(lines[place] for place in places)  # of one place itemgetter makes no tuple


def _remember(forms: dict[_K, _F], key: _K, form: _F, lines: int, size: int) -> None:
    """Remember `form`, where a head of so many `lines` and bytes may come again."""
    if lines > _MAX_FORM_LINES or size > _MAX_FORM_BYTES:
        return
    if len(forms) >= MAX_FORMS:
        forms.clear()
    forms[key] = form
