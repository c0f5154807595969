"""ENTRY: runs a client with a helper between it and its server: its command, whose last argument is the server's URL.

For the harness, which starts the client itself and tells it the port of a server that no one knew before. The helper
asks for the caller's user only, since the harness's clients have no local bearer, and attaches a bearer of its own.
"""

from __future__ import annotations

import subprocess
import sys
from urllib.parse import urlsplit

from codingagents.rewrite.specs import HeaderTemplate, RemoteSpec
from helper_rig import Helper, Zygote


def main() -> int:
    *command, url = sys.argv[1:]
    server = urlsplit(url)
    assert server.port
    remote = RemoteSpec(
        name="harness",
        scheme="http",
        host="127.0.0.1",
        port=server.port,
        path=server.path or "/",
        client_auth=["uid"],
        headers=[HeaderTemplate(name="Authorization", template="Bearer ${TOKEN}")],
    )
    with Zygote() as zygote, Helper(zygote, remote) as helper:
        return subprocess.run([*command, f"http://127.0.0.1:{helper.port}{server.path}"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
