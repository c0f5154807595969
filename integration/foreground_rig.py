"""One request through `coding-agents helper run`, as a user starts it: a real process, ended by its Ctrl-C."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_PROGRAM = [sys.executable, "-I", "-m", "codingagents.launcher", "helper", "run", "--client-auth", "none"]


def one_request(config: Path, server: str, variables: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Start it, POST a ping, and return the status, the body and all that was shown; its home is where `config` is."""
    helper = subprocess.Popen(
        [*_PROGRAM, "--server", server, "--config", str(config)],
        env={"PATH": os.environ["PATH"], "HOME": str(config.parent), **(variables or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with helper:
        assert helper.stdout is not None
        shown = ""
        while "Ctrl-C ends it" not in shown:
            line = helper.stdout.readline()
            assert line, shown
            shown += line
        (port,) = re.findall(r"listens on +http://127\.0\.0\.1:(\d+)/", shown)
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)) as client:
            body = '{"jsonrpc":"2.0","id":1,"method":"ping"}'
            accepts = "application/json, text/event-stream"
            client.request("POST", "/mcp", body, {"Content-Type": "application/json", "Accept": accepts})
            answer = client.getresponse()
            text = answer.read().decode()
        helper.send_signal(signal.SIGINT)
        return answer.status, text, shown + helper.stdout.read()
