"""SHELL: finds processes in /proc, by ancestor or by user, and holds each by a pidfd. Nothing heavy to import.

Only reads: what is done to the processes is `processes`' business. A walk is no snapshot: what is made meanwhile can be
missed, so whoever must find all walks again, until a walk finds nothing.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # see signals.py
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


def descendants() -> Iterator[int]:
    """Yield a pidfd, the caller's to close, for each process below this one.

    The parent is read again once the pidfd is open: if it is still the same, the descriptor holds the process that
    the walk found and not a later one of its number.
    """
    children: dict[int, list[int]] = {}
    for pid in _pids():
        parent = _parent_of(pid)
        if parent is not None:
            children.setdefault(parent, []).append(pid)
    pending = [(os.getpid(), pid) for pid in children.get(os.getpid(), [])]
    while pending:
        parent, pid = pending.pop()
        pending += [(pid, child) for child in children.get(pid, [])]
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        if _parent_of(pid) == parent:
            yield pidfd
        else:
            os.close(pidfd)


def of_users(uids: Collection[int]) -> Iterator[int]:
    """Yield a pidfd, the caller's to close, for each process whose real UID is one of `uids`; zombies are none.

    The UID is read again once the pidfd is open, as `descendants` does it with the parent.
    """
    for pid in _pids():
        if _real_uid(pid) not in uids:
            continue
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        if _real_uid(pid) in uids:
            yield pidfd
        else:
            os.close(pidfd)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _parent_of(pid: int) -> int | None:
    """Return the parent's pid from /proc/PID/stat, or None where the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            after_name = file.read().rpartition(b")")[2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(after_name.split()[1])


def _real_uid(pid: int) -> int | None:
    """Return the real UID from /proc/PID/status, or None where the process is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            fields = dict(line.split(b":\t", 1) for line in file.read().splitlines() if b":\t" in line)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[b"State"].startswith(b"Z") else int(fields[b"Uid"].split()[0])
