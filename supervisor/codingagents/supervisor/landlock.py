"""SHELL: confines execution to file trees with Landlock (landlock(7)). Decides nothing.

Only EXECUTE is restricted. REFER is handled and granted everywhere, because the kernel otherwise denies moving files
between directories under *any* ruleset.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from typing import Final

from codingagents.supervisor import kernel

_VERSION_FLAG: Final = 1
_RULE_PATH_BENEATH: Final = 1
_EXECUTE: Final = 1 << 0
_REFER: Final = 1 << 13


def abi_version() -> int:
    """Return the kernel's Landlock ABI, 0 where there is none or it is switched off."""
    try:
        return kernel.syscall(kernel.SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    except OSError:
        return 0


def restrict_execution(trees: Sequence[str]) -> list[str]:
    """Let this thread and its descendants execute only files beneath `trees`; needs no_new_privs.

    Trees that do not exist are left out. Returns the trees that hold; raises `OSError` where Landlock is absent.
    """
    refer = _REFER if abi_version() >= 2 else 0
    attributes = struct.pack("<Q", _EXECUTE | refer)
    ruleset = kernel.syscall(
        kernel.SYS_LANDLOCK_CREATE_RULESET, ctypes.c_char_p(attributes), ctypes.c_size_t(len(attributes)), 0
    )
    try:
        held = []
        if refer:
            _allow(ruleset, "/", refer)
        for tree in trees:
            try:
                _allow(ruleset, tree, _EXECUTE)
            except FileNotFoundError:
                continue
            held.append(tree)
        kernel.syscall(kernel.SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return held


def _allow(ruleset: int, tree: str, access: int) -> None:
    beneath = os.open(tree, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("<Qi", access, beneath)
        kernel.syscall(kernel.SYS_LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.c_char_p(rule), 0)
    finally:
        os.close(beneath)
