"""SHELL: the acts that a stub tries on itself, to see which are refused. Harmless where they succeed. Judges nothing.

Each is tried before its layer is on and after: the first is the control, without which a refusal shows little. What
leaves a mark on a process is tried in a child, which has ended when the outcome is known.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
from collections.abc import Callable, Mapping
from typing import Final

from codingagents.supervisor.confine_spec import Observation
from codingagents.supervisor.role_filter import CLONE_NEWUSER, TIOCSTI
from codingagents.trust import linux

Acts = Mapping[str, Callable[[], str]]
_PTRACE_PEEKDATA: Final = 2
_KEYCTL_GET_KEYRING_ID, _SESSION_KEYRING = 0, -3
_AT_FDCWD: Final = -100
_UFFD_USER_MODE_ONLY, _NO_SUCH_FLAG = 1, 1 << 30


def in_child(act: Callable[[], object]) -> str:
    """Try `act` in a child and return its outcome as `linux.attempt` does, or why there could be no child."""
    try:
        child = os.fork()  # noqa: TID251 -- the stub has no children but these, each of which it waits for at once
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    if child == 0:
        code = 255  # of no errno: whatever else went wrong
        try:
            act()
            code = 0
        except OSError as error:
            code = error.errno or code
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])  # noqa: TID251 -- see above
    return linux.SUCCEEDED if code == 0 else errno.errorcode.get(code, str(code))


def outcomes(acts: Acts) -> dict[str, str]:
    """Try each."""
    return {name: act() for name, act in acts.items()}


def compared(layer: str, acts: Acts, before: Mapping[str, str]) -> list[Observation]:
    """Try each again, now that `layer` is on."""
    return [
        Observation(layer=layer, act=name, control=before[name], outcome=outcome)
        for name, outcome in outcomes(acts).items()
    ]


def _call(name: str, *arguments: object) -> str:
    """Make a system call; a key's serial number that comes of it is no descriptor to close."""

    def act() -> None:
        linux.syscall(linux.machine().number(name), *arguments)

    return linux.attempt(act)


def _read_own_memory() -> str:
    """Read a byte of this process by process_vm_readv(2), which asks no permission for that."""
    here, there = ctypes.create_string_buffer(1), ctypes.create_string_buffer(1)
    vectors = [(ctypes.c_size_t * 2)(ctypes.addressof(each), 1) for each in (here, there)]
    one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
    return _call("process_vm_readv", ctypes.c_int(os.getpid()), vectors[0], one, vectors[1], one, none)


def _type_into_no_terminal() -> str:
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return linux.attempt(fcntl.ioctl, null, TIOCSTI, b"x")
    finally:
        os.close(null)


def _open_tree() -> str:
    return linux.attempt(
        linux.syscall, linux.machine().number("open_tree"), ctypes.c_int(_AT_FDCWD), b"/", ctypes.c_uint(0)
    )


def _unshare_user_namespace() -> None:
    linux.syscall(linux.machine().number("unshare"), ctypes.c_ulong(CLONE_NEWUSER))


def _clone_user_namespace() -> None:
    flags = ctypes.c_ulong(CLONE_NEWUSER | signal.SIGCHLD)
    child = linux.syscall(linux.machine().number("clone"), flags, None, None, None, None)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)  # noqa: TID251 -- as in `in_child`


# Before, where no engine refuses more: succeeded, ESRCH (there is no process 0), ENOTTY, an answer about the session's
# keyring, EINVAL (anybody may have faults of his own alone, and there is no such flag), succeeded, EBADF and EFAULT.
STATIC: Final[Acts] = {
    "process_vm_readv of itself": _read_own_memory,
    "ptrace of process 0": lambda: _call("ptrace", ctypes.c_long(_PTRACE_PEEKDATA), ctypes.c_long(0), None, None),
    "ioctl(TIOCSTI) on /dev/null": _type_into_no_terminal,
    "keyctl": lambda: _call("keyctl", ctypes.c_int(_KEYCTL_GET_KEYRING_ID), ctypes.c_int(_SESSION_KEYRING), None),
    "userfaultfd of nothing": lambda: _call("userfaultfd", ctypes.c_int(_UFFD_USER_MODE_ONLY | _NO_SUCH_FLAG)),
    "open_tree of /": _open_tree,
    "setns of nothing": lambda: _call("setns", ctypes.c_int(-1), ctypes.c_int(0)),
    "io_uring_setup of nothing": lambda: _call("io_uring_setup", ctypes.c_uint(1), None),
}
# The third has no flags to look at, so that nothing comes of it: EINVAL before.
USER_NAMESPACES: Final[Acts] = {
    "unshare(CLONE_NEWUSER)": lambda: in_child(_unshare_user_namespace),
    "clone(CLONE_NEWUSER)": lambda: linux.attempt(_clone_user_namespace),
    "clone3": lambda: _call("clone3", None, ctypes.c_size_t(0)),
}
