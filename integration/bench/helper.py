"""Compares a helper with nginx doing the same job, pairwise in one run: a local bearer in, a credential out, over TLS.

Everything that works (client, proxy, upstream) is pinned to one CPU and waits for nothing but each other, so that the
CPU time of all three per request is the whole cost of a request, and its inverse the throughput that an otherwise idle
machine shows. The ratio is taken of that and not of requests per second, which any neighbour on the machine
changes. The facts of the helper are read on another CPU. Rounds alternate; the ratio is taken within each round.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent / "tests")]

import pki
from codingagents.rewrite.specs import HeaderTemplate, PinSpec, RemoteSpec, TlsSpec
from helper_rig import BEARER, TOKEN, Helper, Zygote

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "6"))
SECONDS = 2
CONNECTIONS = (16, 1)
MUST = 0.6  # of nginx, at 16 connections
_REPLY = '{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"' + "x" * 236 + '"}]}}'
_CALL = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"'
_BODY = _CALL + "y" * 200 + '"}}}'

_NGINX = """
worker_processes 1; daemon off; master_process off; pid {directory}/{name}.pid;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 1h;
  client_body_temp_path {directory}/{name}-b; proxy_temp_path {directory}/{name}-p;
  fastcgi_temp_path {directory}/{name}-f; uwsgi_temp_path {directory}/{name}-u; scgi_temp_path {directory}/{name}-s;
  {http}
}}
"""
_UPSTREAM = """
  server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {directory}/leaf.pem; ssl_certificate_key {directory}/leaf.key;
    ssl_protocols TLSv1.3; default_type application/json;
    location / {{ if ($http_authorization != "Bearer {token}") {{ return 401; }} return 200 '{reply}'; }} }}
"""
_PROXY = """
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port}; proxy_buffering off; proxy_request_buffering off;
    location / {{ if ($http_authorization != "Bearer {bearer}") {{ return 401; }}
      proxy_pass https://up; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host upstream.test; proxy_set_header Authorization "Bearer {token}";
      proxy_ssl_verify on; proxy_ssl_trusted_certificate {directory}/root.pem;
      proxy_ssl_name upstream.test; proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3; }} }}
"""
_LUA = """
local n = 0
local body = [[{body}]]
request = function()
  n = n + 1
  return string.format("POST /mcp HTTP/1.1\\r\\nHost: 127.0.0.1:{port}\\r\\nAuthorization: Bearer {bearer}\\r\\n" ..
    "Content-Type: application/json\\r\\nAccept: application/json, text/event-stream\\r\\nUser-Agent: bench/1\\r\\n" ..
    "Mcp-Session-Id: 6d1c0ae4-0000\\r\\nMcp-Protocol-Version: 2025-11-25\\r\\ntraceparent: 00-%032x-%016x-01\\r\\n" ..
    "Content-Length: {length}\\r\\n\\r\\n%s", n, n, body)
end
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def nginx(directory: Path, name: str, http: str, port: int, cpu: int) -> Iterator[int]:
    """Run one nginx process and yield its pid."""
    config = directory / f"{name}.conf"
    config.write_text(_NGINX.format(directory=directory, name=name, http=http))
    process = subprocess.Popen(
        ["taskset", "-c", str(cpu), "nginx", "-c", str(config), "-e", str(directory / f"{name}.err")],
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.02)
        else:
            raise RuntimeError(f"nginx {name} does not listen: {(directory / f'{name}.err').read_text()}")
        yield process.pid
    finally:
        process.terminate()
        process.wait()


class Round(NamedTuple):
    """One run of the load against one target."""

    rate: float  # requests per second
    median: float  # latency, µs
    cpu: float  # µs of client, proxy and upstream together, per request


def run_time(pids: Sequence[int]) -> float:
    """Return the CPU time of all threads of `pids` so far, in µs; proc(5), schedstat."""
    files = [path for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(path.read_text().split()[0]) for path in files) / 1000


def wrk(script: Path, port: int, connections: int, cpu: int, pids: Sequence[int]) -> Round:
    """Run the load; any error answer is a failure of the run."""
    before = run_time(pids) + children_time()
    output = subprocess.run(
        [
            *("taskset", "-c", str(cpu), "wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency"),
            *("-s", str(script), f"http://127.0.0.1:{port}/mcp"),
        ],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    spent = run_time(pids) + children_time() - before
    if "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    median = re.search(r"50%\s+([\d.]+)(us|ms|s)", output)
    requests = re.search(r"(\d+) requests in", output)
    assert rate is not None
    assert median is not None
    assert requests is not None
    micros = float(median[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[median[2]]
    return Round(float(rate[1]), micros, spent / int(requests[1]))


def children_time() -> float:
    """Return the CPU time of the children that were waited for (wrk), in µs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1e6


def main() -> int:
    """Print the comparison; the exit code is 1 where the helper is below what it must reach."""
    if os.getuid() != 0:
        print("helper: needs root, since a helper runs under a UID of its own", file=sys.stderr)
        return 2
    cpus = sorted(os.sched_getaffinity(0))
    busy, other = cpus[0], cpus[-1]
    os.sched_setaffinity(0, {other})
    with tempfile.TemporaryDirectory(prefix="bench-helper-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        root = pki.make_root()
        leaf = root.issue(["upstream.test"])
        (directory / "leaf.pem").write_text(leaf.chain_pem)
        (directory / "leaf.key").write_text(leaf.key_pem)
        (directory / "root.pem").write_text(root.pem)
        upstream, proxy = free_port(), free_port()
        values = {"directory": directory, "upstream": upstream, "token": TOKEN, "bearer": BEARER, "reply": _REPLY}
        server = stack.enter_context(
            nginx(directory, "upstream", _UPSTREAM.format(port=upstream, **values), upstream, busy)
        )
        rival = stack.enter_context(nginx(directory, "proxy", _PROXY.format(port=proxy, **values), proxy, busy))
        zygote = stack.enter_context(Zygote(("taskset", "-c", str(busy))))
        tls = TlsSpec(server_name="upstream.test", anchors_pem=root.pem, store="custom", pins=[PinSpec(spki=root.pin)])
        remote = RemoteSpec(
            name="bench",
            scheme="https",
            host="upstream.test",
            port=443,
            path="/mcp",
            connect_to=f"127.0.0.1:{upstream}",
            headers=[HeaderTemplate(name="Authorization", template="Bearer ${TOKEN}")],
            tls=tls,
        )
        helper = stack.enter_context(Helper(zygote, remote))
        threading.Thread(target=_swallow, args=(helper.channel,), daemon=True).start()
        targets = {"nginx": (proxy, [server, rival]), "helper": (helper.port, [server, helper.pid])}
        return _compare(directory, targets, busy)


def _swallow(channel: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while channel.recv(1 << 20):
            pass


def _compare(directory: Path, targets: dict[str, tuple[int, list[int]]], cpu: int) -> int:
    status = 0
    print(
        f"helper against nginx: one CPU, TLS upstream, {len(_BODY)}-byte POST, {len(_REPLY)}-byte reply, "
        f"heads that vary, a fact per request, {ROUNDS} rounds"
    )
    for name, (port, _) in targets.items():
        script = _LUA.format(port=port, bearer=BEARER, length=len(_BODY), body=_BODY)
        (directory / f"{name}.lua").write_text(script)
    for connections in CONNECTIONS:
        rounds: dict[str, list[Round]] = {name: [] for name in targets}
        for turn in range(ROUNDS + 1):
            for name, (port, pids) in targets.items():
                found = wrk(directory / f"{name}.lua", port, connections, cpu, pids)
                if turn:  # the first round warms up
                    rounds[name].append(found)
        ratios = [theirs.cpu / ours.cpu for ours, theirs in zip(rounds["helper"], rounds["nginx"], strict=True)]
        ratio = statistics.median(ratios)
        for name, found_rounds in rounds.items():
            rate, median, spent = (statistics.median(column) for column in zip(*found_rounds, strict=True))
            print(
                f"  {connections:3d} connections, {name:6}: {rate:6.0f}/s, p50 {median:5.0f} µs, {spent:5.1f} µs of CPU"
            )
        print(
            f"  {connections:3d} connections, ratio : {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True
        )
        if connections == CONNECTIONS[0] and ratio < MUST:
            print(f"  below the {MUST} that the helper must reach")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
