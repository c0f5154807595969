"""Heads read with caches against heads read the plain way: the same answer, whatever was read before."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import plain_heads
from codingagents.proxies.errors import Refusal
from codingagents.proxies.fields import MAX_VALUES
from codingagents.proxies.heads import RequestHeads, ResponseHeads

ATTACHED = frozenset({b"x-api-key", b"authorization"})

# Values that mean something to some line, and near misses.
_VALUES = [
    *(b"", b"h", b"localhost:1", b"a, b", b"0", b"7", b"007", b"12345", b"123456789012345", b"1234567890123456", b"+1"),
    *(b"1_0", b"1 0", b"chunked", b"Chunked", b"gzip, chunked", b"close", b"Keep-Alive", b"keep-alive, X-Hop, close"),
    *(b"x-hop", b"content-length", b"te, upgrade", b"Mcp-Name", b"content-type, content-encoding", b"100-continue"),
    *(b"100-Continue ", b"200-ok", b"timeout=5", b"max=3, timeout=7", b"timeout=", b"timeout=1234567", b"text/plain"),
    *(b"text/event-stream", b"Text/Event-Stream ; charset=utf-8", b"text/event-streams", b"identity", b"gzip"),
    *(
        b"Bearer x",
        b"tools/call",
        b"cross-site",
        b"none",
        b"Same-Origin",
        b"/other",
        b"\xe9",
        b"a\x00",
        b"a\rb",
        b"a\nb",
        b"\x7f",
        b"a\tb",
        b"\x0b7",
    ),
]
_NAMES = [
    *(b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Authorization", b"Origin", b"Expect"),
    *(b"Mcp-Method", b"Mcp-Name", b"Cookie", b"X-Hop", b"X-Api-Key", b"X_Api_Key", b"TE", b"Keep-Alive", b"Upgrade"),
    *(b"Proxy-X", b"Content_Length", b"transfer_encoding", b"X", b"traceparent", b"Content-Type", b"Content-Encoding"),
    *(b"Sec-Fetch-Site", b"Location", b"Set-Cookie", b"Alt-Svc", b"", b"X ", b" X", b"X(", b"\xe9"),
]
_spaces = st.sampled_from([b" ", b" ", b" ", b"", b"  ", b"\t"])
_cases = st.sampled_from([bytes, bytes, bytes.lower, bytes.upper])
_lines = st.builds(
    lambda name, case, colon, before, value, after: case(name) + colon + before + value + after,
    st.sampled_from(_NAMES),
    _cases,
    st.sampled_from([b":"] * 12 + [b"", b" :"]),
    _spaces,
    st.sampled_from(_VALUES) | st.integers(0, 10**16).map(lambda number: b"%d" % number) | st.binary(max_size=12),
    st.sampled_from([b"", b"", b"", b" ", b"\t", b" " * 600]),
)
# Lines that are in order, so that most heads are, and what is rare is not always refused for something else.
_good = st.sampled_from(
    [
        *(b"Content-Length: 7", b"content-length: 7", b"Content-Length: 0", b"Transfer-Encoding: chunked"),
        *(b"Connection: keep-alive", b"Connection: close", b"connection: x-hop", b"X-Hop: 1", b"X: 1", b"X: 2"),
        *(b"Mcp-Name: echo", b"mcp-name:  x", b"Mcp-Method: tools/call", b"Content-Type: text/event-stream"),
        *(b"Content-Type: application/json", b"Keep-Alive: timeout=5", b"Cookie: a", b"Expect: 100-continue"),
        *(b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Site: same-origin"),
    ]
)
_some = st.lists(_good | _good | _lines, max_size=7)
_targets = st.sampled_from([b"POST /mcp", b"GET /mcp", b"HEAD /mcp", b"POST /no", b"TRACE /mcp", b"POST /a#b", b"POST"])
_asked = st.builds(
    lambda target, host, lines: b"\r\n".join([target + b" HTTP/1.1", *host, *lines]),
    _targets,
    st.sampled_from([[b"Host: h"]] * 9 + [[]]),
    _some,
)
_statuses = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No", b"HTTP/1.1 304 "),
        *(b"HTTP/1.1 307", b"HTTP/1.1 103 Early", b"HTTP/2 200", b"HTTP/1.1 600"),
    ]
)
_answered = st.builds(lambda status, lines: b"\r\n".join([status, *lines]), _statuses, _some)
_methods = st.sampled_from(["POST", "GET", "HEAD"])


def judge(target: bytes) -> str | None:
    return "outside_route" if target == b"/no" else None


def by_us(reader: RequestHeads | ResponseHeads, head: bytes, method: str = "") -> plain_heads.Answer:
    """Return what `reader` finds, as `plain_heads` has it."""
    found: Any
    try:
        found = reader.read(head) if isinstance(reader, RequestHeads) else reader.read(head, method)
    except Refusal as refusal:
        return refusal.code
    form = found.form
    names: tuple[str, ...]
    answer = {"line": found.line, "lines": found.lines, "length": found.length}
    if isinstance(reader, RequestHeads):
        answer |= {"mcp_method": found.mcp_method, "mcp_name": found.mcp_name}
        names = ("method", "close", "expect", "host", "origin", "other_site", "authorization", "path_refusal")
    else:
        names = ("status", "reusable", "idle_seconds", "event_stream", "encoded", "location")
    return answer | {name: getattr(form, name) for name in names}


@given(st.lists(_asked, min_size=1, max_size=6))
@settings(max_examples=1000, deadline=None)
def test_requests_are_read_as_the_plain_way_reads_them(heads: list[bytes]) -> None:
    """By one reader in any order, and again once it knows them all."""
    reader = RequestHeads(ATTACHED, judge)
    for head in [*heads, *reversed(heads)]:
        assert by_us(reader, head) == plain_heads.request(head, ATTACHED, judge)


@given(st.lists(st.tuples(_answered, _methods), min_size=1, max_size=6), st.booleans())
@settings(max_examples=1000, deadline=None)
def test_responses_are_read_as_the_plain_way_reads_them(heads: list[tuple[bytes, str]], rewrites: bool) -> None:
    """By one reader in any order, whatever was asked, and again once it knows them all."""
    reader = ResponseHeads(rewrites_events=rewrites)
    for head, method in [*heads, *reversed(heads)]:
        assert by_us(reader, head, method) == plain_heads.response(head, method, rewrites_events=rewrites)


# One reader for all examples: its caches are as full, and as often emptied, as in a helper under attack.
WELL_USED = RequestHeads(ATTACHED, judge)
WELL_USED_RESPONSES = [ResponseHeads(rewrites_events=rewrites) for rewrites in (False, True)]


@given(_asked, st.integers(0, 10_000), st.data())
@settings(max_examples=1500, deadline=None)
def test_a_reader_that_has_read_much_is_as_strict(head: bytes, at: int, data: st.DataObject) -> None:
    """Every byte of a head that was accepted may be another the next time."""
    at %= len(head)
    mutated = head[:at] + data.draw(st.binary(min_size=1, max_size=2)) + head[at + 1 :]
    for one in (head, mutated, head):
        assert by_us(WELL_USED, one) == plain_heads.request(one, ATTACHED, judge)


@given(_answered, _methods, st.integers(0, 10_000), st.data())
@settings(max_examples=1500, deadline=None)
def test_a_reader_that_has_read_many_responses_is_as_strict(
    head: bytes, method: str, at: int, data: st.DataObject
) -> None:
    """The same of responses."""
    at %= len(head)
    mutated = head[:at] + data.draw(st.binary(min_size=1, max_size=2)) + head[at + 1 :]
    for rewrites, reader in enumerate(WELL_USED_RESPONSES):
        for one in (head, mutated, head):
            expected = plain_heads.response(one, method, rewrites_events=bool(rewrites))
            assert by_us(reader, one, method) == expected


def test_lines_of_a_name_with_many_values_are_still_read() -> None:
    """Once no more of them are remembered: a control character is refused, a length is that of its line."""
    reader = RequestHeads(ATTACHED, judge)
    for number in range(3 * MAX_VALUES):
        for value in (b"%d" % number, b"%d\x01" % number, b"0%d" % number, b"%dx" % number):
            for name in (b"X: ", b"Content-Length: ", b"content-length:", b"Mcp-Name: ", b"Origin: "):
                head = b"POST /mcp HTTP/1.1\r\nHost: h\r\n" + name + value
                assert by_us(reader, head) == plain_heads.request(head, ATTACHED, judge)
