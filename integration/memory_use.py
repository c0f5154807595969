"""What the kernel says of another process: its own memory, its descriptors."""

from __future__ import annotations

import os


def private_bytes(pid: int) -> int:
    """Return the bytes that no other process shares (USS)."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
        lines = dict(line.split(":", 1) for line in rollup if ":" in line and "kB" in line)
    return 1024 * sum(int(lines[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))


def descriptors(pid: int) -> int:
    """Return how many files it has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
