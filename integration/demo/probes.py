"""What an agent gone wrong would try first, as the agent: one JSON line for each attempt, with what came back.

Run inside the session, as the agent, standard library only. `errno` is the name of an exec's error, `status` that of an
HTTP answer. It judges nothing: the expectations are the caller's.
"""

from __future__ import annotations

import argparse
import errno
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BODY = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


def say(probe: str, **facts: Any) -> None:
    print(json.dumps({"step": "probe", "probe": probe, **facts}), flush=True)


def try_exec(probe: str, *command: str) -> None:
    """Say what the kernel answered to executing `command`."""
    try:
        done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    except OSError as error:
        say(probe, program=command[0], errno=errno.errorcode.get(error.errno or 0, str(error)))
    else:
        say(probe, program=command[0], errno=None, code=done.returncode)


def try_post(probe: str, connection: http.client.HTTPConnection, path: str, bearer: str | None) -> None:
    """Say what the server on `connection` answered to an MCP request with this `bearer`."""
    try:
        authorization = {} if bearer is None else {"Authorization": bearer}
        connection.request("POST", path, BODY, HEADERS | authorization)
        answer = connection.getresponse()
        say(probe, status=answer.status, body=answer.read(2000).decode(errors="replace"))
    except OSError as error:
        say(probe, status=None, error=f"{type(error).__name__}: {error}")
    finally:
        connection.close()


class DialledElsewhere(http.client.HTTPSConnection):
    """HTTPS to a name that no resolver knows, at an address that is given."""

    def __init__(self, name: str, port: int, address: tuple[str, int], context: ssl.SSLContext) -> None:
        super().__init__(name, port, context=context, timeout=10)
        self._address, self._tls = address, context

    def connect(self) -> None:
        self.sock = self._tls.wrap_socket(socket.create_connection(self._address, 10), server_hostname=self.host)


def probe_execs(denied: str) -> None:
    try_exec("allowed program", "/usr/bin/true")
    try_exec("denied program", denied, "--version")
    copy = Path("own-true").resolve()
    shutil.copyfile("/usr/bin/true", copy)
    copy.chmod(0o755)
    try_exec("program of one's own", str(copy))


def probe_upstream(url: str, dial: str, ca: str, local_bearer: str) -> None:
    """Call the upstream itself, by its certificate's name, with nothing and with what the agent does hold."""
    parts = urlsplit(url)
    host, _, port = dial.rpartition(":")
    for probe, bearer in (("upstream, no credential", None), ("upstream, local bearer", local_bearer)):
        context = ssl.create_default_context(cafile=ca)
        connection = DialledElsewhere(parts.hostname or "", parts.port or 443, (host, int(port)), context)
        try_post(probe, connection, parts.path, bearer)


def probe_helper(url: str, local_bearer: str) -> None:
    parts = urlsplit(url)
    for probe, bearer in (("helper, no bearer", None), ("helper, wrong bearer", local_bearer[:-1] + "~")):
        try_post(probe, http.client.HTTPConnection(parts.netloc, timeout=10), parts.path, bearer)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mcp-config", required=True, type=Path)
    parser.add_argument("--server", required=True, help="the entry of the config that the probes are about")
    parser.add_argument("--denied", required=True, help="a program that a deny rule names; it is given --version")
    parser.add_argument("--upstream", required=True, help="URL of the server behind that entry")
    parser.add_argument("--dial", required=True, metavar="HOST:PORT", help="where that server is")
    parser.add_argument("--ca", required=True, help="PEM file that its certificate verifies against")
    parser.add_argument(
        "--leak-to", type=Path, help="where to leave the entry for others to try; ends when somebody removed it"
    )
    arguments = parser.parse_args()
    entry = json.loads(arguments.mcp_config.read_text())["mcpServers"][arguments.server]
    bearer = entry["headers"]["Authorization"]
    probe_execs(arguments.denied)
    probe_upstream(arguments.upstream, arguments.dial, arguments.ca, bearer)
    probe_helper(entry["url"], bearer)
    if arguments.leak_to is not None:
        arguments.leak_to.write_text(json.dumps(entry))
        say("leaked", uid=os.getuid())
        deadline = time.monotonic() + 20
        while arguments.leak_to.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    return 0


if __name__ == "__main__":
    sys.exit(main())
