"""SHELL: how soon a proxy that is started answers 200, and what it weighs, idle and under load."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time

from bench import targets, wrk
from bench.layout import Layout
from bench.processes import tree_uss
from bench.results import Figure, Part, Plan, Table
from bench.streams import connect
from bench.targets import Starter, Target

_BODY = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}'
_CONNECTIONS = 16


def _first_answer(target: Target) -> None:
    lines = ["POST /mcp HTTP/1.1", f"Host: 127.0.0.1:{target.port}", f"Authorization: Bearer {target.bearer}"]
    lines += ["Content-Type: application/json", "Accept: application/json, text/event-stream"]
    head = "\r\n".join([*lines, f"Content-Length: {len(_BODY)}", "", ""]).encode()
    with connect(target) as client:
        client.sendall(head + _BODY)
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200"), answer


def _one(start: Starter, layout: Layout, plan: Plan) -> tuple[float, float, float]:
    """Return (ms to the first 200, USS idle, USS under load)."""
    begun = time.monotonic()
    with start(layout.upstream) as target:
        _first_answer(target)
        took = (time.monotonic() - begun) * 1000
        idle = tree_uss(target.pid)
        load = wrk.command(layout.upstream.directory, target, _CONNECTIONS, 2 * plan.seconds)
        with subprocess.Popen(load, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            seen = [idle]
            while process.poll() is None:
                with contextlib.suppress(OSError):
                    seen.append(tree_uss(target.pid))
                time.sleep(plan.seconds / 10)
        return took, idle, max(seen)


def measure(plan: Plan, layout: Layout) -> Part:
    """Return start-up time and memory of each target; one after the other, since each is started anew."""
    os.sched_setaffinity(0, {layout.busy, layout.other})
    rounds = 1 if plan.quick else 3
    rows = []
    for name in layout.targets:
        if name == "direct":
            continue
        took, idle, loaded = zip(*[_one(targets.ALL[name], layout, plan) for _ in range(rounds)], strict=True)
        rows.append([name, Figure.of(took).text(0), f"{Figure.of(idle).median:.1f}", f"{Figure.of(loaded).median:.1f}"])
    how = (
        "From before the exec to the first 200 through the proxy (the helper: with its zygote, which a session starts "
        f"once), and the USS of its process tree after that and at most under {_CONNECTIONS} connections of load; "
        f"{rounds} rounds."
    )
    return Part(
        "Start and memory", how, [Table(["start", "first 200, ms", "USS idle, MB", "USS under load, MB"], rows)], []
    )
