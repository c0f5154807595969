"""CORE: server-sent events on their way to the client: where one ends, and the endpoint that a legacy server names.

HTML standard, 9.2: a line ends with CRLF, LF or CR, an empty line ends an event, a byte order mark may begin the
stream. All bytes pass as they came, but the data of `endpoint` events (MCP 2024-11-05, HTTP with SSE), which become
paths on the helper's own origin. An event is held back until it is complete, which no client can tell, since none acts
on half an event; one that grows over `MAX_HELD` passes as it comes, and is no endpoint's. Does no I/O, knows no heads.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeAlias

from codingagents.proxies.errors import Refusal
from codingagents.proxies.framing import LAST_CHUNK, UNTIL_CLOSE, ChunkedReader, LengthBody, frame
from codingagents.proxies.targets import Origin

MAX_HELD: Final = 16 * 1024  # bytes of an event that may be an endpoint's
_MAX_FIELD: Final = 32  # bytes of a line that may still become `event: endpoint`
_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")

Resolve: TypeAlias = Callable[[bytes], bytes]  # an endpoint as the server names it -> as the client is to; or `Refusal`


class EndpointRewriter:
    """Rewrites the endpoint events of one stream."""

    __slots__ = ("_after_cr", "_begun", "_held", "_in_line", "_lines", "_passing", "_resolve", "_size")

    def __init__(self, resolve: Resolve) -> None:
        """Name endpoints as `resolve` says."""
        self._resolve = resolve
        self._begun = False  # past the first line: no byte order mark any more
        self._after_cr = False  # the last line ended with CR, which may be half a CRLF
        self._held = b""  # a line that is not complete
        self._lines: list[bytes] = []  # of the event that is not complete, with their ends
        self._size = 0  # bytes of these
        self._passing = False  # the current event grew too long, and passes
        self._in_line = False  # its last line did, and the rest of that passes unlooked

    def feed(self, data: bytes) -> bytes:
        """Return what may go on of `data` and what was held; raises `Refusal` (endpoint_refused)."""
        out: list[bytes] = []
        if self._after_cr and data:
            self._after_cr = False
            if data.startswith(b"\n"):
                data = data[1:]
                self._keep(b"\n", out)
        position = 0
        data = self._held + data
        for match in _LINE_END.finditer(data, len(self._held)):
            self._take(data[position : match.start()], data[position : match.end()], out)
            position = match.end()
        self._after_cr = self._after_cr or (position == len(data) and data.endswith(b"\r"))
        self._held = data[position:]
        if self._size + len(self._held) > (_MAX_FIELD if self._passing else MAX_HELD):
            self._let_go(out)
        return b"".join(out)

    def end(self) -> bytes:
        """Return what was held, at the end of the stream, as if an empty line followed."""
        out: list[bytes] = []
        if self._held:
            self._take(self._held, self._held, out)
        self._decide(out)
        return b"".join(out)

    def _take(self, text: bytes, line: bytes, out: list[bytes]) -> None:
        """Take a complete `line`, which is `text` and its end."""
        if self._in_line:
            self._in_line = False
            out.append(line)
            return
        if not self._begun:
            self._begun = True
            if text.startswith(_BOM):
                out.append(_BOM)
                text, line = text[len(_BOM) :], line[len(_BOM) :]
        if not text:
            self._decide(out)
            self._passing = False
            out.append(line)
        elif self._passing:
            if _field(text) == (b"event", b"endpoint"):
                raise Refusal("endpoint_refused")
            out.append(line)
        elif text.startswith(b":") and not self._lines:
            out.append(line)
        else:
            self._lines.append(line)
            self._size += len(line)

    def _keep(self, piece: bytes, out: list[bytes]) -> None:
        """Put the LF that a CR turned out to belong to where the CR is."""
        if self._lines:
            self._lines.append(piece)
            self._size += len(piece)
        else:
            out.append(piece)

    def _decide(self, out: list[bytes]) -> None:
        """Let the event that is complete go, its endpoint rewritten if it is one."""
        fields = [_field(line.rstrip(b"\r\n")) for line in self._lines]
        types = [value for name, value in fields if name == b"event"]
        if b"endpoint" in types:
            if self._size > MAX_HELD:
                raise Refusal("endpoint_refused")
            if types[-1] == b"endpoint":
                self._rewrite([index for index, (name, _) in enumerate(fields) if name == b"data"], fields)
        out += self._lines
        self._lines = []
        self._size = 0

    def _rewrite(self, data_lines: list[int], fields: list[tuple[bytes, bytes]]) -> None:
        if not data_lines:
            return  # without data no client acts on it
        if len(data_lines) > 1:
            raise Refusal("endpoint_refused")
        (index,) = data_lines
        line, value = self._lines[index], fields[index][1]
        ours = self._resolve(value.strip(b" \t"))
        text = line.rstrip(b"\r\n")
        self._lines[index] = text.removesuffix(value) + ours + line[len(text) :]

    def _let_go(self, out: list[bytes]) -> None:
        """Let an event go that is too long to be held; from here on it may not turn out to be an endpoint's."""
        self._size = MAX_HELD + 1
        self._decide(out)
        self._passing = self._begun = True
        if len(self._held) > _MAX_FIELD:
            out.append(self._held)
            self._held = b""
            self._in_line = True


def _field(text: bytes) -> tuple[bytes, bytes]:
    """Return (name, value) of a line without its end."""
    name, _, value = text.partition(b":")
    return name, value.removeprefix(b" ")


class EventBody:
    """A response's body of server-sent events; the client gets it chunked."""

    __slots__ = ("_reader", "_rewriter", "_tail", "count")

    def __init__(self, length: int, rewriter: EndpointRewriter | None) -> None:
        """Take a body of `length` bytes, CHUNKED or UNTIL_CLOSE, through `rewriter` if there is one."""
        self._reader: LengthBody | ChunkedReader | None = None
        if length != UNTIL_CLOSE:
            self._reader = LengthBody(length) if length >= 0 else ChunkedReader(request=False)
        self._rewriter = rewriter
        self._tail = b""  # the last bytes that the client was sent
        self.count = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """See `framing.Body`."""
        payload, rest = (data, None) if self._reader is None else self._reader.feed(data)
        self.count += len(payload)
        if self._rewriter is not None:
            payload = self._rewriter.feed(payload)
            if rest is not None:
                payload += self._rewriter.end()
        self._tail = (self._tail + payload[-4:])[-4:]
        framed = frame(payload) if payload else b""
        return (framed if rest is None else framed + LAST_CHUNK), rest

    def end(self) -> bytes | None:
        """See `framing.Body`."""
        if self._reader is not None:
            return None
        left = b"" if self._rewriter is None else self._rewriter.end()
        return (frame(left) if left else b"") + LAST_CHUNK

    @property
    def between_events(self) -> bool:
        """Whether the client has seen no part of an event that is not complete."""
        tail = self._tail
        if tail.endswith((b"\r", b"\n")):
            line = tail.removesuffix(b"\r\n") if tail.endswith(b"\r\n") else tail[:-1]
            return line.endswith((b"\r", b"\n")) or not line
        return not tail


def farewell(comment: bytes) -> bytes:
    """Return the last bytes of an event stream, framed: a comment, which clients show to nobody and logs may."""
    return frame(b": " + comment + b"\n\n") + LAST_CHUNK


class Endpoints:
    """The endpoints of one legacy server."""

    def __init__(self, origin: Origin, learn: Callable[[bytes], None]) -> None:
        """Accept endpoints on `origin`, and tell their paths to `learn`."""
        self._origin = origin
        self._learn = learn

    def rewriter(self, base: bytes) -> EndpointRewriter:
        """Return what rewrites the stream that answers the target `base`."""

        def resolve(reference: bytes) -> bytes:
            target = self._origin.resolve(base, reference)
            if target is None:
                raise Refusal("endpoint_refused")
            self._learn(target.split(b"?", 1)[0])
            return target

        return EndpointRewriter(resolve)
