"""CORE: the classic BPF program of the exec trap, as data. No system call, no I/O.

Our own array of a dozen instructions instead of libseccomp: its Python binding can neither hand the listener to
another process nor set the wake-up flags (docs/adr/0004-raw-seccomp.md). The tests run this program in an
interpreter against one that libseccomp exports.
"""

from __future__ import annotations

import errno
import struct
from typing import Final

# linux/filter.h, linux/bpf_common.h
_LD_W_ABS: Final = 0x20
_JEQ: Final = 0x15
_JGE: Final = 0x35
_JSET: Final = 0x45
_RET: Final = 0x06

# linux/seccomp.h
RET_KILL_PROCESS: Final = 0x80000000
RET_USER_NOTIF: Final = 0x7FC00000
RET_ERRNO: Final = 0x00050000
RET_ALLOW: Final = 0x7FFF0000

_NR, _ARCH, _ARG1_LOW = 0, 4, 24  # offsets in struct seccomp_data, little-endian
_X32_BIT: Final = 0x40000000
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
    # A jump's operands are how many instructions to skip, where the comparison holds and where it does not.
    foreign = [(_LD_W_ABS, 0, 0, _ARCH), (_JEQ, 1, 0, audit_arch), (_RET, 0, 0, RET_KILL_PROCESS)]
    x32 = [(_JGE, 0, 1, _X32_BIT), (_RET, 0, 0, RET_ERRNO | errno.ENOSYS)]
    memfd = [
        (_JEQ, 0, 4, memfd_create),
        (_LD_W_ABS, 0, 0, _ARG1_LOW),
        (_JSET, 0, 1, MFD_NOEXEC_SEAL),
        (_RET, 0, 0, RET_ALLOW),
        (_RET, 0, 0, RET_ERRNO | errno.EPERM),
    ]
    execs = [(_JEQ, 1, 0, execve), (_JEQ, 0, 1, execveat), (_RET, 0, 0, RET_USER_NOTIF)]
    program = [
        *foreign,
        (_LD_W_ABS, 0, 0, _NR),
        *(x32 if has_x32 else ()),
        *(memfd if guard_memfd else ()),
        *(execs if notify else ()),
        (_RET, 0, 0, RET_ALLOW),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
