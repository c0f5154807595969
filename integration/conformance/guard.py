"""Stands before the fixture server as a vendor's own gate: the injected bearer and nothing of the client's.

An ASGI application around another. Whatever it refuses is answered 401 or 403 with the reason as text.
"""

from __future__ import annotations

import hmac
from typing import Any


class Guard:
    """Lets requests through that carry `token` once, name `host`, and show nothing that was to stay with the client."""

    def __init__(self, app: Any, token: str, host: str, local_bearer: str) -> None:
        self._app = app
        self._authorization = f"Bearer {token}".encode()
        self._host = host.encode()
        self._local = local_bearer.encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        reason = self._refuse(scope["headers"]) if scope["type"] == "http" else None
        if reason is None:
            await self._app(scope, receive, send)
            return
        status = 401 if reason == "no bearer" else 403
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(reason)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": reason.encode()})

    def _refuse(self, headers: list[tuple[bytes, bytes]]) -> str | None:
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) != 1 or not hmac.compare_digest(given[0], self._authorization):
            return "no bearer"
        if any(self._local in value for _, value in headers):
            return "the local bearer leaked"
        for name in (b"cookie", b"origin", b"proxy-authorization"):
            if any(each == name for each, _ in headers):
                return f"the client's {name.decode()} leaked"
        return None if [value for name, value in headers if name == b"host"] == [self._host] else "another Host"
