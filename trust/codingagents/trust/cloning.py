"""SHELL: clone(2) of this process as os.fork does it, with flags that os.fork does not take. Decides nothing.

For a process with one thread: clone(2) copies no other.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

from codingagents.trust import linux

CLONE_PARENT: Final = 0x8000  # the clone is a child of the caller's parent; not for the init of a PID namespace
_CLONE_PIDFD: Final = 0x1000

# PyDLL keeps the interpreter's lock over the call, as os.fork does: the clone's one thread must hold it.
_python = ctypes.PyDLL(None, use_errno=True)
_python.syscall.restype = ctypes.c_long


def clone(flags: int) -> tuple[int, int]:
    """Clone this process; return (pid, pidfd) in the caller and (0, -1) in the clone, or raise `OSError`.

    The pidfd comes from the clone itself, so that no reaping can give the number to another process first.
    """
    pidfd = ctypes.c_int(-1)
    number = linux.machine().number("clone")
    _python.PyOS_BeforeFork()
    # Past the third, the order of the arguments differs between machines; all of those are zero here.
    pid: int = _python.syscall(
        ctypes.c_long(number), ctypes.c_ulong(flags | _CLONE_PIDFD | signal.SIGCHLD), ctypes.c_void_p(),
        ctypes.byref(pidfd), ctypes.c_void_p(), ctypes.c_void_p(),
    )  # fmt: skip
    failure = ctypes.get_errno()
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        return 0, -1
    _python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(failure, f"clone failed: {os.strerror(failure)}")
    return pid, pidfd.value
