"""SHELL: prctl(2), and no import but ctypes: plain `init` needs this of the kernel and nothing else. No policy."""

from __future__ import annotations

import ctypes
import os

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
_libc.prctl.restype = ctypes.c_int


def prctl(option: int, argument: int = 0) -> int:
    """Ask the kernel to change or tell one attribute of this process (prctl(2)); `OSError` with its errno."""
    result: int = _libc.prctl(option, argument, 0, 0, 0)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
