"""SHELL: file handles (name_to_handle_at(2), open_by_handle_at(2)): the way back to an inode, wherever its path leads.

A handle names one inode of one file system for as long as that inode lives, and never the next that gets its number.
Opening by handle asks for CAP_DAC_READ_SEARCH in the first user namespace. Decides nothing.
"""

from __future__ import annotations

import ctypes
import os
from typing import NamedTuple

_AT_EMPTY_PATH = 0x1000
_MAX_HANDLE = 128  # MAX_HANDLE_SZ
_libc = ctypes.CDLL(None, use_errno=True)


class Handle(NamedTuple):
    """What the file system calls an inode; bytes that only it understands."""

    kind: int
    data: bytes


class _FileHandle(ctypes.Structure):
    _fields_ = (("size", ctypes.c_uint), ("kind", ctypes.c_int), ("data", ctypes.c_ubyte * _MAX_HANDLE))


def handle_of(descriptor: int) -> tuple[Handle, int]:
    """Return the handle of the inode that is open as `descriptor`, and the ID of the mount. Raises `OSError`."""
    found, mount = _FileHandle(_MAX_HANDLE), ctypes.c_int()
    _called(
        _libc.name_to_handle_at(descriptor, b"", ctypes.byref(found), ctypes.byref(mount), ctypes.c_int(_AT_EMPTY_PATH))
    )
    return Handle(found.kind, bytes(found.data[: found.size])), mount.value


def open_by_handle(handle: Handle, mount: int, flags: int) -> int:
    """Return a descriptor of that inode of the file system that `mount`, any open file of it, lies on.

    Raises `OSError`; ESTALE where the inode is gone.
    """
    wanted = _FileHandle(len(handle.data), handle.kind)
    ctypes.memmove(wanted.data, handle.data, min(len(handle.data), _MAX_HANDLE))
    return _called(_libc.open_by_handle_at(mount, ctypes.byref(wanted), ctypes.c_int(flags | os.O_CLOEXEC)))


def _called(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer
