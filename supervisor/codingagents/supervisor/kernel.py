"""SHELL: system calls that only the supervisor makes: one function a call, each raising `OSError` with the errno.

Raw by `syscall(2)` where glibc would act on every thread (setfsuid). No policy. What helpers call too is in
`codingagents.trust.linux`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import struct
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from codingagents.trust import linux

_libc = ctypes.CDLL(None, use_errno=True)
_libc.statx.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p]

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWPID: Final = 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8  # as statvfs(3) has them too
MS_BIND = 0x1000
MS_REMOUNT, MS_BIND, MS_REC, MS_UNBINDABLE, MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x20000, 0x40000

_KEYCTL_JOIN_SESSION_KEYRING: Final = 1

_CAPABILITY_VERSION: Final = 0x20080522
CAP_SETGID: Final = 6
CAP_SETUID: Final = 7
CAP_SYS_PTRACE: Final = 19
CAP_SYS_ADMIN: Final = 21

RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
_RESOLVE_IN_ROOT: Final = 0x10
_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_STATX_BASIC_AND_MOUNT: Final = 0x17FF
_STATX_MNT_ID: Final = 0x1000
_OPEN_HOW: Final = struct.Struct("=QQQ")  # flags, mode, resolve
_HOW_SIZE: Final = ctypes.c_size_t(_OPEN_HOW.size)
# Of struct statx: mask; uid; mode, inode, size; ctime; mtime; device; mount. The rest is padding here.
_STATX: Final = struct.Struct("=I16xI4xH2xQQ48xqI4xqI4x8xIIQ104x")
assert _STATX.size == 256
# Of struct pidfd_info (linux/pidfd.h), first version: mask, cgroup, TID; PID, parent's PID, real UID; the other IDs.
_PIDFD_INFO: Final = struct.Struct("=20xIII32x")
assert _PIDFD_INFO.size == 64
_PIDFD_GET_INFO: Final = 0xC040FF0B


class Stat(msgspec.Struct, frozen=True):
    """What statx(2) says of a file; times in nanoseconds."""

    mode: int
    uid: int
    size: int
    device: int
    inode: int
    mtime: int
    ctime: int
    mount: int  # ID of the mount, as /proc/PID/mountinfo has it


def set_fs_ids(uid: int, gid: int) -> None:
    """Set this thread's filesystem UID and GID by raw calls.

    setfsuid(2) never fails visibly: what was set is read back (an invalid ID returns the current one), and a
    mismatch raises `OSError`. Any change clears the thread's parent-death signal and the process's dumpable flag.
    """
    numbers = linux.machine()
    set_uid, set_gid = numbers.number("setfsuid"), numbers.number("setfsgid")
    invalid = ctypes.c_long(-1)
    linux.syscall(set_gid, ctypes.c_long(gid))
    linux.syscall(set_uid, ctypes.c_long(uid))
    if linux.syscall(set_uid, invalid) != uid or linux.syscall(set_gid, invalid) != gid:
        raise OSError(1, "setfsuid was refused")


@contextlib.contextmanager
def filesystem_identity(uid: int, gid: int) -> Iterator[None]:
    """Be another filesystem identity in this thread for the block, and dumpable after it; see `set_fs_ids`."""
    try:
        set_fs_ids(uid, gid)
        yield
    finally:
        set_fs_ids(0, 0)
        linux.prctl(linux.PR_SET_DUMPABLE, 1)


def set_groups_of_this_thread(groups: Sequence[int]) -> None:
    """Set this thread's supplementary groups, by the raw call: glibc's setgroups(2) acts on every thread."""
    array = (ctypes.c_uint32 * len(groups))(*groups)
    linux.syscall(linux.machine().number("setgroups"), ctypes.c_size_t(len(groups)), array)


def open_path(path: bytes, resolve: int, root: int | None = None) -> int:
    """Open `path` by O_PATH with openat2(2): nothing is read or woken, whatever it is; `resolve` narrows the walk.

    With `root`, a descriptor, that directory is the root of the walk.
    """
    how = _OPEN_HOW.pack(os.O_PATH | os.O_CLOEXEC, 0, resolve | (0 if root is None else _RESOLVE_IN_ROOT))
    return linux.syscall(_openat2(), _AT_FDCWD if root is None else root, path, how, _HOW_SIZE)


@functools.cache
def _openat2() -> int:
    return linux.machine().number("openat2")


def statx(file: bytes | int) -> Stat:
    """Return what is at a path, links followed, or behind a descriptor; needs mount IDs, as Linux has from 5.8 on."""
    buffer = ctypes.create_string_buffer(_STATX.size)
    at = (_AT_FDCWD, file, 0) if isinstance(file, bytes) else (file, b"", _AT_EMPTY_PATH)
    if _libc.statx(*at, _STATX_BASIC_AND_MOUNT, buffer) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    mask, uid, mode, inode, size, ctime, ctime_ns, mtime, mtime_ns, major, minor, mount = _STATX.unpack(buffer)
    if not mask & _STATX_MNT_ID:
        raise OSError(errno.ENOSYS, "the kernel tells no mount IDs")
    times = mtime * 10**9 + mtime_ns, ctime * 10**9 + ctime_ns
    return Stat(mode, uid, size, os.makedev(major, minor), inode, *times, mount)


def process_of(thread: int) -> tuple[int, int, int]:
    """Return the PID, parent's PID and real UID of the process that `thread` is of, in our PID and user namespaces.

    By ioctl_pidfd(2) PIDFD_GET_INFO; `OSError` (ENOTTY, EINVAL …) before Linux 6.13, and where the thread is gone.
    """
    descriptor = os.pidfd_open(thread, os.O_EXCL)  # PIDFD_THREAD, of any thread and not only of a leader
    try:
        info = bytearray(_PIDFD_INFO.size)
        fcntl.ioctl(descriptor, _PIDFD_GET_INFO, info)
    finally:
        os.close(descriptor)
    pid, parent, uid = _PIDFD_INFO.unpack(info)
    return pid, parent, uid


def join_new_session_keyring() -> None:
    """Have a new and empty session keyring, here and in all children to come (keyctl(2)).

    What a login session keeps in its own, all who inherit it can read, whatever their UID. EPERM and ENOSYS are no
    errors: then neither we nor our children can use any keyring.
    """
    try:
        linux.syscall(linux.machine().number("keyctl"), ctypes.c_int(_KEYCTL_JOIN_SESSION_KEYRING), None)
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


def keep_capabilities(*kept: int) -> None:
    """Give up every Linux capability of this thread but these, which it has at most what it had of."""
    wanted = sum(1 << number for number in kept) & effective_capabilities()
    halves = (wanted & 0xFFFFFFFF, wanted & 0xFFFFFFFF, 0, wanted >> 32, wanted >> 32, 0)
    sets = (ctypes.c_uint32 * 6)(*halves)  # two rows of effective, permitted and inheritable
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)  # this process
    linux.syscall(linux.machine().number("capset"), header, sets)


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


def yama_ptrace_scope() -> str:
    """Return kernel.yama.ptrace_scope, "" where the kernel has no Yama or does not tell."""
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
