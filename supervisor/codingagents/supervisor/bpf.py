"""CORE: the filter of the exec trap, as data. No system call, no I/O.

Our own array of a dozen instructions instead of libseccomp: its Python binding can neither hand the listener to
another process nor set the wake-up flags (docs/adr/0004-raw-seccomp.md). The tests run this program in an
interpreter against one that libseccomp exports.
"""

from __future__ import annotations

import errno
from typing import Final

from codingagents.trust.bpf import (
    ALLOW,
    USER_NOTIF,
    assemble,
    errno_action,
    give,
    if_argument_has,
    on_call,
    prologue,
)

MFD_NOEXEC_SEAL: Final = 0x8


def exec_trap_program(
    *,
    audit_arch: int,
    execve: int,
    execveat: int,
    memfd_create: int,
    has_x32: bool,
    notify: bool = True,
    guard_memfd: bool = True,
) -> bytes:
    """Return the filter as an array of `struct sock_filter` (8 bytes each).

    A foreign architecture kills the process, and x32 calls are ENOSYS. With `notify`, `execve` and `execveat` wait for
    the supervisor. With `guard_memfd`, `memfd_create` without MFD_NOEXEC_SEAL is EPERM, because a memfd can be executed
    past Landlock. All else is allowed.
    """
    sealed = if_argument_has(1, MFD_NOEXEC_SEAL, give(ALLOW), give(errno_action(errno.EPERM)))
    return assemble(
        prologue(audit_arch, errno_action(errno.ENOSYS) if has_x32 else None),
        on_call(memfd_create, sealed) if guard_memfd else [],
        *([on_call(number, give(USER_NOTIF)) for number in (execve, execveat)] if notify else []),
        give(ALLOW),
    )
