"""TLS servers and a configuration for the tests of `coding-agents trust check` and `rotate`.

    with Server(chain) as server:                    # a thread; handshakes, then records all that comes
        desk.write(desk.entry("x", server))          # [mcp_servers.x] in a config.toml
        desk.run("check", "x")                       # a real process: exit code and output

A server notes for each connection what came after the handshake, whether a client certificate was shown, and how the
handshake ended. It asks for a client certificate where it is told to.
"""

from __future__ import annotations

import json
import os
import pty
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pki

NAME = "upstream.test"
PATIENCE = 20.0  # seconds; only a failing test waits that long
COMMAND = [sys.executable, "-I", "-m", "codingagents.launcher", "trust"]


@dataclass
class Met:
    """One connection, as the server has it."""

    client: tuple[str, int]
    data: bytes = b""  # of HTTP, if there was any
    certificate: bytes | None = None  # the client's
    error: str = ""  # why the handshake failed


@dataclass
class Server:
    """Sends `sent`, the first with its key, on 127.0.0.1 until the end of its `with` block."""

    sent: Sequence[pki.Issued]
    folder: Path
    maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    asks: pki.Issued | None = None  # the CA whose client certificates it asks for
    met: list[Met] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version, self._context.maximum_version = self.minimum, self.maximum
        if self.asks is not None:
            self._context.verify_mode = ssl.CERT_OPTIONAL
            self._context.load_verify_locations(cadata=self.asks.pem)
        self.show(self.sent)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._recorded = threading.Condition()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def show(self, sent: Sequence[pki.Issued]) -> None:
        """Send these certificates from now on."""
        chain, key = self.folder / "chain.pem", self.folder / "key.pem"
        chain.write_text("".join(each.pem for each in sent))
        key.write_text(sent[0].key_pem)
        self._context.load_cert_chain(chain, key)

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                raw, client = self._socket.accept()
            except OSError:
                return
            raw.settimeout(PATIENCE)
            met = Met(client)
            try:
                with self._context.wrap_socket(raw, server_side=True) as tls:
                    met.certificate = tls.getpeercert(binary_form=True)
                    while piece := tls.recv(1 << 16):
                        met.data += piece
            except OSError as error:
                met.error = str(error)
            finally:
                raw.close()
            with self._recorded:
                self.met.append(met)
                self._recorded.notify_all()

    def received_nothing(self) -> bool:
        """Say whether of all connections until now, of which there is one, no data and no client certificate came."""
        with socket.create_connection(("127.0.0.1", self.port)) as last:
            name = last.getsockname()  # one after the other: when this one is through, all others are
        with self._recorded:
            assert self._recorded.wait_for(lambda: any(met.client == name for met in self.met), PATIENCE)
            met = [each for each in self.met if each.client != name]
        return bool(met) and not any(each.data or each.certificate for each in met)


class Desk:
    """A user with a home directory, a configuration in it, and the command."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / "config.toml"

    def trusting(self, *roots: pki.Issued) -> str:
        """Return the path of a store with these roots."""
        store = self.home / "roots.pem"
        store.write_text("".join(root.pem for root in roots))
        return str(store)

    def entry(self, name: str, server: Server, *, ca: str, pins: str = "", tls: str = "", more: str = "") -> str:
        """Return the text of a server's tables."""
        return (
            f'[mcp_servers.{name}]\nurl = "https://{NAME}/mcp"\nconnect_to = "127.0.0.1:{server.port}"\n{more}'
            f'[mcp_servers.{name}.tls]\nca = "custom"\nca_file = "{ca}"\n{tls}'
            + (f"[mcp_servers.{name}.tls.pins]\nexpires = 2027-05-01\npin = {pins}\n" if pins else "")
        )

    def write(self, *entries: str) -> str:
        text = "\n".join(entries)
        self.config.write_text(text)
        return text

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments, "--config", str(self.config)],
            env={"PATH": os.environ["PATH"], "HOME": str(self.home)}, cwd=self.home, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=PATIENCE * 3, check=False, **options,
        )  # fmt: skip

    def on_a_terminal(self, typed: str, *arguments: str) -> tuple[int, str]:
        """Run the command at a terminal, type a line into it, and return its exit code and all that it showed."""
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [*COMMAND, *arguments, "--config", str(self.config)],
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "TERM": "xterm", "COLUMNS": "200"},
            cwd=self.home, stdin=theirs, stdout=theirs, stderr=theirs,
        ) as process:  # fmt: skip
            os.close(theirs)
            os.write(ours, f"{typed}\n".encode())
            shown = b""
            try:
                while piece := os.read(ours, 65536):
                    shown += piece
            except OSError:  # the other end is closed
                pass
            process.wait(PATIENCE)
        os.close(ours)
        return process.returncode, shown.decode()

    def check(self, *arguments: str) -> tuple[int, Any]:
        """Return exit code and document of `trust check … --json`."""
        done = self.run("check", *arguments, "--json")
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def pin_rows(*pins: tuple[pki.Issued, str, bool]) -> str:
    """Return the TOML of pins: whose key, where, and whether it is a backup."""
    rows = (
        f'{{ spki = "{issued.pin}", at = "{at}"{", backup = true" if backup else ""} }}' for issued, at, backup in pins
    )
    return f"[{', '.join(rows)}]"
