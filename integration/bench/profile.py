"""SHELL: where a proxy's CPU time goes: perf's samples under the load of requests, by the library they fell in."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bench import wrk
from bench.layout import Layout
from bench.results import Part, Plan, Table

_CONNECTIONS = 16
_PROFILED = ("nginx", "helper")
_KINDS = {
    "the program itself": re.compile(r"^nginx|__mypyc\."),
    "kernel": re.compile(r"\[kernel|\[vdso"),
    "TLS library": re.compile(r"libssl|libcrypto|^_ssl"),
    "event loop (uvloop)": re.compile(r"^loop\."),
    "interpreter, with libc and msgspec": re.compile(r"^python|^libc\.|^libm\.|^_core|\.cpython-"),
}
_LINE = re.compile(r"^ *([\d.]+)% +(\S.*?) *$", re.MULTILINE)


def shares(report: str) -> dict[str, float]:
    """Return {kind: percent} of what `perf report --sort dso` printed; what is of no kind is "other"."""
    found = dict.fromkeys([*_KINDS, "other"], 0.0)
    for percent, library in _LINE.findall(report):
        found[next((kind for kind, pattern in _KINDS.items() if pattern.search(library)), "other")] += float(percent)
    return found


def measure(plan: Plan, layout: Layout) -> Part:
    """Return µs per request of each kind; no table where there is no perf."""
    layout.all_on_one()
    rows: list[list[str]] = []
    if (perf := shutil.which("perf")) is not None:
        for name in _PROFILED:
            if name in layout.targets:
                own, found = _profiled(perf, name, layout, plan.seconds)
                rows.append([name, f"{own:.1f}", *(f"{own * found[kind] / 100:.1f}" for kind in [*_KINDS, "other"])])
    how = (
        f"perf's cpu-clock samples of the proxy under {_CONNECTIONS} connections, as µs of a request."
        if rows
        else ("There is no perf on this machine, so no profile was taken.")
    )
    columns = ["profile", "CPU µs/req", *_KINDS, "other"]
    return Part("Where the time goes", how, [Table(columns, rows)] if rows else [], [])


def _profiled(perf: str, name: str, layout: Layout, seconds: float) -> tuple[float, dict[str, float]]:
    """Return (CPU µs of a request, shares)."""
    target = layout.targets[name]
    data = layout.upstream.directory / f"{name}.perf"
    record = [perf, "record", "-q", "-e", "cpu-clock", "-F", "2000", "-o", str(data), "-p", str(target.pid)]
    with subprocess.Popen(record, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(0.3)  # until it samples; what it misses costs nothing but samples
        load = wrk.run(layout.upstream, target, _CONNECTIONS, 2 * seconds, layout.busy)
        process.terminate()
    return load.own, shares(_report(perf, data))


def _report(perf: str, data: Path) -> str:
    command: Sequence[str] = [perf, "report", "-i", str(data), "--stdio", "--sort", "dso"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
