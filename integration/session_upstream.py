"""The server at the far end of session tests: real TLS, a thread a connection, and a record of what it was sent."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import tempfile
import threading
from pathlib import Path
from typing import Self

import pki

TOKEN = "upstream-token-of-this-session-0123456789"


class Upstream:
    """A TLS server, a thread a connection; what it does depends on the last part of the request's path.

    "" answers, "hold" answers after `release`, "stream" sends an event and ends the stream after `release`. With
    `tls=False` it accepts and never says a word.
    """

    def __init__(self, *, tls: bool = True) -> None:
        self._root = pki.make_root()
        self._leaf = self._root.issue(["upstream.test"])
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.received = b""  # application bytes of all connections
        self.release = threading.Event()

    def server(self, name: str, *, pins: str = "right", limits: str = "", keys: str = "") -> str:
        """Return the tables of config.toml for a server that stands here; `keys` are more of the server's own."""
        used = self.pin if pins == "right" else pki.make_root("Another").pin
        expires = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=100)
        return f"""
            [mcp_servers.{name}]
            url = "https://upstream.test/mcp"
            connect_to = "127.0.0.1:{self.port}"
            bearer_token_env_var = "TOKEN"
            {keys}
            [mcp_servers.{name}.tls]
            ca = "custom"
            ca_file = "{self._directory.name}/root.pem"
            [mcp_servers.{name}.tls.pins]
            expires = {expires.isoformat()}
            pin = [ {{ spki = "{used}" }}, {{ spki = "{pki.make_root("Backup").pin}", backup = true }} ]
            [mcp_servers.{name}.limits]
            {limits}
        """

    @property
    def directory(self) -> Path:
        """Where its files lie, that of its authority as root.pem."""
        return Path(self._directory.name)

    @property
    def pin(self) -> str:
        """The pin of the root that the server's certificate is from."""
        return self._root.pin

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # `__exit__` shuts the listener down
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                if self._tls:
                    threading.Thread(target=self._attend, args=(connection,), daemon=True).start()

    def _attend(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            stream = self._context.wrap_socket(connection, server_side=True)
            self._open.append(stream)
            while request := self._read_request(stream):
                self._answer(stream, request)

    def _read_request(self, stream: ssl.SSLSocket) -> bytes:
        """Return the next request; all have the body {} (see `session_agent`)."""
        data = b""
        while not data.endswith(b"\r\n\r\n{}"):
            piece = stream.recv(65536)
            if not piece:
                return b""
            self.received += piece
            data += piece
        return data

    def _answer(self, stream: ssl.SSLSocket, request: bytes) -> None:
        behaviour = request.split(b" ", 2)[1].removeprefix(b"/mcp").strip(b"/")
        if behaviour == b"stream":
            stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            stream.sendall(b"d\r\ndata: first\n\n\r\n")
            self.release.wait()
            stream.sendall(b"0\r\n\r\n")
            return
        if behaviour == b"hold":
            self.release.wait()
        known = f"\r\nauthorization: bearer {TOKEN}\r\n".encode() in request.lower()
        stream.sendall(b"HTTP/1.1 %d Whatever\r\nContent-Length: 2\r\n\r\nok" % (200 if known else 401))

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="session-upstream-")
        (Path(self._directory.name) / "root.pem").write_text(self._root.pem)
        leaf = Path(self._directory.name) / "leaf.pem"
        leaf.write_text(self._leaf.chain_pem + self._leaf.key_pem)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(leaf)
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._directory.cleanup()
