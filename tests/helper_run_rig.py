"""`coding-agents helper run` as a process, the servers that it is tried on, and its configuration."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import http.server
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pki import Issued, make_root

ROOT = make_root()
LEAF = ROOT.issue(["mcp.example.com"])
NOBODY_ELSE: Mapping[str, Any] = {}
SIDES = {"host": "codingagents.launcher", "container": "codingagents.supervisor"}
BODY = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}'
EXPIRES = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=100)
PATIENCE = 30  # seconds, for what takes one; only a hang reaches it


class Upstream(http.server.ThreadingHTTPServer):
    """An MCP server's place; keeps what credential each request had. `gate` holds answers back while it is clear."""

    daemon_threads = True

    def __init__(self, identity: Issued | None = None) -> None:
        self.credentials: list[str | None] = []
        self.arrived = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        super().__init__(("127.0.0.1", 0), _Handler)
        if identity is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            with open(os.memfd_create("identity"), "wb") as file:
                file.write((identity.key_pem + identity.chain_pem).encode())
                file.flush()
                context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, *_: object) -> None:
        """A client that distrusts us ends the handshake: that is what some tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.credentials.append(self.headers["Authorization"])
        self.server.arrived.release()
        self.server.gate.wait(PATIENCE)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


def serving(server: Upstream) -> Iterator[Upstream]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.gate.set()
    server.shutdown()
    thread.join()
    server.server_close()


class Run:
    """One `helper run` with --json, from its first line on."""

    def __init__(
        self, home: Path, *options: str, side: str = "host", user: Mapping[str, Any] = NOBODY_ELSE, **environment: str
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-m", SIDES[side], "helper", "run", "--config", "config.toml", *options],
            cwd=home, env={"PATH": os.environ["PATH"], "HOME": str(home), **environment},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **user,
        )  # fmt: skip
        # A helper that says nothing is ended, so that whoever waits for its line finds out.
        self._watchdog = threading.Timer(2 * PATIENCE, self.process.kill)
        self._watchdog.start()
        self.introduction = self.line()

    def clear_away(self) -> None:
        self._watchdog.cancel()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()
        found: dict[str, Any] = json.loads(line)
        return found

    def facts(self, kind: str) -> dict[str, Any]:
        """The next fact of that kind."""
        while (found := self.line())["fact"] != kind:
            pass
        return found

    @property
    def bearer(self) -> str:
        return Path(self.introduction["bearer_file"]).read_text()

    def connect(self) -> http.client.HTTPConnection:
        if self.introduction["socket_path"]:
            connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(self.introduction["socket_path"])
            return connection
        return http.client.HTTPConnection(self.introduction["url"].split("/")[2], timeout=PATIENCE)

    def takes_connections(self) -> bool:
        with contextlib.closing(self.connect()) as connection:
            try:
                connection.connect()
            except ConnectionError:
                return False
            return True

    def post(self, **headers: str) -> tuple[int, dict[str, Any]]:
        with contextlib.closing(self.connect()) as connection:
            connection.request("POST", "/mcp", BODY, {"Content-Type": "application/json", **headers})
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def end(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, output, errors


def configure(home: Path, server: Upstream, tls: str = "") -> None:
    scheme = "https" if tls else "http"
    (home / "ca.pem").write_text(ROOT.pem)
    more = f'connect_to = "127.0.0.1:{server.server_port}"\n{tls}' if tls else "allow_plaintext = true\n"
    (home / "config.toml").write_text(
        f"""\
[mcp_servers.dev]
url = "{scheme}://{"mcp.example.com" if tls else f"127.0.0.1:{server.server_port}"}/mcp"
bearer_token_env_var = "TOKEN"
{more}"""
    )
