"""SHELL: looks at a helper from outside, in /proc. Judges nothing: see `helper_rows`."""

from __future__ import annotations

import contextlib
import os
from typing import Final

from codingagents.supervisor import kernel
from codingagents.supervisor.helper_rows import Seen

_ENDED: Final = frozenset("ZX")  # first letters of a state in /proc/PID/status


def look(pid: int) -> Seen | None:
    """Return what the kernel shows of a helper; None where it has ended, or this supervisor may not see it.

    Call it while the helper cannot have been reaped: `pid` must still be its.
    """
    try:
        limits, owner, descriptors = _limits(pid), os.stat(f"/proc/{pid}/mem").st_uid, _descriptors(pid)
        status = kernel.status_fields(pid)  # last: one that ends meanwhile has nothing open, and is nothing's proof
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    if status.get("State", "")[:1] in _ENDED:
        return None
    return Seen(status=status, limits=limits, memory_owner=owner, descriptors=descriptors)


def _limits(pid: int) -> dict[str, str]:
    """Return the soft limits; the file has columns of fixed width: name, soft, hard, unit."""
    with open(f"/proc/{pid}/limits", encoding="ascii") as file:
        return {line[:26].strip(): line[26:47].strip() for line in file.read().splitlines()[1:]}


def _descriptors(pid: int) -> list[str] | None:
    """Return the open descriptors as `facts.Ready` has them, or None where this supervisor may not see them."""
    found = {}
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    except PermissionError:  # not dumpable, and no CAP_SYS_PTRACE
        return None
    return [f"{number} {found[number]}" for number in sorted(found)]
