"""SHELL: how much memory processes have, as the kernel tells root. Decides nothing.

Reading waits for a process's own lock on its memory, so whoever must not wait calls it in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable

from codingagents.supervisor.helper_listing import Memory


def of_processes(pids: Iterable[int], taken_at: str) -> dict[int, Memory]:
    """Return the memory of each process that is still there; `taken_at` is the time as the answer shall say it."""
    found = {}
    for pid in pids:
        memory = _of(pid, taken_at)
        if memory is not None:
            found[pid] = memory
    return found


def _of(pid: int, taken_at: str) -> Memory | None:
    """Return smaps_rollup's figures, or the one of /proc/PID/status where ptrace(2) rights are missing (Docker)."""
    uss: int | None
    pss: int | None
    try:
        fields = _kilobytes(f"/proc/{pid}/smaps_rollup")
        uss, pss = fields["Private_Clean"] + fields["Private_Dirty"], fields["Pss"]
    except (PermissionError, KeyError):
        uss = pss = None
    except OSError:
        return None
    try:
        rss = _kilobytes(f"/proc/{pid}/status")["VmRSS"]
    except (OSError, KeyError):  # a zombie has none
        return None
    return Memory(uss_bytes=uss, pss_bytes=pss, rss_bytes=rss, taken_at=taken_at)


def _kilobytes(path: str) -> dict[str, int]:
    """Return the `Name: N kB` lines of a file, in bytes; see proc(5)."""
    with open(path, encoding="ascii", errors="replace") as file:
        words = [line.split() for line in file]
    return {name.rstrip(":"): 1024 * int(rest[0]) for name, *rest in words if rest[1:] == ["kB"]}
