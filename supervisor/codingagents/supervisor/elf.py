"""CORE: which loader the kernel maps for a program, from the first bytes of an ELF file (elf(5)). Opens nothing.

Only what runs on the machines that we know (`trust.linux.machine`): 64-bit, little-endian.
"""

from __future__ import annotations

import struct
from typing import Final

HEAD: Final = 4096  # bytes that hold the headers of any real program
_MAGIC: Final = b"\x7fELF\x02\x01"
_PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")
_PT_INTERP: Final = 3
_PATH_MAX: Final = 4096


def interpreter_at(head: bytes) -> tuple[int, int] | None:
    """Return offset and size of a loader's name in the file that starts with `head`, None where it names none."""
    if not head.startswith(_MAGIC) or len(head) < 64:
        return None
    (table,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    if size != _PROGRAM_HEADER.size:
        return None
    for at in range(table, table + size * count, size):
        if at + size > len(head):
            return None
        kind, _, offset, _, _, length, _, _ = _PROGRAM_HEADER.unpack_from(head, at)
        if kind == _PT_INTERP:
            return (offset, length) if 2 <= length <= _PATH_MAX else None
    return None
