"""Heads, read the plain way: one regular expression a line, nothing remembered. What `heads` must agree with.

Written before its caches were, and left as it was: it says what the helper's strictness is. An answer is a mapping of
what the rest of the helper acts on, or the code of the refusal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from codingagents.proxies.framing import CHUNKED, UNTIL_CLOSE
from codingagents.proxies.heads import METHODS

Answer: TypeAlias = Mapping[str, Any] | str

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_FIELD = re.compile(rb"(" + _TOKEN + rb"):([\t -~\x80-\xff]*)")
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") (/[!\"$-~]*) HTTP/1\.1")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])( [\t -~\x80-\xff]*)?")
_TIMEOUT = re.compile(rb"(?:^|[ ,])timeout=([0-9]{1,6})(?:$|[ ,])")
_HOPS = {b"keep-alive", b"te", b"trailer", b"upgrade", b"http2-settings"}
_FRAMING = {b"content-length", b"transfer-encoding", b"host"}
_COOKIES = {b"cookie", b"cookie2"}
_NOT_TO_CLIENT = {
    *(b"set-cookie", b"set-cookie2", b"www-authenticate", b"authentication-info", b"alt-svc"),
    b"strict-transport-security",
}
_ASKED = {
    *(b"host", b"content-length", b"authorization", b"connection", b"transfer-encoding", b"origin", b"expect"),
    *(b"mcp-method", b"mcp-name", b"sec-fetch-site"),
}
_ANSWERED = {
    *(b"content-length", b"connection", b"transfer-encoding", b"keep-alive", b"location", b"content-type"),
    b"content-encoding",
}
_ASKED_ONCE = {
    b"host": "bad_host", b"content-length": "bad_framing", b"transfer-encoding": "bad_framing",
    b"authorization": "duplicate_header", b"origin": "duplicate_header", b"expect": "duplicate_header",
}  # fmt: skip
_ANSWERED_ONCE = dict.fromkeys((b"content-length", b"transfer-encoding", b"keep-alive", b"location"), "bad_response")
_PASSED_ON = {b"mcp-method", b"mcp-name", b"sec-fetch-site", b"content-type", b"content-encoding"}
_AS_IT_IS = {b"authorization", b"location", b"mcp-method", b"mcp-name"}


class Bad(Exception):  # noqa: N818 -- a decision, as `errors.Refusal` is
    """Carries the code of a refusal."""


def request(head: bytes, attached: frozenset[bytes], judge: Callable[[bytes], str | None]) -> Answer:
    """Return what `RequestHeads(attached, judge).read(head)` must find."""
    try:
        return _request(head, frozenset(name.replace(b"_", b"-") for name in attached), judge)
    except Bad as bad:
        return str(bad)


def response(head: bytes, method: str, *, rewrites_events: bool) -> Answer:
    """Return what `ResponseHeads(rewrites_events=…).read(head, method)` must find."""
    try:
        return _response(head, method == "HEAD", rewrites_events)
    except Bad as bad:
        return str(bad)


def _request(head: bytes, attached: frozenset[bytes], judge: Callable[[bytes], str | None]) -> Answer:
    line, *lines = head.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise Bad("bad_request_line")
    method = match[1].decode()
    if method not in METHODS:
        raise Bad("method_refused")

    def dropped(name: bytes) -> bool:
        as_cgi = name.replace(b"_", b"-")
        if as_cgi in _FRAMING:
            raise Bad("bad_framing")
        return name in _COOKIES or as_cgi in attached

    kept, known = _sort(lines, "bad_header", _ASKED, dropped, _ASKED_ONCE)
    if b"host" not in known:
        raise Bad("bad_host")
    close, names = _connection(known)
    if names & _FRAMING:
        raise Bad("bad_framing")
    kept = [line for line in kept if line.split(b":", 1)[0].lower() not in names]
    length = 0
    if b"transfer-encoding" in known:
        if b"content-length" in known or known[b"transfer-encoding"] != b"chunked":
            raise Bad("bad_framing")
        kept.append(b"Transfer-Encoding: chunked")
        length = CHUNKED
    elif b"content-length" in known:
        length = int(known[b"content-length"])
        kept.append(b"Content-Length: %d" % length)
    if known.get(b"expect", b"100-continue") != b"100-continue":
        raise Bad("expectation_refused")
    return {
        "line": line, "lines": tuple(kept), "length": length, "method": method, "close": close,
        "expect": b"expect" in known, "host": known[b"host"], "origin": known.get(b"origin"),
        "other_site": b"sec-fetch-site" in known, "authorization": known.get(b"authorization"),
        "path_refusal": judge(match[2]), "mcp_method": known.get(b"mcp-method"), "mcp_name": known.get(b"mcp-name"),
    }  # fmt: skip


def _response(head: bytes, bodiless: bool, rewrites_events: bool) -> Answer:
    line, *lines = head.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise Bad("bad_response")
    status, current = int(match[2]), match[1] == b"1"
    kept, known = _sort(lines, "bad_response", _ANSWERED, _NOT_TO_CLIENT.__contains__, _ANSWERED_ONCE)
    close, names = _connection(known)
    kept = [line for line in kept if line.split(b":", 1)[0].lower() not in names]
    chunked = b"transfer-encoding" in known
    if chunked and (b"content-length" in known or not current or known[b"transfer-encoding"] != b"chunked"):
        raise Bad("bad_response")
    reusable = current and not close
    events = b"content-type" in known
    bodiless = bodiless or status in (204, 304) or status < 200
    length = UNTIL_CLOSE
    if b"content-length" in known:
        length = int(known[b"content-length"])
        if events and rewrites_events and length and not bodiless:
            kept.append(b"Transfer-Encoding: chunked")
        elif status != 204:
            kept.append(b"Content-Length: %d" % length)
    if bodiless:
        length = 0
    elif b"content-length" not in known:
        kept.append(b"Transfer-Encoding: chunked")
        length = CHUNKED if chunked else UNTIL_CLOSE
        reusable = reusable and chunked
    return {
        "line": b"HTTP/1.1" + line[8:], "lines": tuple(kept), "length": length, "status": status,
        "reusable": reusable, "idle_seconds": int(known[b"keep-alive"]) if b"keep-alive" in known else None,
        "event_stream": events, "encoded": b"content-encoding" in known, "location": known.get(b"location"),
    }  # fmt: skip


def _sort(  # noqa: PLR0912 -- the plain way is one list of cases
    lines: list[bytes], code: str, looked_at: set[bytes], dropped: Callable[[bytes], bool], once: Mapping[bytes, str]
) -> tuple[list[bytes], dict[bytes, bytes]]:
    """Return (lines to pass on, {lower-case name: value} of those that are looked at)."""
    kept: list[bytes] = []
    known: dict[bytes, bytes] = {}
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise Bad(code)
        name, value = match[1].lower(), match[2].strip(b" \t")
        if name not in looked_at:
            if not (name in _HOPS or name.startswith(b"proxy-") or dropped(name)):
                kept.append(line)
            continue
        if name not in _AS_IT_IS:
            value = value.lower()
        if name in _PASSED_ON:
            kept.append(line)
        if name == b"content-length" and not re.fullmatch(rb"[0-9]{1,15}", value):
            raise Bad(code if code == "bad_response" else "bad_framing")
        if name == b"keep-alive":
            hint = _TIMEOUT.search(value)
            if hint is None:
                continue
            value = hint[1]
        if name == b"content-type" and value.split(b";")[0].rstrip(b" \t") != b"text/event-stream":
            continue
        if name == b"sec-fetch-site" and value in (b"same-origin", b"none"):
            continue
        if name == b"content-encoding" and value in (b"", b"identity"):
            continue
        if name in known:
            if name in once:
                raise Bad(once[name])
            value = known[name] + b"," + value
        known[name] = value
    return kept, known


def _connection(known: Mapping[bytes, bytes]) -> tuple[bool, set[bytes]]:
    options = {option.strip(b" \t") for option in known.get(b"connection", b"").split(b",")}
    return b"close" in options, options - {b"", b"close", b"keep-alive"}
