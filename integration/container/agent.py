"""What runs as the agent in container tests: says who it is, uses its servers, tries programs. Standard library only.

It knows nothing but the client configuration that its session made for it (`CODEX_HOME`). One JSON object on standard
output, whose keys are the names of what was tried; then, with `--wait`, it sleeps until somebody ends it.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

PROGRAMS = {"allowed": "/usr/bin/true", "denied": "/usr/bin/tac", "outside": "/workspace/outside"}


def run_program(path: str) -> str:
    """Return "ran", or the errno of the exec."""
    try:
        subprocess.run([path], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ran"


def call(server: dict[str, Any], *, bearer: bool = True) -> int:
    """Post to a server as its configuration says, and return the status."""
    headers = {"Content-Type": "application/json"} | (server["http_headers"] if bearer else {})
    request = urllib.request.Request(server["url"], b'{"jsonrpc":"2.0"}', headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def status_fields() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def main() -> None:
    servers = tomllib.loads((Path(os.environ["CODEX_HOME"]) / "config.toml").read_text())["mcp_servers"]
    fields = status_fields()
    report = {
        "uids": os.getresuid(),
        "gids": os.getresgid(),
        "groups": os.getgroups(),
        "capabilities": fields["CapEff"],
        "no_new_privs": fields["NoNewPrivs"],
        "home": os.stat(os.environ["HOME"]).st_uid,
        "descriptors": {name: os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")[:-1]},
        "environment": sorted(os.environ),
        "programs": {name: run_program(path) for name, path in PROGRAMS.items()},
        "good": call(servers["good"]),
        "good without bearer": call(servers["good"], bearer=False),
        "wrong": call(servers["wrong"]),
    }
    (Path(os.environ["HOME"]) / "private").mkdir(mode=0o700)  # left behind: the session has to clean it up
    (Path(os.environ["HOME"]) / "private" / "file").write_text("x")
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
    if sys.argv[1:] == ["--wait"]:
        subprocess.run(["/usr/bin/sleep", "60"], check=False)
