"""The demo's upstream: a server made with the PyPI `mcp` SDK, Streamable HTTP over TLS, that demands a bearer token.

Run under the demo's own interpreter, outside the session: it stands for a machine somewhere else. The token is the
first line of its stdin, never argv or environment; it ends when stdin does. It says `{"port": N}` on stdout once it
listens. What arrives is recorded below HTTP, where TLS hands over plaintext, so that the record does not depend on a
request being complete: one JSON line each for `accepted` (TCP), `handshake` (TLS finished) and `bytes` (application
bytes). It does not ask for a client certificate, and keeps nothing of what it reads but its length.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
import itertools
import json
import os
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings


class Record:
    """Appends one JSON line for each thing that happened to a connection; a file only its owner can read."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.numbers = itertools.count(1)

    def add(self, connection: int, event: str, count: int = 0) -> None:
        line = {"connection": connection, "event": event} | ({"count": count} if event == "bytes" else {})
        os.write(self._fd, json.dumps(line).encode() + b"\n")


def recorded(record: Record) -> type[ssl.SSLObject]:
    """Return an `SSLObject` that reports to `record`: asyncio makes one for each connection it accepted."""

    class RecordedSSLObject(ssl.SSLObject):
        number = 0

        def do_handshake(self) -> None:
            if not self.number:
                self.number = next(record.numbers)
                record.add(self.number, "accepted")
            super().do_handshake()
            record.add(self.number, "handshake")

        def read(self, *args: Any, **kwargs: Any) -> Any:  # bytes, or a count where a buffer is given
            got = super().read(*args, **kwargs)
            record.add(self.number, "bytes", got if isinstance(got, int) else len(got))
            return got

    return RecordedSSLObject


class OneToken:
    """The SDK's `TokenVerifier` for a single long-lived token."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def verify_token(self, token: str) -> AccessToken | None:
        if not hmac.compare_digest(token.encode(), self._token):
            return None
        return AccessToken(token="withheld", client_id="demo", scopes=[])  # the SDK only hands it on to tools


def make_server(token: str, name: str) -> MCPServer:
    """Return the MCP server: two tools, and the SDK's own demand for the bearer."""
    origin = f"https://{name}"
    auth = AuthSettings(issuer_url=origin, resource_server_url=f"{origin}/mcp", validate_token_resource=False)
    server = MCPServer(
        "demo",
        instructions="Adds, and says who called.",
        auth=auth,
        token_verifier=OneToken(token),
        log_level="WARNING",
    )

    def add(a: int, b: int) -> int:
        """Return a + b."""
        return a + b

    def whoami(ctx: Context) -> dict[str, str]:
        """Return how this call was authorized and which Host it named; never the credential."""
        headers = ctx.headers or {}
        scheme = headers.get("authorization", "none").partition(" ")[0]
        return {"authorization": scheme, "host": headers.get("host", "none")}

    server.add_tool(add)
    server.add_tool(whoami)
    return server


async def serve(arguments: argparse.Namespace, token: str) -> None:
    """Serve until stdin ends."""
    name = arguments.server_name
    security = TransportSecuritySettings(allowed_hosts=[name, f"{name}:*"], allowed_origins=[f"https://{name}"])
    app = make_server(token, name).streamable_http_app(transport_security=security)
    listener = socket.create_server(("127.0.0.1", arguments.port))
    record = Record(arguments.record)

    def with_record(_: uvicorn.Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        context = default()
        context.sslobject_class = recorded(record)
        return context

    config = uvicorn.Config(
        app,
        ssl_certfile=arguments.cert,
        ssl_keyfile=arguments.key,
        ssl_context_factory=with_record,
        loop="asyncio",  # the recorder relies on asyncio's own TLS
        log_level="warning",
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    asyncio.get_running_loop().add_reader(0, _stop_at_end_of_stdin, server)
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    await server.serve(sockets=[listener])


def _stop_at_end_of_stdin(server: uvicorn.Server) -> None:
    if not os.read(0, 4096):
        asyncio.get_running_loop().remove_reader(0)
        server.should_exit = True


def _first_line_of_stdin() -> str:
    # Byte by byte, so that nothing of the token stays in a buffer's read-ahead and stdin remains usable for EOF.
    line = bytearray()
    while (byte := os.read(0, 1)) not in {b"\n", b""}:
        line += byte
    return line.decode()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cert", required=True, help="PEM file: the leaf, then its intermediates")
    parser.add_argument("--key", required=True, help="PEM file of the leaf's key")
    parser.add_argument("--record", required=True, help="file that connections are recorded in, made 0600")
    parser.add_argument("--server-name", default="mcp.demo.test", help="what Host must say")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    token = _first_line_of_stdin()
    if not token:
        print("mcp_server: the first line of stdin must be the token", file=sys.stderr)
        return 2
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(arguments, token))
    return 0


if __name__ == "__main__":
    sys.exit(main())
