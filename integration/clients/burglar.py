"""ENTRY: tries, as whoever runs it, what only a client itself may do; one JSON object of what came of each.

    python3 -I burglar.py PROGRAM [BEARER]

PROGRAM is the client's, by which its processes are found. An outcome is "did", the name of an errno, or "unseen" where
there is nothing to try it on; of helpers it is the HTTP statuses that they answered. A bearer that it is not given it
takes from the client's configuration, if it can. Standard library only; it changes nothing and ends nobody.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

_RUN = Path("/run/coding-agents")
_RUNNER = "/run/agent-task-runner/runner.sock"
_LISTEN = "0A"  # in /proc/net/tcp
_PATIENCE = 5.0  # seconds: not everything that listens speaks HTTP
_THE_TESTS_OWN = {8443, 8444, 18090}  # ports of the upstream server and of the model


def outcome(act: Callable[[], object]) -> str:
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    return "did"


def client_of(program: str) -> int | None:
    """Return the PID of a process that runs `program`, if one can be seen."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")[0] == program.encode():
                return int(name)
    return None


def on_the_process(pid: int) -> Iterator[tuple[str, str]]:
    yield "its environment", outcome(lambda: Path(f"/proc/{pid}/environ").read_bytes())
    yield "its memory", outcome(lambda: os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY)))
    yield "its descriptors", outcome(lambda: os.listdir(f"/proc/{pid}/fd"))
    yield "a signal to it", outcome(lambda: os.kill(pid, 0))


def connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def bearers() -> list[str]:
    """Return what client configurations hold that can be read."""
    found: list[str] = []
    for directory, _, files in os.walk(_RUN / "clients"):
        for path in (Path(directory) / name for name in files if name.endswith((".json", ".toml"))):
            with contextlib.suppress(OSError):
                found += re.findall(r"Bearer ([\w.~+/=-]+)", path.read_text(errors="replace"))
    return found


def listening() -> list[int]:
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return sorted({int(row[1].partition(":")[2], 16) for row in rows if row[3] == _LISTEN} - _THE_TESTS_OWN)


def call(port: int, bearer: str) -> int:
    """Return the status that was answered; 0 where it is no helper that listens there."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    try:
        connection.request(
            "POST",
            "/mcp",
            b'{"jsonrpc":"2.0"}',
            {"Content-Type": "application/json", "Authorization": f"Bearer {bearer}"},
        )
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def main(program: str, *given: str) -> None:
    tried: dict[str, object] = {"uid": os.getuid()}
    pid = client_of(program)
    nothing = dict.fromkeys(("its environment", "its memory", "its descriptors", "a signal to it"), "unseen")
    tried.update(nothing if pid is None else dict(on_the_process(pid)))
    tried["its home"] = outcome(lambda: os.listdir(_RUN / "home"))
    tried["a file in its home"] = outcome((_RUN / "home" / f"left-{os.getuid()}").touch)
    tried["its configuration"] = outcome(lambda: os.listdir(_RUN / "clients"))
    tried["the runner's socket"] = outcome(lambda: connect(_RUNNER))
    with_these = [*given, *bearers(), "none"]
    tried["helpers"] = sorted({call(port, bearer) for port in listening() for bearer in with_these} - {0})
    print(json.dumps(tried))


if __name__ == "__main__":
    main(*sys.argv[1:])
