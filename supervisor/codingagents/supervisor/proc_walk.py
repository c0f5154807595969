"""SHELL: finds processes in /proc, by ancestor or by user, and holds each by a pidfd. Nothing heavy to import.

Only reads: what is done to the processes is `processes`' business. A walk is no snapshot: what is made meanwhile can be
missed, so whoever must find all walks again, until a walk finds nothing.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # see signals.py
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_CAP_KILL = 5  # linux/capability.h


def descendants() -> Iterator[int]:
    """Yield a pidfd, the caller's to close, for each process below this one."""
    return (pidfd for _, pidfd in below())


def below(spared: Collection[int] = ()) -> Iterator[tuple[int, int]]:
    """Yield PID and pidfd, the caller's to close, of each process below this one, without `spared` and what is below.

    The parent is read again once the pidfd is open: if it is still the same, the descriptor holds the process that
    the walk found and not a later one of its number.
    """
    children: dict[int, list[int]] = {}
    for pid in _pids():
        parent = _parent_of(pid)
        if parent is not None:
            children.setdefault(parent, []).append(pid)
    pending = [(os.getpid(), pid) for pid in children.get(os.getpid(), []) if pid not in spared]
    while pending:
        parent, pid = pending.pop()
        pending += [(pid, child) for child in children.get(pid, []) if child not in spared]
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        if _parent_of(pid) == parent:
            yield pid, pidfd
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


def descendants_of_users(uids: Collection[int]) -> Iterator[int]:
    """Yield those of `descendants` whose real UID is one of `uids`, zombies left out."""
    for pidfd in descendants():
        if _real_uid(pid_of(pidfd)) in uids:
            yield pidfd
        else:
            os.close(pidfd)


def user_of(pidfd: int) -> int | None:
    """Return the real UID of the process that a pidfd holds, or None where it is gone."""
    try:
        pid = pid_of(pidfd)
    except FileNotFoundError:
        return None
    fields = None if pid < 0 else _status(pid)
    return None if fields is None else int(fields[b"Uid"].split()[0])


def pid_of(pidfd: int) -> int:
    """Return the PID, in our namespace, of the process that a pidfd holds; -1 once it is reaped."""
    with open(f"/proc/self/fdinfo/{pidfd}", "rb") as file:
        return int(file.read().partition(b"\nPid:\t")[2].split()[0])


def may_signal_all() -> bool:
    """Say whether we have CAP_KILL."""
    with open("/proc/self/status", "rb") as file:
        effective = int(file.read().partition(b"\nCapEff:\t")[2].split()[0], 16)
    return bool(effective >> _CAP_KILL & 1)


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
    """Return the real UID of a process, or None where it is gone or a zombie.

    A process whose main thread ended while others run on has that thread's state, too: only its threads tell.
    """
    fields = _status(pid)
    if fields is None or (fields[b"State"].startswith(b"Z") and int(fields[b"Threads"]) <= 1):
        return None
    return int(fields[b"Uid"].split()[0])


def _status(pid: int) -> dict[bytes, bytes] | None:
    """Return the fields of /proc/PID/status, or None where the process is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return dict(line.split(b":\t", 1) for line in file.read().splitlines() if b":\t" in line)
    except (FileNotFoundError, ProcessLookupError):
        return None
