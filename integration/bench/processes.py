"""SHELL: starts the benchmark's processes on a CPU, and reads what they cost. Decides nothing.

Costs are of a process and all that descends from it: a proxy with workers or children is one proxy.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

PATIENCE = 20.0  # seconds; only a failing run waits that long


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    command: Sequence[str], *, log: Path, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` until the block ends; it inherits the CPU of the caller. Its output goes to `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once something accepts on `port`; `RuntimeError` with the log's end where the process ended instead."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.001)
    raise RuntimeError(f"{process.args!r} does not listen: {log.read_text()[-2000:]}")


def tree(pid: int) -> list[int]:
    """Return `pid` and all its descendants."""
    found = [pid]
    for parent in found:  # grows while it is walked
        for listing in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, listing.read_text().split())
    return found


def pin(pid: int, cpu: int) -> None:
    """Bind every thread of the tree of `pid` to `cpu`; what they start later inherits it."""
    for each in tree(pid):
        for task in os.listdir(f"/proc/{each}/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task), {cpu})


def cpu_micros(pids: Sequence[int]) -> float:
    """Return the CPU time that all threads of the trees of `pids` have had so far, µs; proc(5), schedstat."""
    files = [path for pid in pids for each in tree(pid) for path in Path(f"/proc/{each}/task").glob("*/schedstat")]
    total = 0
    for path in files:
        with contextlib.suppress(OSError):
            total += int(path.read_text().split()[0])
    return total / 1000


def children_micros() -> float:
    """Return the CPU time of our children that were waited for, µs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1e6


def uss(pid: int) -> float:
    """Return the MB that a process shares with no other."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(map(int, re.findall(r"^Private_(?:Clean|Dirty): +(\d+) kB", rollup, re.MULTILINE))) / 1000


def tree_uss(pid: int) -> float:
    """Return the MB that the tree of `pid` shares with no process; what they share among themselves is not in it."""
    total = 0.0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            total += uss(each)
    return total
