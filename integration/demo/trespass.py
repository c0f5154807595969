"""Tries what belongs to the agent, as whoever runs it: one JSON line for each attempt, with what came back.

Run as a task, and by the agent itself as the control, standard library only: `trespass.py --by NAME --agent UID
--mcp-config FILE --canary SHA256`, with a server's config entry on standard input, so that not even the bearer is
missing. `errno` is the name of what the kernel answered, null where the attempt worked. It
judges nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import http.client
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BODY = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


def attempt(act: Callable[[], bytes]) -> dict[str, Any]:
    """Return what came of reading something: its length, or why not."""
    try:
        return {"errno": None, "bytes": len(act())}
    except OSError as error:
        return {"errno": errno.errorcode.get(error.errno or 0, str(error)), "bytes": 0}


def processes_of(uid: int) -> list[str]:
    """Return the processes of `uid` that are seen here."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if int(Path(f"/proc/{pid}/status").read_text().partition("\nUid:\t")[2].split()[0]) == uid:
                found.append(pid)
    return found


def of_any(pids: list[str], read: Callable[[str], bytes]) -> bytes:
    """Return what can be read of the first of `pids` that lets itself be read; `OSError` where none does."""
    why = OSError(errno.ENOENT, "no process")
    for pid in pids:
        try:
            return read(pid)
        except OSError as error:
            why = error
    raise why


def some_environment(pid: str) -> bytes:
    """Return the environment that `pid` was started with."""
    return Path(f"/proc/{pid}/environ").read_bytes()


def some_memory(pid: str) -> bytes:
    """Return a page of what `pid` has mapped first."""
    start = int(Path(f"/proc/{pid}/maps").read_text().partition("-")[0], 16)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        return os.pread(memory.fileno(), 4096, start)


def call(entry: dict[str, Any]) -> dict[str, Any]:
    """Call the helper with the bearer that it asks for."""
    url = urlsplit(entry["url"])
    connection = http.client.HTTPConnection(url.netloc, timeout=10)
    try:
        connection.request("POST", url.path, BODY, HEADERS | entry["headers"])
        answer = connection.getresponse()
        return {"status": answer.status, "body": answer.read(2000).decode(errors="replace")}
    except OSError as error:
        return {"status": None, "body": f"{type(error).__name__}: {error}"}
    finally:
        connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--by", required=True, help="what the lines are marked with")
    parser.add_argument("--agent", required=True, type=int, metavar="UID", help="the agent's")
    parser.add_argument("--mcp-config", required=True, type=Path)
    parser.add_argument("--canary", required=True, help="SHA-256 of a secret in the environment of who asked for this")
    arguments = parser.parse_args()
    entry = json.load(sys.stdin)

    def say(probe: str, **facts: Any) -> None:
        print(json.dumps({"step": "trespass", "by": arguments.by, "probe": probe, **facts}), flush=True)

    config, agents = arguments.mcp_config, processes_of(arguments.agent)
    digests = {hashlib.sha256(value).hexdigest() for value in os.environb.values()}
    say("self", uid=os.getuid(), groups=os.getgroups())
    say("client config", **attempt(config.read_bytes))
    say("environment of the agent", seen=len(agents), **attempt(lambda: of_any(agents, some_environment)))
    say("memory of the agent", seen=len(agents), **attempt(lambda: of_any(agents, some_memory)))
    say("own environment", canary=arguments.canary in digests)
    say("helper", **call(entry))
    return 0


if __name__ == "__main__":
    sys.exit(main())
