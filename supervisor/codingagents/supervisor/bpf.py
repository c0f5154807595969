"""CORE: the classic BPF program of the exec trap, as data. No system call, no I/O.

An own assembler of ten instructions instead of libseccomp: its Python binding can neither hand the listener to
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
    *, audit_arch: int, execve: int, execveat: int, memfd_create: int, has_x32: bool, notify: bool = True
) -> bytes:
    """Return the filter as an array of `struct sock_filter` (8 bytes each).

    A foreign architecture kills the process; x32 calls are ENOSYS; `memfd_create` without MFD_NOEXEC_SEAL is EPERM,
    because a memfd can be executed past Landlock; `execve` and `execveat` are notified (or allowed, without `notify`).
    """
    on_exec = RET_USER_NOTIF if notify else RET_ALLOW
    x32 = [(_JGE, 0, 1, _X32_BIT), (_RET, 0, 0, RET_ERRNO | errno.ENOSYS)] if has_x32 else []
    program = [
        (_LD_W_ABS, 0, 0, _ARCH),
        (_JEQ, 1, 0, audit_arch),
        (_RET, 0, 0, RET_KILL_PROCESS),
        (_LD_W_ABS, 0, 0, _NR),
        *x32,
        (_JEQ, 3, 0, execve),
        (_JEQ, 2, 0, execveat),
        (_JEQ, 2, 0, memfd_create),
        (_RET, 0, 0, RET_ALLOW),
        (_RET, 0, 0, on_exec),
        (_LD_W_ABS, 0, 0, _ARG1_LOW),
        (_JSET, 0, 1, MFD_NOEXEC_SEAL),
        (_RET, 0, 0, RET_ALLOW),
        (_RET, 0, 0, RET_ERRNO | errno.EPERM),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
