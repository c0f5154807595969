"""SHELL: the supervisor's own mount namespace, entered before it spawns anyone, so that everyone is born into it.

With it comes an IPC namespace: what System V IPC and POSIX queues hold outlives processes, but not the namespace.

Mounts nothing but /proc, and hides in it whose processes are not one's own; the session's directories are `rundirs`'
work. Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import errno
import os

from codingagents.supervisor import kernel


def enter_mount_namespace() -> str:
    """Move to a private mount namespace, with a /proc of this PID namespace; return "" or the errno's name."""
    try:
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        if os.readlink("/proc/self") != str(os.getpid()):
            flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
            kernel.mount("proc", "/proc", "proc", flags)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    with contextlib.suppress(OSError):  # shared memory and queues then end with the session; some kernels have no such
        kernel.unshare(kernel.CLONE_NEWIPC)
    return ""


def hide_processes() -> str:
    """Have /proc show to each user its own processes only (proc(5), hidepid=2); return "" or why that cannot be.

    Group 0 still sees all: the supervisor needs no Linux capability for it. For after `enter_mount_namespace`, and for
    PID 1 only: whatever else shows this /proc (before Linux 5.8 every one of the PID namespace) is then of processes
    that end with us. It is remounted, not mounted anew: what an engine has mounted over parts of it stays.
    """
    if os.getpid() != 1:
        return "the supervisor is not PID 1: others, who are not its to hide, use this /proc"
    kept = os.statvfs("/proc").f_flag & (kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    try:
        kernel.mount("proc", "/proc", None, kernel.MS_REMOUNT | kept, "hidepid=2,gid=0")
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    return ""
