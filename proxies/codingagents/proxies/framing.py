"""CORE: message bodies as they pass, RFC 9112 sections 6 and 7: read strictly, written plainly. No I/O.

Knows nothing of heads. A chunked body is never passed on as it came: the payload is framed anew, so that a chunk
extension, a trailer or an odd spelling of a size cannot mean one thing here and another at the next hop. Nothing is
collected: what comes in goes out.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from codingagents.proxies.errors import Refusal

CHUNKED: Final = -1  # lengths of a body that are no number of bytes
UNTIL_CLOSE: Final = -2

LAST_CHUNK: Final = b"0\r\n\r\n"
MAX_SIZE_LINE = 256  # bytes, extensions included
MAX_TRAILERS = 8192  # bytes of all trailer lines together

# int(x, 16) alone would take "0x", "_" and signs. 15 digits are 2^60, and no such chunk is ever finished.
_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,15}")
_SIZE_WITH_EXTENSIONS = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t -~\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*")

_AT_SIZE: Final = 0
_IN_DATA: Final = 1
_AT_DATA_END: Final = 2
_IN_TRAILERS: Final = 3
# Bytes of one line, CRLF included.
_LIMITS: Final = {_AT_SIZE: MAX_SIZE_LINE, _AT_DATA_END: 2, _IN_TRAILERS: MAX_TRAILERS}


def frame(payload: bytes) -> bytes:
    """Return `payload`, which must not be empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


class ChunkedReader:
    """Reads one chunked body; trailers are checked and dropped.

    A request's chunk extensions are refused, since nothing uses them but attacks; a response's are dropped.
    """

    __slots__ = ("_code", "_held", "_left", "_phase", "_request", "_trailers")

    def __init__(self, *, request: bool) -> None:
        """Read a request's body, or else a response's."""
        self._request = request
        self._code = "bad_chunk" if request else "bad_response"
        self._phase = _AT_SIZE
        self._left = 0
        self._held = b""
        self._trailers = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Return (payload, rest): `rest` is None until the body has ended, then what follows it.

        Raises `Refusal` (bad_chunk, bad_response). Not to be called again after the end.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        pieces: list[bytes] = []
        position = 0
        size = len(data)
        while position < size:
            if self._phase == _IN_DATA:
                end = min(position + self._left, size)
                pieces.append(data[position:end])
                self._left -= end - position
                if not self._left:
                    self._phase = _AT_DATA_END
                position = end
                continue
            end = data.find(b"\r\n", position, position + _LIMITS[self._phase])
            if end < 0:
                self._held = data[position:]
                self._check_held()
                break
            ended = self._take_line(data[position:end])
            position = end + 2
            if ended:
                return b"".join(pieces), data[position:]
        return (pieces[0] if len(pieces) == 1 else b"".join(pieces)), None

    def _take_line(self, line: bytes) -> bool:
        """Take one line between data; return whether it ended the body."""
        if self._phase == _AT_SIZE:
            self._begin_chunk(line)
        elif self._phase == _AT_DATA_END:
            self._phase = _AT_SIZE  # the limit there leaves room for an empty line only
        elif not line:
            return True
        else:
            self._drop_trailer(line)
        return False

    def _begin_chunk(self, line: bytes) -> None:
        match = (_SIZE if self._request else _SIZE_WITH_EXTENSIONS).fullmatch(line)
        if match is None:
            raise Refusal(self._code)
        self._left = int(line if self._request else match[1], 16)
        self._phase = _IN_DATA if self._left else _IN_TRAILERS

    def _drop_trailer(self, line: bytes) -> None:
        self._trailers += len(line)
        if self._trailers > MAX_TRAILERS or not _TRAILER.fullmatch(line):
            raise Refusal(self._code)

    def _check_held(self) -> None:
        """Refuse a line that is too long already, or that holds a bare CR or LF and so can never become right."""
        line = self._held
        wrong = line != b"\r" if self._phase == _AT_DATA_END else b"\n" in line or b"\r" in line[:-1]
        if wrong or len(line) >= _LIMITS[self._phase]:
            raise Refusal(self._code)


class Body(Protocol):
    """One body on its way from one leg to the other."""

    count: int  # bytes of payload so far

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Return (bytes for the other leg, rest): `rest` is None until the body has ended, then what follows it.

        Raises `Refusal` where the framing is broken.
        """

    def end(self) -> bytes | None:
        """Return the last bytes for the other leg where the connection's end in order is the body's own, else None."""


class LengthBody:
    """A body of a known length, passed on as it is."""

    __slots__ = ("_left", "count")

    def __init__(self, length: int) -> None:
        """Expect `length` bytes."""
        self._left = length
        self.count = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """See `Body`; never refuses."""
        size = len(data)
        left = self._left
        if size < left:
            self._left = left - size
            self.count += size
            return data, None
        self._left = 0
        self.count += left
        return (data, b"") if size == left else (data[:left], data[left:])

    def end(self) -> bytes | None:
        """See `Body`."""
        return None


class ChunkedBody:
    """A chunked body, framed anew."""

    __slots__ = ("_reader", "count")

    def __init__(self, *, request: bool) -> None:
        """Take a request's body, or else a response's."""
        self._reader = ChunkedReader(request=request)
        self.count = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """See `Body`."""
        payload, rest = self._reader.feed(data)
        self.count += len(payload)
        framed = frame(payload) if payload else b""
        return (framed if rest is None else framed + LAST_CHUNK), rest

    def end(self) -> bytes | None:
        """See `Body`."""
        return None


class OpenBody:
    """A response's body that lasts until the connection ends; the other leg gets it chunked."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        """Expect any number of bytes."""
        self.count = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """See `Body`; only the connection tells the end."""
        self.count += len(data)
        return (frame(data) if data else b""), None

    def end(self) -> bytes | None:
        """See `Body`."""
        return LAST_CHUNK


def response_body(length: int) -> Body:
    """Return what passes on a response's body of `length` bytes, CHUNKED or UNTIL_CLOSE."""
    if length >= 0:
        return LengthBody(length)
    return ChunkedBody(request=False) if length == CHUNKED else OpenBody()


def request_body(length: int) -> Body:
    """Return what passes on a request's body of `length` bytes or CHUNKED."""
    return LengthBody(length) if length >= 0 else ChunkedBody(request=True)
