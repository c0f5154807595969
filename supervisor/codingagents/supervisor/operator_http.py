"""SHELL: HTTP/1.1 on the operator's socket, by h11: one request a connection, and few of them are known.

Its caller is root and bounds the time; nothing of a request is trusted beyond that it names what it wants. Only a GET
is answered with content: h11 allows none where the request was a HEAD.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import h11
import trio

_PIECE: Final = 1 << 16


Documents = Mapping[str, Callable[[], Awaitable[bytes]]]


async def converse(stream: trio.abc.Stream, documents: Documents) -> None:
    """Answer one request by the document that its path names; nothing is said to one that breaks off."""
    connection = h11.Connection(h11.SERVER)
    try:
        try:
            status, content = await _answer(await _request(stream, connection), documents)
        except h11.RemoteProtocolError as error:
            status, content = error.error_status_hint, b""
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-store"),
            ("Allow", "GET"),
            ("Connection", "close"),
        ]
        parts = [h11.Response(status_code=status, headers=headers), h11.Data(data=content), h11.EndOfMessage()]
        await stream.send_all(b"".join(connection.send(part) or b"" for part in parts))
    except (trio.BrokenResourceError, EOFError):
        pass


async def _request(stream: trio.abc.Stream, connection: h11.Connection) -> h11.Request:
    """Return the request once all of it has come; its body is not for us."""
    request: h11.Request | None = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await stream.receive_some(_PIECE)
            if not data and request is None:
                raise EOFError
            connection.receive_data(bytes(data))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            return request
        elif not isinstance(event, h11.Data):
            raise EOFError


async def _answer(request: h11.Request, documents: Documents) -> tuple[int, bytes]:
    if request.method != b"GET":
        return 405, b""
    document = documents.get(request.target.decode("latin-1"))
    if document is None:
        known = " and ".join(f"GET {path}" for path in documents)
        return 404, b'{"error": "there is %s"}\n' % known.encode()
    return 200, await document()
