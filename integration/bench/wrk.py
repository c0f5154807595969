"""SHELL: the load of requests, by wrk: latency and CPU. Ids, traces and lengths vary as they do. An error ends it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.processes import children_micros, cpu_micros
from bench.targets import Target
from bench.upstream import Upstream

_TEXT_BYTES = 155  # of the shortest argument
_LENGTHS = 64  # the next one byte longer each
_BODY = '{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"echo","arguments":{"text":"%s"}}}'
BODY_BYTES = len(_BODY % (100_000_000, "y" * (_TEXT_BYTES + _LENGTHS // 2)))  # in the middle
_LUA = """
local n = {start}
local texts = {{}}
for i = 0, {lengths} - 1 do texts[i] = string.rep("y", {text_bytes} + i) end
request = function()
  n = n + 1
  local body = string.format([[{body}]], n, texts[n * 7 % {lengths}])
  return string.format("POST /mcp HTTP/1.1\\r\\nHost: 127.0.0.1:{port}\\r\\nAuthorization: Bearer {bearer}\\r\\n" ..
    "Content-Type: application/json\\r\\nAccept: application/json, text/event-stream\\r\\nUser-Agent: bench/1\\r\\n" ..
    "Mcp-Session-Id: 6d1c0ae4-0000\\r\\nMcp-Protocol-Version: 2025-06-18\\r\\ntraceparent: 00-%032x-%016x-01\\r\\n" ..
    "Content-Length: %d\\r\\n\\r\\n%s", n, n, #body, body)
end
"""
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}


class Load(NamedTuple):
    """One run of the load against one target; times in µs."""

    rate: float  # requests per second
    p50: float
    p99: float
    whole: float  # CPU of client, proxy and upstream together, per request
    own: float  # CPU of the proxy, per request


def parse(output: str) -> tuple[int, float, float, float]:
    """Return (requests, requests per second, p50, p99) of what wrk printed; `RuntimeError` where requests failed."""
    if "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"requests failed:\n{output}")
    requests = re.search(r"(\d+) requests in", output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    latencies = {
        match[1]: float(match[2]) * _UNITS[match[3]] for match in re.finditer(r"(\d\d)% +([\d.]+)(us|ms|s)", output)
    }
    if requests is None or rate is None or not int(requests[1]):
        raise RuntimeError(f"wrk made no request:\n{output}")
    return int(requests[1]), float(rate[1]), latencies["50"], latencies["99"]


def command(directory: Path, target: Target, connections: int, seconds: float) -> list[str]:
    """Return how the load is started."""
    script = directory / f"{target.name}.lua"
    text = _LUA.format(
        start=100_000_000,
        port=target.port,
        bearer=target.bearer,
        body=_BODY,
        lengths=_LENGTHS,
        text_bytes=_TEXT_BYTES,
    )
    script.write_text(text)
    scheme = "https" if target.tls else "http"
    # wrk takes whole seconds only; its own signal handling ends a run in between, with the same report.
    return [
        *(
            "timeout",
            "--foreground",
            "-s",
            "INT",
            f"{seconds:g}",
            "wrk",
            "-t1",
            f"-c{connections}",
            "-d3600s",
            "--latency",
        ),
        *("-s", str(script), f"{scheme}://127.0.0.1:{target.port}/mcp"),
    ]


def run(upstream: Upstream, target: Target, connections: int, seconds: float, cpu: int) -> Load:
    """Run the load on `cpu`."""
    proxies: Sequence[int] = [target.pid] if target.pid else []
    own, before = cpu_micros(proxies), cpu_micros([upstream.pid]) + children_micros()
    done = subprocess.run(
        ["taskset", "-c", str(cpu), *command(upstream.directory, target, connections, seconds)],
        check=False,
        capture_output=True,
        text=True,
    )
    try:
        requests, rate, p50, p99 = parse(done.stdout)
    except RuntimeError as error:
        raise RuntimeError(f"{target.name}, {connections} connections: {error}") from None
    own = cpu_micros(proxies) - own
    whole = cpu_micros([upstream.pid]) + children_micros() - before + own
    return Load(rate, p50, p99, whole / requests, own / requests)
