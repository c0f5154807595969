"""Runs a real client as a process; see `journey`. One that fails is an `AssertionError` with what it said."""

from __future__ import annotations

import json
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from conformance import parts
from conformance.servers import INTEGRATION

PATIENCE = 30.0  # seconds; only a client that waits in vain takes as long
_TYPESCRIPT = Path(__file__).with_name("typescript.cjs")


@dataclass(frozen=True)
class RealClient:
    """One SDK in one line, speaking one revision."""

    sdk: Literal["python1", "python2", "@modelcontextprotocol/sdk", "@modelcontextprotocol/client"]
    revision: str

    def __str__(self) -> str:
        return f"{self.sdk} {self.revision}"

    def run(
        self, url: str, journey: Literal["fixtures", "everything"], headers: dict[str, str],
        *, transport: Literal["http", "sse"] = "http", authority: Path | None = None,
        patience: float = PATIENCE,
    ) -> dict[str, Any]:  # fmt: skip
        """Return what the client saw on its journey; `authority` is a PEM file of whom it trusts on https."""
        trusted = {} if authority is None else {"NODE_EXTRA_CA_CERTS": str(authority), "SSL_CERT_FILE": str(authority)}
        settings = {
            "sdk": self.sdk, "revision": self.revision, "url": url, "headers": headers, "transport": transport,
            "journey": journey, "gate": uuid.uuid4().hex, "patience": patience,
        }  # fmt: skip
        done = subprocess.run(
            self._command(), cwd=INTEGRATION, env=trusted, input=json.dumps(settings) + "\n", capture_output=True,
            text=True, check=False, timeout=2 * PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        seen: dict[str, Any] = json.loads(done.stdout)
        return seen

    def _command(self) -> list[str | Path]:
        if self.sdk in {"python1", "python2"}:
            return [
                parts.sdk_python("1" if self.sdk == "python1" else "2"),
                "-sE",
                "-m",
                f"conformance.clients.{self.sdk}",
            ]
        return [parts.node(), _TYPESCRIPT, parts.npm_packages()]


CLIENTS = (
    RealClient("python2", "2025-11-25"),
    RealClient("python2", "2026-07-28"),
    RealClient("python1", "2025-11-25"),
    RealClient("@modelcontextprotocol/sdk", "2025-11-25"),
    RealClient("@modelcontextprotocol/client", "2025-11-25"),
    RealClient("@modelcontextprotocol/client", "2026-07-28"),
)
