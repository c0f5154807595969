"""SHELL: bounds on what a role takes of the machine, by setrlimit(2): put on for good, and tried. Judges nothing.

RLIMIT_NPROC counts the processes and threads of a real UID, and binds neither UID 0 nor who has CAP_SYS_RESOURCE or
CAP_SYS_ADMIN: that is why it comes after the identity is gone. The others are of each process.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
from collections.abc import Iterator
from typing import Final

from codingagents.rewrite.specs import RoleLimits
from codingagents.supervisor.attempts import in_child
from codingagents.supervisor.confine_spec import Observation
from codingagents.trust import linux

_MAP_NORESERVE: Final = 0x4000  # asm-generic/mman.h; Python has no name for it before 3.13


def lower(limits: RoleLimits) -> None:
    """Lower soft and hard limits of this process, nothing above what it had, and try nothing."""
    for name, most in _wanted(limits).items():
        if most is not None:
            _set(name, most)


def put_on(limits: RoleLimits) -> list[Observation]:
    """Lower them likewise, and return how raising and using more went."""
    controls = {"RLIMIT_NPROC": _fork(), "RLIMIT_NOFILE": _open()}
    if limits.memory is not None:
        controls["RLIMIT_AS"] = _map(limits.memory)
    seen = []
    for name, most in _wanted(limits).items():
        if most is not None:
            seen.append(_lower(name, most))
            if name in controls:
                act, outcome = _use_more(name, most)
                seen.append(Observation(layer="limits", act=act, control=controls[name], outcome=outcome))
    return seen


def _wanted(limits: RoleLimits) -> dict[str, int | None]:
    return {
        "RLIMIT_CORE": 0,  # a dump of the role's memory is of no use to it
        "RLIMIT_NPROC": limits.processes,
        "RLIMIT_AS": limits.memory,
        "RLIMIT_NOFILE": limits.open_files,
    }


def _set(name: str, most: int) -> int:
    which = getattr(resource, name)
    hard = resource.getrlimit(which)[1]
    value = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (value, value))
    return value


def _lower(name: str, most: int) -> Observation:
    which, value = getattr(resource, name), _set(name, most)
    # Not by setrlimit(), which makes a ValueError of EPERM.
    outcome = linux.attempt(resource.prlimit, 0, which, (value, value + 1))
    return Observation(layer="limits", act=f"{name} from {value} to {value + 1}", control="", outcome=outcome)


def _use_more(name: str, most: int) -> tuple[str, str]:
    """Ask for more than there is: of what is counted one by one, when there is to be none at all for the moment."""
    if name == "RLIMIT_AS":
        return f"mmap of {most} bytes", _map(most)
    with _none_left(getattr(resource, name)):
        return (
            ("fork with RLIMIT_NPROC 0", _fork()) if name == "RLIMIT_NPROC" else ("open with RLIMIT_NOFILE 0", _open())
        )


@contextlib.contextmanager
def _none_left(which: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(which)
    resource.setrlimit(which, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(which, (soft, hard))


def _fork() -> str:
    return in_child(lambda: None)


def _open() -> str:
    return linux.attempt(os.open, "/", os.O_RDONLY | os.O_CLOEXEC)


def _map(size: int) -> str:
    return linux.attempt(lambda: mmap.mmap(-1, size, mmap.MAP_PRIVATE | _MAP_NORESERVE, mmap.PROT_READ).close())
