"""SHELL: rule sets of Landlock (landlock(7)): what a thread and its descendants may still do. Decides nothing.

A rule set *handles* kinds of access: handled and not allowed by a rule is refused. What the kernel's version does not
know yet is left out, so ask `abi_version` what will hold. linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final, Self

from codingagents.trust import linux

_VERSION_FLAG: Final = 1
_RULE_PATH_BENEATH: Final = 1
_RULE_NET_PORT: Final = 2

EXECUTE: Final = 1 << 0
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
REFER: Final = 1 << 13
# Rights on files, by the ABI that brought them: 13 of the first, REFER, TRUNCATE, IOCTL_DEV.
_FILE_RIGHTS: Final = {1: (1 << 13) - 1, 2: REFER, 3: 1 << 14, 5: 1 << 15}
ALL_OF_FILES: Final = (1 << 16) - 1

TCP_BIND: Final = 1 << 0
TCP_CONNECT: Final = 1 << 1
NET_ABI: Final = 4  # Linux 6.7

ABSTRACT_UNIX_SOCKETS: Final = 1 << 0
SIGNALS: Final = 1 << 1
SCOPE_ABI: Final = 6  # Linux 6.12


def abi_version() -> int:
    """Return the kernel's Landlock ABI, 0 where there is none or it is switched off."""
    number = linux.machine().number("landlock_create_ruleset")
    try:
        return linux.syscall(number, None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION_FLAG))
    except OSError:
        return 0


class Ruleset:
    """A rule set under construction; a context manager that closes its descriptor."""

    def __init__(self, *, files: int = 0, network: int = 0, scopes: int = 0) -> None:
        """Handle those of the given rights that the kernel knows; `OSError` where Landlock is absent."""
        abi = abi_version()
        self.files = files & sum(rights for since, rights in _FILE_RIGHTS.items() if abi >= since)
        self.network = network if abi >= NET_ABI else 0
        self.scopes = scopes if abi >= SCOPE_ABI else 0
        attributes = struct.pack("<QQQ", self.files, self.network, self.scopes)
        # An older kernel takes a longer struct as long as what it does not know is 0.
        self._descriptor = linux.syscall(
            linux.machine().number("landlock_create_ruleset"),
            ctypes.c_char_p(attributes),
            ctypes.c_size_t(len(attributes)),
            ctypes.c_uint(0),
        )

    def allow_beneath(self, path: str, rights: int) -> None:
        """Allow `rights` on the file `path`, or on all beneath the directory; `FileNotFoundError` where there is none.

        The rule is of the file that is there now: one that is put in its place later is not allowed.
        """
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            self._add(_RULE_PATH_BENEATH, struct.pack("<Qi", rights & self.files, beneath))
        finally:
            os.close(beneath)

    def allow_port(self, port: int, rights: int) -> None:
        """Allow `rights` on the TCP port; nothing to do where the kernel cannot limit ports."""
        if self.network:
            self._add(_RULE_NET_PORT, struct.pack("<QQ", rights, port))

    def _add(self, kind: int, rule: bytes) -> None:
        number = linux.machine().number("landlock_add_rule")
        linux.syscall(
            number, ctypes.c_int(self._descriptor), ctypes.c_int(kind), ctypes.c_char_p(rule), ctypes.c_uint(0)
        )

    def restrict_self(self) -> None:
        """Put the rules on this thread and what it makes from now on, for good; needs no_new_privs."""
        number = linux.machine().number("landlock_restrict_self")
        linux.syscall(number, ctypes.c_int(self._descriptor), ctypes.c_uint(0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
