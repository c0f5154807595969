"""SHELL: numeric identities for a session on this machine: a run of UIDs that no account and no process has.

`choose_base` is pure: what is taken and the randomness are arguments. `ids_of_processes` and `has_account` look. No
account is ever created. Two launchers that start at the same instant are kept apart by the random start, not by a lock.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Iterable
from pathlib import Path

from codingagents.rewrite.specs import UidPlan
from codingagents.trust.errors import ProcessError, UsageError

# Above Debian's ordinary accounts, below systemd's dynamic users (61184) and all usual subordinate ranges (100000).
FIRST_BASE = 52000
END_BASE = 59990
_END_ID = 60000


def choose_base(width: int, *, start: int, taken: Callable[[int], bool]) -> int:
    """Return a base such that none of `width` IDs from it on is `taken`.

    The search begins at a place given by `start` (any non-negative number, random in use) and wraps around; the same
    arguments give the same base. Raises `ProcessError` where there is no such run.
    """
    span = max(0, min(END_BASE, _END_ID - width + 1) - FIRST_BASE)
    for step in range(span):
        base = FIRST_BASE + (start + step) % span
        if not any(taken(number) for number in range(base, base + width)):
            return base
    raise ProcessError(
        f"no {width} free user IDs in a row from {FIRST_BASE} to {_END_ID - 1}; name a free range with --uid-base"
    )


def check_free(numbers: Iterable[int], *, taken: Callable[[int], bool]) -> None:
    """Raise `UsageError` that names the first of `numbers` that is taken; for a base that a person chose."""
    for number in numbers:
        if taken(number):
            raise UsageError(f"--uid-base: ID {number} belongs to an account or a process; choose another base")


def ids_of(plan: UidPlan) -> list[int]:
    """Return every UID and GID of `plan`, in order; `rewrite.plan.uid_plan` counts them up without a gap."""
    return sorted({plan.agent, plan.task, plan.workspace_gid, *plan.servers.values()})


def has_account(number: int) -> bool:
    """Return whether the machine knows a user or a group of that ID, by whatever name service it is set up with."""
    try:
        pwd.getpwuid(number)
    except KeyError:
        pass
    else:
        return True
    try:
        grp.getgrgid(number)
    except KeyError:
        return False
    return True


def ids_of_processes(proc: Path = Path("/proc")) -> frozenset[int]:
    """Return every UID and GID, supplementary groups included, that a process has now (proc(5))."""
    found: set[int] = set()
    for name in os.listdir(proc):
        if not name.isdecimal():
            continue
        try:
            status = (proc / name / "status").read_bytes()
        except OSError:
            continue  # it ended while we looked
        found.update(parse_status_ids(status.splitlines()))
    return frozenset(found)


def parse_status_ids(lines: Iterable[bytes]) -> set[int]:
    """Return the numbers in the `Uid:`, `Gid:` and `Groups:` lines of a /proc/PID/status."""
    return {
        int(field) for line in lines if line.startswith((b"Uid:", b"Gid:", b"Groups:")) for field in line.split()[1:]
    }
