"""SHELL: does for a moment, in this thread alone, what only another user may: so root needs neither CHOWN nor KILL.

The kernel asks the calling thread's own credentials, so each function changes just these, by raw system calls (glibc's
change every thread's), and takes them back before it returns: nothing of it outlives the `with`, and nobody may await
in it. Real and saved UID stay 0 all the while, so no role may signal or trace us meanwhile (kill(2), ptrace(2)).
Decides nothing: whoever calls knows whose act it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator
from typing import Final

from codingagents.supervisor import kernel
from codingagents.trust import linux

_SAME: Final = ctypes.c_uint(0xFFFFFFFF)  # -1: leave it as it is
_PR_GET_PDEATHSIG: Final = 2
_NEW: Final = ".new-"


@contextlib.contextmanager
def effective_user(uid: int) -> Iterator[None]:
    """Be `uid` to whoever asks for the effective UID: what kill(2) does, besides the real one, which stays ours.

    Raises `OSError` with EPERM where we lack CAP_SETUID. A change of the effective UID clears the dumpable flag and
    this thread's parent-death signal (prctl(2)): both are what they were afterwards.
    """
    dumpable = linux.prctl(linux.PR_GET_DUMPABLE)
    death_signal, parent = _death_signal(), os.getppid()
    _set_effective(uid)
    try:
        yield
    finally:
        _set_effective(0)
        # 2 (fs.suid_dumpable, while another thread is somebody else) cannot be set; that thread sets 1 at its end.
        linux.prctl(linux.PR_SET_DUMPABLE, int(dumpable == 1))
        if death_signal:
            linux.set_parent_death_signal(death_signal)
            if os.getppid() != parent:  # it ended in between, and nothing told us
                os.kill(os.getpid(), death_signal)


@contextlib.contextmanager
def member_of(gid: int) -> Iterator[None]:
    """Have `gid` among our groups: a file of ours may then be given to it (chown(2)) without CAP_CHOWN."""
    groups = os.getgroups()
    if gid in {os.getegid(), *groups}:
        yield
        return
    kernel.set_groups_of_this_thread([*groups, gid])
    try:
        yield
    finally:
        kernel.set_groups_of_this_thread(groups)


def make_directory_of(uid: int, gid: int, path: str) -> None:
    """Make the directory `path`, mode 0700, that belongs to `uid` and `gid`, in a directory that only root may write.

    Its maker owns it, so it is made by `uid`, behind a door that nobody else can reach, and moved to its place. Until
    it is there its group is root's, for a move needs leave to write to what is moved; nobody else has any meanwhile.
    """
    parent, name = os.path.split(path)
    outer = f"{parent}/{_NEW}{name}"
    os.mkdir(outer, 0o700)
    try:
        os.mkdir(f"{outer}/door")
        door = os.open(f"{outer}/door", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fchmod(door, 0o777)  # behind `outer`, which is root's alone
            with kernel.filesystem_identity(uid, 0):
                os.mkdir(name, 0o700, dir_fd=door)
                os.chmod(name, 0o770, dir_fd=door)  # noqa: S103 -- the group is root's own
            os.rename(name, path, src_dir_fd=door)
        finally:
            os.close(door)
        with kernel.filesystem_identity(uid, gid):
            os.chown(path, -1, gid)
            os.chmod(path, 0o700)
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(f"{outer}/door")
        os.rmdir(outer)


def empty_as(uid: int, gid: int, path: str) -> None:
    """Remove as much of what the directory `path` holds as `uid` may, also what it closed to itself.

    Root without CAP_DAC_OVERRIDE may not enter what its owner made private; the owner may.
    """
    with kernel.filesystem_identity(uid, gid):
        shutil.rmtree(path, ignore_errors=True)
        if os.path.lexists(path):
            with contextlib.suppress(PermissionError):  # it is root's, and only some of it theirs
                os.chmod(path, 0o700)
            for directory, names, _ in os.walk(path):
                for name in names:
                    below = f"{directory}/{name}"
                    with contextlib.suppress(PermissionError):
                        if not os.path.islink(below):
                            os.chmod(below, 0o700)
            shutil.rmtree(path, ignore_errors=True)


def _set_effective(uid: int) -> None:
    linux.syscall(linux.machine().number("setresuid"), _SAME, ctypes.c_uint(uid), _SAME)


def _death_signal() -> int:
    number = ctypes.c_int()
    linux.prctl(_PR_GET_PDEATHSIG, ctypes.addressof(number))
    return number.value
