"""SHELL: the supervisor's own mount namespace, entered before it spawns anyone, so that everyone is born into it.

With it comes an IPC namespace: what System V IPC and POSIX queues hold outlives processes, but not the namespace.

Mounts nothing but /proc; the session's directories are `rundirs`' work.
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
