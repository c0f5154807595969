"""Real MCP servers as processes: our fixture server, and npm's `server-everything`.

with FixtureServer(guarded=True) as server, Helper(zygote, server.remote()) as helper: …
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import IO, Any, Literal, Self

import pki
from codingagents.rewrite.specs import HeaderTemplate, PinSpec, RemoteSpec, TlsSpec
from conformance import parts
from helper_rig import BEARER, TOKEN

INTEGRATION = Path(__file__).resolve().parents[1]
NAME = "fixtures.test"
_PATIENCE = 20.0  # seconds for a process to end


class FixtureServer:
    """The fixture server on 127.0.0.1: `guarded` for clients behind a helper, else for those that come directly."""

    def __init__(self, *, guarded: bool) -> None:
        self._guarded = guarded
        self._root = pki.make_root()
        self._leaf = self._root.issue((NAME,))

    def __enter__(self) -> Self:
        self._files = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [parts.sdk_python("2"), "-sE", "-m", "conformance.fixture_server"],
            cwd=INTEGRATION, env={}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        pipe(self._process.stdin).write(json.dumps(self._settings() if self._guarded else {}).encode() + b"\n")
        pipe(self._process.stdin).flush()
        self.port: int = json.loads(pipe(self._process.stdout).readline())["port"]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(_PATIENCE)
        pipe(self._process.stdin).close()
        pipe(self._process.stdout).close()
        self._files.cleanup()

    def _settings(self) -> dict[str, str]:
        cert, key = (Path(self._files.name) / name for name in ("cert", "key"))
        cert.write_text(self._leaf.chain_pem)
        key.write_text(self._leaf.key_pem)
        return {"cert": str(cert), "key": str(key), "token": TOKEN, "host": NAME, "local_bearer": BEARER}

    @property
    def anchors_pem(self) -> str:
        return self._root.pem

    def remote(self, **changes: Any) -> RemoteSpec:
        """Return the spec of a guarded server: pinned, and its bearer attached."""
        tls = TlsSpec(server_name=NAME, anchors_pem=self._root.pem, store="custom", pins=[PinSpec(spki=self._leaf.pin)])
        header = HeaderTemplate(name="Authorization", template="Bearer ${TOKEN}")
        fields: dict[str, Any] = {
            "name": "fixtures", "scheme": "https", "host": NAME, "port": 443, "path": "/mcp",
            "connect_to": f"127.0.0.1:{self.port}", "headers": [header], "tls": tls,
        }  # fmt: skip
        return RemoteSpec(**fields | changes)


class EverythingServer:
    """npm's `server-everything`, plain http, on a port that the kernel chose."""

    def __init__(self, transport: Literal["streamableHttp", "sse"]) -> None:
        self._transport = transport

    def __enter__(self) -> Self:
        program = parts.npm_file("@modelcontextprotocol/server-everything", "dist/index.js")
        self._process = subprocess.Popen(
            [parts.node(), program, self._transport],
            env={"PORT": "0"}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        said = pipe(self._process.stderr)
        while b"on port" not in (line := said.readline()):
            assert line, "server-everything ended before it listened"
        self._reader = threading.Thread(target=said.read)  # whatever else it says: a full pipe would stop it
        self._reader.start()
        self.port = _listening_port(self._process.pid)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(_PATIENCE)
        self._reader.join()
        pipe(self._process.stderr).close()

    def remote(self, **changes: Any) -> RemoteSpec:
        """Return the spec of it: plain http to loopback, with a bearer that it does not ask for."""
        sse = self._transport == "sse"
        fields: dict[str, Any] = {
            "name": "everything", "scheme": "http", "host": "127.0.0.1", "port": self.port,
            "path": "/sse" if sse else "/mcp", "transport": "sse" if sse else "http",
            "headers": [HeaderTemplate(name="Authorization", template="Bearer ${TOKEN}")],
        }  # fmt: skip
        return RemoteSpec(**fields | changes)


def pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream
    return stream


def _listening_port(pid: int) -> int:
    """Return the TCP port that a process listens on (proc_pid_net(5): state 0A, hexadecimal port)."""
    links = (os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
    own = {link[8:-1] for link in links if link.startswith("socket:[")}
    table = Path(f"/proc/{pid}/net/tcp").read_text() + Path(f"/proc/{pid}/net/tcp6").read_text()
    found = re.findall(r"^ *\d+: [0-9A-F]+:([0-9A-F]{4}) \S+ 0A .*? +\d+ +\d+ (\d+) ", table, flags=re.MULTILINE)
    (port,) = {int(port, 16) for port, inode in found if inode in own}
    return port
