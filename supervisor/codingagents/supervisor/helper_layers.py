"""SHELL: looks at a helper from outside and puts that beside what the helper says it tried. Judges nothing itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

import msgspec

from codingagents.supervisor import kernel
from codingagents.supervisor.helper_rows import Seen, observed_rows
from codingagents.trust.events import Layer
from codingagents.trust.facts import Ready


def report(ready: Ready, pid: int, uid: int) -> list[Layer]:
    """Return the rows of one helper's `LayerReport`: its own, marked self-reported whatever they say, then ours.

    Call it while the helper cannot have been reaped: `pid` must still be its.
    """
    told = [msgspec.structs.replace(row, observed_by="self-reported") for row in ready.layers]
    return told + observed_layers(pid, uid, ready.open_fds)


def observed_layers(pid: int, uid: int, reported_descriptors: Sequence[str]) -> list[Layer]:
    """Return what the kernel shows of the helper; empty where it has ended."""
    try:
        return observed_rows(_look(pid), uid, reported_descriptors)
    except (FileNotFoundError, ProcessLookupError):
        return []


def _look(pid: int) -> Seen:
    return Seen(
        status=kernel.status_fields(pid),
        limits=_limits(pid),
        memory_owner=os.stat(f"/proc/{pid}/mem").st_uid,
        descriptors=_descriptors(pid),
    )


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
