"""CORE: what stands where the session's directories are to be, as /proc/self/mountinfo says it (proc(5)). Pure.

Also says what should stand there. Mounts nothing and decides nothing about the session: `layers` makes a row of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from codingagents.rewrite import places

MAX_MOUNTINFO: Final = 16 * 1024 * 1024  # bytes; the kernel allows 100,000 mounts (fs.mount-max)
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One directory of the session, and the tmpfs that it is to be. Its size is a ceiling, not a reservation."""

    path: str
    mode: int
    megabytes: int
    executable: bool = False

    @property
    def options(self) -> str:
        """The options of tmpfs itself, as mount(2) takes them."""
        return f"mode={self.mode:04o},size={self.megabytes}m"

    @property
    def engine_options(self) -> str:
        """What follows PATH: in an engine's `--tmpfs`."""
        return f"nosuid,nodev,{'exec' if self.executable else 'noexec'},{self.options}"


# Executable only where stubs will live, and where the task shells and the tasks' home are. In the first is the agent's
# home, too: Copilot CLI unpacks 235 MB there when it starts.
WANTED: Final = (
    Wanted(path=places.RUN_ROOT, mode=0o755, megabytes=1024, executable=True),
    Wanted(path=places.RUN_SECRETS, mode=0o700, megabytes=16),
    Wanted(path=places.RUN_RUNNER, mode=0o755, megabytes=1),
    Wanted(path=places.RUN_TASKS, mode=0o755, megabytes=1024, executable=True),
    Wanted(path=places.RUN_DATA, mode=0o700, megabytes=256),
    Wanted(path=places.RUN_EXPORT, mode=0o700, megabytes=256),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One directory of the session as it was read back, after it was made."""

    path: str
    kind: Literal["ours", "engine", "plain"]  # a tmpfs of our own mount namespace, one of the engine, or no mount
    faults: tuple[str, ...] = ()  # what a tmpfs lacks, e.g. "not noexec", "mode 0755"; () where nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of mountinfo."""

    id: int
    parent: int
    target: bytes
    options: frozenset[bytes]  # of the mount
    propagation: frozenset[bytes]  # `shared`, `master`, `propagate_from`, `unbindable`: the optional fields' names
    kind: bytes  # of the file system, e.g. b"tmpfs"
    super_options: frozenset[bytes]  # of the file system


def parse_mountinfo(data: bytes) -> tuple[Mount, ...]:
    """Return the mounts in the kernel's order; `ValueError` for more than MAX_MOUNTINFO bytes, or what is no line."""
    if len(data) > MAX_MOUNTINFO:
        raise ValueError(f"more than {MAX_MOUNTINFO} bytes of mounts")
    return tuple(map(_mount, data.removesuffix(b"\n").split(b"\n"))) if data else ()  # a name may hold a bare CR


def _mount(line: bytes) -> Mount:
    before, dash, after = line.partition(b" - ")
    fields, rest = before.split(b" "), after.split(b" ")
    if not dash or len(fields) < 6 or len(rest) < 3 or not (fields[0].isdigit() and fields[1].isdigit()):
        raise ValueError("a line of mountinfo is not as proc(5) has it")
    return Mount(
        id=int(fields[0]),
        parent=int(fields[1]),
        target=_OCTAL.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), fields[4]),
        options=frozenset(fields[5].split(b",")),
        propagation=frozenset(field.partition(b":")[0] for field in fields[6:]),
        kind=rest[0],
        super_options=frozenset(rest[-1].split(b",")),
    )


def mount_at(mounts: Sequence[Mount], path: str) -> Mount | None:
    """Return the mount that is seen at exactly `path`, absolute and without links; None where `path` is no mount point.

    As the kernel walks: into the first mount on the way, and from there on only into what is mounted on that one. A
    later mount so hides earlier ones, at its own place and below it.
    """
    wanted = path.encode(errors="surrogateescape")
    known = {mount.id for mount in mounts}
    on_the_way = [mount for mount in mounts if _is_at_or_above(mount.target, wanted)]
    here: Mount | None = None
    while True:
        upon = [
            mount
            for mount in on_the_way
            if mount is not here and (mount.parent == here.id if here is not None else mount.parent not in known)
        ]
        if not upon:
            return here if here is not None and here.target == wanted else None
        here = min(upon, key=lambda mount: len(mount.target))
        on_the_way.remove(here)  # whatever the lines say, this ends


def _is_at_or_above(target: bytes, path: bytes) -> bool:
    return target == path or path.startswith(target.rstrip(b"/") + b"/")


def place_of(wanted: Wanted, mount: Mount | None, *, ours: bool, owner: int, mode: int) -> Place:
    """Return how `wanted` came out: `mount` is what is seen there, `owner` and `mode` are the directory's."""
    if mount is None:
        return Place(path=wanted.path, kind="plain")
    faults = []
    if mount.kind != b"tmpfs":
        faults.append(f"{mount.kind.decode(errors='backslashreplace')} instead of tmpfs")
    options = ("nosuid", "nodev") if wanted.executable else ("nosuid", "nodev", "noexec")
    faults += [f"not {option}" for option in options if option.encode() not in mount.options]
    if owner != 0:
        faults.append(f"owner {owner}")
    if mode != wanted.mode:
        faults.append(f"mode {mode:04o} instead of {wanted.mode:04o}")
    if b"shared" in mount.propagation:
        faults.append("shared")
    if ours and b"unbindable" not in mount.propagation:  # no engine gives that; where it would matter, we mount
        faults.append("not unbindable")
    return Place(path=wanted.path, kind="ours" if ours else "engine", faults=tuple(faults))
