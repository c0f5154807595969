"""CORE: where a control group for a session's tasks can be, and what is written into it. Pure: text in, paths out.

Version 1 has a hierarchy for each controller, version 2 one for all (cgroups(7)). What can be written is seen by
writing it; nothing here knows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from codingagents.rewrite.specs import TaskTotals

Controller = Literal["memory", "pids"]
# Of each version, what is written where; swap first lets nothing out once the memory is limited. Where the kernel
# counts no swap, the files in `_SWAP` are missing.
_FILES: Final[Mapping[tuple[Controller, int], tuple[str, ...]]] = {
    ("memory", 1): ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    ("memory", 2): ("memory.max", "memory.swap.max"),
    ("pids", 1): ("pids.max",),
    ("pids", 2): ("pids.max",),
}
OPTIONAL: Final = frozenset({"memory.memsw.limit_in_bytes", "memory.swap.max"})


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The directory of our own control group in the hierarchy that has a controller."""

    version: int
    directory: str
    is_root: bool  # of the control group namespace


def own_groups(text: str) -> dict[str, str]:
    """Return our path in the hierarchy of each controller, from /proc/self/cgroup; version 2 is ""."""
    groups: dict[str, str] = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon:
            groups |= dict.fromkeys(controllers.split(","), path)
    return groups


def hierarchy(controller: str, groups: Mapping[str, str], mountinfo: str) -> Hierarchy | None:
    """Return where `controller` is, from `own_groups` and /proc/self/mountinfo; None where it is nowhere to be seen.

    A controller that is bound to a hierarchy of version 1 is none of version 2.
    """
    version = 1 if controller in groups else 2
    path = groups.get(controller if version == 1 else "")
    if path is None or "/.." in path:  # above the root of the control group namespace
        return None
    for line in mountinfo.splitlines():
        fields, _, after = line.partition(" - ")
        kind, _, options = after.partition(" ")
        if kind != ("cgroup" if version == 1 else "cgroup2") or fields.count(" ") < 4:
            continue
        root, point = (_unescaped(field) for field in fields.split(" ")[3:5])
        if version == 1 and controller not in options.split(" ")[-1].split(","):
            continue
        inside = _below(root, path)
        if inside is not None:
            return Hierarchy(version, f"{point.rstrip('/')}{inside}", path == "/")
    return None


def settings(controller: Controller, version: int, totals: TaskTotals) -> list[tuple[str, str]]:
    """Return what is to be written: pairs of file name and text; none where `totals` says nothing of it."""
    limit = totals.memory if controller == "memory" else totals.processes
    if limit is None:
        return []
    return [(name, "0" if name == "memory.swap.max" else str(limit)) for name in _FILES[controller, version]]


def group_name(session: str) -> str:
    """Return the name of the control group of a session's tasks."""
    return f"coding-agents-tasks-{session}"


def _below(root: str, path: str) -> str | None:
    """Return `path` as it is below `root`, "" for the root itself; None where it is not."""
    if root == "/":
        return "" if path == "/" else path
    return path.removeprefix(root) if path == root or path.startswith(f"{root}/") else None


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)
