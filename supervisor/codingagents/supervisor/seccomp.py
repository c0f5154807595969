"""SHELL: installs a filter and speaks the user-notification protocol by raw seccomp(2) and ioctl(2).

Layouts and numbers: linux/seccomp.h; seccomp_unotify(2). No decision is made here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import struct
from typing import Final

import msgspec

from codingagents.trust import linux

_NEW_LISTENER: Final = 8
_WAIT_KILLABLE_RECV: Final = 32
_RECV: Final = 0xC0502100
_SEND: Final = 0xC0182101
_ID_VALID: Final = 0x40082102
_SET_FLAGS: Final = 0x40082104
_SYNC_WAKE_UP: Final = 1
_CONTINUE: Final = 1

_NOTIFICATION = struct.Struct("<QIIiIQ6Q")  # id, pid, flags, nr, arch, instruction pointer, six arguments
_RESPONSE = struct.Struct("<QqiI")  # id, val, error, flags
_ID = struct.Struct("<Q")
assert _NOTIFICATION.size == 80
assert _RESPONSE.size == 24


class Notification(msgspec.Struct, frozen=True):
    """One trapped call; `pid` is the thread's ID in the listener's PID namespace."""

    id: int
    pid: int
    nr: int
    args: tuple[int, ...]


def install(program: bytes, *, listener: bool = True) -> tuple[int, bool]:
    """Install `program` on this thread and return (listener or -1, whether it waits killably).

    Needs no_new_privs. EBUSY means another listener is already in the filter chain (an engine profile with
    SCMP_ACT_NOTIFY, or a sandbox that traps too): the kernel allows one.
    WAIT_KILLABLE_RECV (Linux 5.19) is EINVAL before; the filter is then installed without.
    """
    if not listener:
        linux.install_filter(program)
        return -1, False
    try:
        return linux.install_filter(program, _NEW_LISTENER | _WAIT_KILLABLE_RECV), True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return linux.install_filter(program, _NEW_LISTENER), False


def prefer_synchronous_wake_up(listener: int) -> bool:
    """Ask the kernel to switch straight to the supervisor and back (Linux 6.6); False where it cannot."""
    try:
        fcntl.ioctl(listener, _SET_FLAGS, _SYNC_WAKE_UP)
    except OSError:
        return False
    return True


def receive(listener: int) -> Notification | None:
    """Block for the next notification; None when its target died meanwhile (ENOENT).

    It blocks again if the target dies between a poll and this call: never call it on an event loop.
    """
    buffer = bytearray(_NOTIFICATION.size)  # must be zeroed: the kernel answers EINVAL otherwise
    try:
        fcntl.ioctl(listener, _RECV, buffer)
    except FileNotFoundError:
        return None
    ident, pid, _flags, nr, _arch, _ip, *args = _NOTIFICATION.unpack(buffer)
    return Notification(ident, pid, nr, tuple(args))


def is_alive(listener: int, notification: Notification) -> bool:
    """Say whether the target still waits for this answer: what was read of `pid` before is then really its."""
    try:
        fcntl.ioctl(listener, _ID_VALID, _ID.pack(notification.id))
    except FileNotFoundError:
        return False
    return True


def let_continue(listener: int, notification: Notification) -> None:
    """Let the kernel run the call; it reads the pointers again, so this alone enforces nothing."""
    _send(listener, _RESPONSE.pack(notification.id, 0, 0, _CONTINUE))


def deny(listener: int, notification: Notification, code: int) -> None:
    """Answer the call with errno `code`."""
    _send(listener, _RESPONSE.pack(notification.id, 0, -code, 0))


def _send(listener: int, response: bytes) -> None:
    # ENOENT: the target died while we decided, and nobody is left to answer.
    with contextlib.suppress(FileNotFoundError):
        fcntl.ioctl(listener, _SEND, response)
