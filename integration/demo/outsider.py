"""Calls a helper with the agent's own bearer, as whoever runs it: one JSON line with what came back.

Run outside the session, standard library only. What it needs to know was leaked by the agent: `outsider.py FILE`, the
agent's MCP config entry for one server. It judges nothing.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

BODY = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


def main() -> int:
    entry = json.loads(Path(sys.argv[1]).read_text())
    url = urlsplit(entry["url"])
    connection = http.client.HTTPConnection(url.netloc, timeout=10)
    try:
        connection.request("POST", url.path, BODY, HEADERS | entry["headers"])
        answer = connection.getresponse()
        said = {"status": answer.status, "body": answer.read(2000).decode(errors="replace")}
    except OSError as error:
        said = {"status": None, "body": f"{type(error).__name__}: {error}"}
    finally:
        connection.close()
    print(json.dumps({"uid": os.getuid(), **said}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
