"""SHELL: builds and runs `upstream.c`, the server behind every target, with a certificate made on the spot."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pki
from bench.processes import free_port, running, wait_until_listening
from helper_rig import TOKEN

HOST = "upstream.test"  # in the certificate; nothing resolves it
_SOURCE = Path(__file__).resolve().parent / "upstream.c"


@dataclass(frozen=True, slots=True)
class Upstream:
    """A server that runs; its authority's certificate is in `directory`, with all that targets write."""

    directory: Path
    port: int
    pid: int
    root_pem: str
    root_pin: str

    @property
    def root_file(self) -> Path:
        """Where the authority's certificate lies."""
        return self.directory / "root.pem"


@contextlib.contextmanager
def upstream(directory: Path) -> Iterator[Upstream]:
    """Run the server in the block."""
    root = pki.make_root()
    leaf = root.issue([HOST, "127.0.0.1"])
    program, chain, key = (directory / name for name in ("upstream", "leaf.pem", "leaf.key"))
    chain.write_text(leaf.chain_pem)
    key.write_text(leaf.key_pem)
    (directory / "root.pem").write_text(root.pem)
    compiler = shutil.which("gcc")
    if compiler is None:
        raise SystemExit(
            "the benchmark builds its upstream: run 'integration/setup.sh bench' first, which installs gcc"
        )
    subprocess.run([compiler, "-O2", "-Wall", "-o", str(program), str(_SOURCE), "-lssl", "-lcrypto"], check=True)
    port, log = free_port(), directory / "upstream.log"
    command = [str(program), str(port), str(chain), str(key), TOKEN]
    with running(command, log=log) as process:
        wait_until_listening(port, process, log)
        yield Upstream(directory, port, process.pid, root.pem, root.pin)
