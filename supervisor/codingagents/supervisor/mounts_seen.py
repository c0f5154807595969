"""CORE: what stands where the session's directories are to be, as /proc/self/mountinfo says it (proc(5)). Pure.

Mounts nothing and decides nothing about the session: `layers` makes a row of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One directory of the session as it was read back, after it was made."""

    path: str
    kind: Literal["ours", "engine", "plain"]  # a tmpfs of our own mount namespace, one of the engine, or no mount
    faults: tuple[str, ...] = ()  # what a tmpfs lacks, e.g. "not noexec", "mode 0755"; () where nothing
