"""SHELL: what Python does not wrap of the kernel, for all parts: raw calls, prctl(2), filters, peers. No policy.

Each raises `OSError` with the kernel's errno. What only the supervisor needs is in its own `kernel`.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import signal
import socket
import struct
from collections.abc import Callable
from typing import Final, Protocol

from codingagents.trust import process_control, syscalls

PR_SET_PDEATHSIG: Final = process_control.PR_SET_PDEATHSIG
PR_GET_DUMPABLE: Final = 3
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_GET_NAME: Final = 16
PR_GET_SECCOMP: Final = 21
PR_SET_SECCOMP: Final = 22
PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_GET_SECUREBITS: Final = 27
PR_SET_SECUREBITS: Final = 28
PR_SET_NO_NEW_PRIVS: Final = 38
PR_GET_NO_NEW_PRIVS: Final = 39

SUCCEEDED: Final = "succeeded"  # of `attempt`, where others are names of errnos
SECCOMP_MODE_FILTER: Final = 2
_SET_MODE_FILTER: Final = 1
_CAPABILITY_HEADER: Final = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
_NO_CAPABILITIES: Final = (ctypes.c_uint32 * 6)()  # two rows of effective, permitted and inheritable
UCRED: Final = struct.Struct("=iII")  # pid, uid, gid

prctl = process_control.prctl
_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


class UnixSocket(Protocol):
    """A connected unix socket, of `socket` or of trio."""

    def getsockopt(self, level: int, option: int, length: int, /) -> bytes:
        """Return the value of an option."""


@functools.cache
def machine() -> syscalls.Machine:
    """Return this machine's numbers; `NotImplementedError` on an architecture nobody has checked."""
    return syscalls.machine(platform.machine())


def syscall(number: int, *arguments: object) -> int:
    """Call the kernel and return its non-negative result, or raise `OSError`."""
    result: int = _syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def attempt(act: Callable[..., object], *arguments: object) -> str:
    """Do what may be forbidden, and return the errno's name, or "succeeded"; a descriptor that came of it is closed."""
    try:
        result = act(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    if isinstance(result, int) and result > 2:
        os.close(result)
    return SUCCEEDED


def set_parent_death_signal(number: int = signal.SIGKILL) -> None:
    """Be sent `number` when the parent's *thread* dies; a change of UID or fsuid clears it (prctl(2))."""
    prctl(PR_SET_PDEATHSIG, number)


def name_process(name: str) -> None:
    """Have ps and /proc/PID/comm show `name`, of which the kernel keeps 15 bytes (prctl(2), PR_SET_NAME)."""
    buffer = ctypes.create_string_buffer(name.encode())
    prctl(PR_SET_NAME, ctypes.addressof(buffer))


def set_no_new_privs() -> None:
    """Make set-user-ID programs and file capabilities inert, for good, here and in all descendants."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def drop_bounding_set() -> None:
    """Drop every Linux capability from the bounding set (needs CAP_SETPCAP)."""
    for capability in range(64):
        try:
            present = prctl(PR_CAPBSET_READ, capability)
        except OSError:  # EINVAL: past the kernel's last capability
            return
        if present:
            prctl(PR_CAPBSET_DROP, capability)


def drop_capabilities() -> None:
    """Drop every Linux capability of this thread: leaving UID 0 keeps the inheritable set, which engines may fill."""
    syscall(machine().number("capset"), _CAPABILITY_HEADER, _NO_CAPABILITIES)


def memfd_create(flags: int) -> int:
    """Return a new memfd, with exactly these flags (Python's own wrapper adds none, but the kernel's errno matters)."""
    return syscall(machine().number("memfd_create"), ctypes.c_char_p(b"probe"), ctypes.c_uint(flags))


def install_filter(program: bytes, flags: int = 0) -> int:
    """Put `program` (`bpf.assemble`) on this thread by seccomp(2); return its result. Needs no_new_privs."""
    fprog = _SockFprog(len(program) // 8, program)  # by address and length: the zeros in it end nothing
    return syscall(
        machine().number("seccomp"), ctypes.c_uint(_SET_MODE_FILTER), ctypes.c_uint(flags), ctypes.byref(fprog)
    )


def peer_of_unix_socket(connection: UnixSocket) -> int:
    """Return the UID at the other end (unix(7), SO_PEERCRED), as it was at its connect(2) or listen(2)."""
    return peer_process_of_unix_socket(connection)[1]


def peer_process_of_unix_socket(connection: UnixSocket) -> tuple[int, int]:
    """Return PID and UID at the other end, likewise; PID 0 where that is in another PID namespace."""
    pid, uid, _ = UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return int(pid), int(uid)
