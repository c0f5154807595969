"""Two parsers that share no code with ours, h11 and httptools, asked the same question in the same form."""

from __future__ import annotations

from dataclasses import dataclass

import h11
import httptools

Headers = tuple[tuple[bytes, bytes], ...]

_BUFFER = 1 << 22  # bytes; larger than any head or chunk of a test
_GET = h11.Request(method="GET", target="/", headers=[("Host", "h")])
_HEAD = h11.Request(method="HEAD", target="/", headers=[("Host", "h")])


@dataclass(frozen=True)
class Message:
    """One complete request or response; header names in lower case, values without the space around them."""

    start: tuple[bytes, ...]  # (method, target) or (status,)
    headers: Headers
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]


@dataclass(frozen=True)
class Opinion:
    """What a parser reads in some bytes: complete messages, then an error, the beginning of another one, or the end."""

    messages: tuple[Message, ...]
    error: bool = False
    unfinished: bool = False

    @property
    def only(self) -> Message | None:
        """The one message where there is nothing else."""
        return self.messages[0] if len(self.messages) == 1 and not self.error and not self.unfinished else None


def _normal(headers: list[tuple[bytes, bytes]]) -> Headers:
    return tuple((bytes(name).lower(), bytes(value).strip(b" \t")) for name, value in headers)


def _one_by_h11(connection: h11.Connection) -> Message | None:
    """Return the next message, or None where it is not complete; interim responses are none."""
    while isinstance(head := connection.next_event(), h11.InformationalResponse):
        pass
    if not isinstance(head, h11.Request | h11.Response):
        return None
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += bytes(event.data)
    if not isinstance(event, h11.EndOfMessage):
        return None
    if isinstance(head, h11.Request):
        start: tuple[bytes, ...] = (bytes(head.method), bytes(head.target))
    else:
        start = (b"%d" % head.status_code,)
    return Message(start, _normal(list(head.headers)), body)


def requests_by_h11(data: bytes) -> Opinion:
    """Read `data` as a server does."""
    messages: list[Message] = []
    while data:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_BUFFER)
        connection.receive_data(data)
        try:
            message = _one_by_h11(connection)
        except h11.RemoteProtocolError:
            return Opinion(tuple(messages), error=True)
        if message is None:
            return Opinion(tuple(messages), unfinished=True)
        messages.append(message)
        data = connection.trailing_data[0]
    return Opinion(tuple(messages))


def response_by_h11(data: bytes, *, head: bool = False, closed: bool = False) -> Opinion:
    """Read `data` as a client that asked once, with HEAD or else GET; `closed` where the stream ends after `data`."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_BUFFER)
    connection.send(_HEAD if head else _GET)
    connection.send(h11.EndOfMessage())
    if data:  # no data are the end of the stream to h11
        connection.receive_data(data)
    if closed:
        connection.receive_data(b"")
    try:
        message = _one_by_h11(connection)
    except h11.RemoteProtocolError:
        return Opinion((), error=True)
    if message is None:
        return Opinion((), unfinished=True)
    return Opinion((message,), error=bool(connection.trailing_data[0]))


class _Collector:
    """httptools' callbacks."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.begun = False
        self.status: int | None = None
        self.parser: httptools.HttpRequestParser | httptools.HttpResponseParser
        self._reset()

    def _reset(self) -> None:
        self._url = self._body = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._in_head = True

    def on_message_begin(self) -> None:
        self._reset()
        self.begun = True

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # the rest are trailers
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        self.begun = False
        if isinstance(self.parser, httptools.HttpResponseParser):
            status = self.parser.get_status_code()
            if status < 200:
                return
            start: tuple[bytes, ...] = (b"%d" % status,)
        else:
            start = (self.parser.get_method(), self._url)
        self.messages.append(Message(start, _normal(self._headers), self._body))


def requests_by_httptools(data: bytes) -> Opinion:
    """Read `data` as a server does."""
    seen = _Collector()
    seen.parser = httptools.HttpRequestParser(seen)
    return _by_httptools(seen, data)


def response_by_httptools(data: bytes) -> Opinion:
    """Read `data` as a client does that asked with anything but HEAD, which httptools has no switch for."""
    seen = _Collector()
    seen.parser = httptools.HttpResponseParser(seen)
    return _by_httptools(seen, data)


def _by_httptools(seen: _Collector, data: bytes) -> Opinion:
    try:
        seen.parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return Opinion(tuple(seen.messages), error=True)
    return Opinion(tuple(seen.messages), unfinished=seen.begun)
