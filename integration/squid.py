"""Debian's Squid as the HTTP proxy of a test: unprivileged, in the foreground, with a configuration of its own.

with Squid(tmp_path) as proxy:
    remote(proxy=proxy.place)
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

PATIENCE = 20.0  # seconds; only a failing test waits that long
PROXY_UID = 58016  # no account of a Debian or Ubuntu machine has it
_CONFIGURATION = """
http_port 127.0.0.1:{port}
http_access {access} all
cache deny all
cache_mem 0 MB
max_filedescriptors 256
pid_filename none
netdb_filename none
pinger_enable off
coredump_dir {folder}
cache_log {folder}/cache.log
access_log stdio:{folder}/access.log
logfile_rotate 0
strip_query_terms off
visible_hostname proxy.test
shutdown_lifetime 0 seconds
"""


class Squid:
    """Serves on `place`, "127.0.0.1:PORT", until the end of its `with` block."""

    def __init__(self, folder: Path, *, allow: bool = True) -> None:
        program = shutil.which("squid", path="/usr/sbin:/usr/bin")
        assert program, "Squid is needed: run 'integration/setup.sh test' first"
        self._program = program
        self.folder = folder
        self._access = "allow" if allow else "deny"

    def __enter__(self) -> Self:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.place = f"127.0.0.1:{port}"
        for parent in (self.folder, self.folder.parent, self.folder.parent.parent):
            parent.chmod(0o755)
        os.chown(self.folder, PROXY_UID, PROXY_UID)
        configuration = self.folder / "squid.conf"
        configuration.write_text(_CONFIGURATION.format(port=port, access=self._access, folder=self.folder))
        configuration.chmod(0o644)
        self.process = subprocess.Popen(
            [self._program, "-N", "-f", str(configuration)],
            user=PROXY_UID, group=PROXY_UID, extra_groups=[], cwd="/", env={}, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except ConnectionRefusedError:
                time.sleep(0.02)
            else:
                return self
        self.__exit__()
        raise AssertionError((self.folder / "cache.log").read_text(errors="replace"))

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def log(self, *expected: str) -> str:
        """Return what it has been asked, once all that is `expected` is in it: a tunnel is written down at its end."""
        deadline = time.monotonic() + PATIENCE
        while True:
            text = (self.folder / "access.log").read_text()
            if all(each in text for each in expected):
                return text
            assert time.monotonic() < deadline, f"{expected} not in {text!r}"
            time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
