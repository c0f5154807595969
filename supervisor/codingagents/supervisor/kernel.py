"""SHELL: system calls that Python does not wrap: one function a call, each raising `OSError` with the kernel's errno.

Raw by `syscall(2)` where glibc would act on every thread (setfsuid) or has no wrapper (seccomp, Landlock). No policy.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


@dataclass(frozen=True, slots=True, kw_only=True)
class Abi:
    """Numbers of one architecture (from its `asm/unistd.h` and `linux/audit.h`)."""

    audit_arch: int
    execve: int
    execveat: int
    memfd_create: int
    seccomp: int
    setfsuid: int
    setfsgid: int
    setgroups: int
    keyctl: int
    has_x32: bool


_ABIS = {
    "x86_64": Abi(
        audit_arch=0xC000003E,
        execve=59,
        execveat=322,
        memfd_create=319,
        seccomp=317,
        setfsuid=122,
        setfsgid=123,
        setgroups=116,
        keyctl=250,
        has_x32=True,
    ),
    "aarch64": Abi(
        audit_arch=0xC00000B7,
        execve=221,
        execveat=281,
        memfd_create=279,
        seccomp=277,
        setfsuid=151,
        setfsgid=152,
        setgroups=159,
        keyctl=219,
        has_x32=False,
    ),
}
# The same on every architecture that came after 2019.
SYS_LANDLOCK_CREATE_RULESET: Final = 444
SYS_LANDLOCK_ADD_RULE: Final = 445
SYS_LANDLOCK_RESTRICT_SELF: Final = 446

PR_SET_PDEATHSIG: Final = 1
PR_GET_DUMPABLE: Final = 3
PR_SET_DUMPABLE: Final = 4
PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWIPC: Final = 0x08000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 0x4000, 0x40000

_KEYCTL_JOIN_SESSION_KEYRING: Final = 1

CAP_SETGID: Final = 6
CAP_SETUID: Final = 7
CAP_SYS_PTRACE: Final = 19
CAP_SYS_ADMIN: Final = 21


def abi() -> Abi:
    """Return this machine's numbers; `NotImplementedError` on an architecture nobody has checked."""
    machine = platform.machine()
    try:
        return _ABIS[machine]
    except KeyError:
        raise NotImplementedError(f"no system call table for {machine}") from None


def syscall(number: int, *arguments: object) -> int:
    """Call the kernel and return its non-negative result, or raise `OSError`."""
    result: int = _syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def prctl(option: int, argument: int = 0) -> int:
    """Ask the kernel to change or tell one attribute of this process (prctl(2))."""
    zero = ctypes.c_ulong(0)
    result: int = _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(argument), zero, zero, zero)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def set_parent_death_signal(number: int = signal.SIGKILL) -> None:
    """Be sent `number` when the parent thread dies; a change of UID or fsuid clears it (prctl(2))."""
    prctl(PR_SET_PDEATHSIG, number)


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


def set_fs_ids(uid: int, gid: int) -> None:
    """Set this thread's filesystem UID and GID by raw calls.

    setfsuid(2) never fails visibly: what was set is read back (an invalid ID returns the current one), and a
    mismatch raises `OSError`. Any change clears the thread's parent-death signal and the process's dumpable flag.
    """
    numbers = abi()
    invalid = ctypes.c_long(-1)
    syscall(numbers.setfsgid, ctypes.c_long(gid))
    syscall(numbers.setfsuid, ctypes.c_long(uid))
    if syscall(numbers.setfsuid, invalid) != uid or syscall(numbers.setfsgid, invalid) != gid:
        raise OSError(1, "setfsuid was refused")


@contextlib.contextmanager
def filesystem_identity(uid: int, gid: int) -> Iterator[None]:
    """Be another filesystem identity in this thread for the block, and dumpable after it; see `set_fs_ids`."""
    try:
        set_fs_ids(uid, gid)
        yield
    finally:
        set_fs_ids(0, 0)
        prctl(PR_SET_DUMPABLE, 1)


def set_groups_of_this_thread(groups: Sequence[int]) -> None:
    """Set this thread's supplementary groups, by the raw call: glibc's setgroups(2) acts on every thread."""
    array = (ctypes.c_uint32 * len(groups))(*groups)
    syscall(abi().setgroups, ctypes.c_size_t(len(groups)), array)


def memfd_create(flags: int) -> int:
    """Return a new memfd, with exactly these flags (Python's own wrapper adds none, but the kernel's errno matters)."""
    return syscall(abi().memfd_create, ctypes.c_char_p(b"probe"), ctypes.c_uint(flags))


def join_new_session_keyring() -> None:
    """Have a new and empty session keyring, here and in all children to come (keyctl(2)).

    What a login session keeps in its own, all who inherit it can read, whatever their UID. EPERM and ENOSYS are no
    errors: then neither we nor our children can use any keyring.
    """
    try:
        syscall(abi().keyctl, ctypes.c_int(_KEYCTL_JOIN_SESSION_KEYRING), None)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS):
            raise


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` name (unshare(2)): a child PID namespace, a private mount namespace …."""
    if _libc.unshare(ctypes.c_int(flags)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Mount, remount or change propagation (mount(2))."""
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() if kind else None, ctypes.c_ulong(flags), options.encode()
    )
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{os.strerror(code)}: mount on {target}")


def status_fields(pid: int | str = "self") -> dict[str, str]:
    """Return the fields of /proc/PID/status, e.g. `CapEff` as 16 hex digits."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def has_capability(capability: int) -> bool:
    """Say whether this process has the Linux capability in its effective set."""
    return bool(effective_capabilities() >> capability & 1)


def effective_capabilities() -> int:
    """Return this process's effective set of Linux capabilities, a bit for each number."""
    return int(status_fields()["CapEff"], 16)
