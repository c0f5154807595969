"""CORE: what a container's engine has mounted below /proc, and must be there again on a new one. Pure; mounts nothing.

Engines make parts of /proc read-only, by mounting them upon themselves, and hide others under /dev/null or an empty
tmpfs. A procfs that is mounted anew shows all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from codingagents.supervisor.mounts_seen import mount_at, parse_mountinfo

MS_RDONLY: Final = 1
_PROC: Final = b"/proc/"
# They hide nothing, and stand where procfs itself has an empty directory.
_ADDED: Final = frozenset({b"autofs", b"binfmt_misc"})


@dataclass(frozen=True, slots=True)
class Repeated:
    """One mount: of procfs itself, to be made read-only perhaps, or of something else that covers what is there."""

    target: bytes
    of_proc: bool
    read_only: int  # MS_RDONLY, or 0


def repeated(mountinfo: bytes) -> tuple[Repeated, ...]:
    """Return what is to be seen below /proc again, outer ones first; `ValueError` as `parse_mountinfo` has it."""
    mounts = parse_mountinfo(mountinfo)
    seen = [
        mount
        for mount in mounts
        if mount.target.startswith(_PROC)
        and mount.kind not in _ADDED
        and mount_at(mounts, mount.target.decode(errors="surrogateescape")) is mount
    ]
    return tuple(
        Repeated(mount.target, mount.kind == b"proc", MS_RDONLY if b"ro" in mount.options else 0)
        for mount in sorted(seen, key=lambda mount: len(mount.target))
    )
