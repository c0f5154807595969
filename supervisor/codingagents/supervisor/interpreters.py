"""CORE: which interpreter the kernel runs for a file, from its first bytes (fs/binfmt_script.c). Opens nothing.

Its rules are not a shell's: blanks are spaces and tabs, so that a carriage return is part of the name, and a NUL ends
it; without a newline in the kernel's buffer, the name must be seen to end.
What a binfmt_misc handler or the dynamic loader adds is not known here.
"""

from __future__ import annotations

import re
from typing import Final

HEAD: Final = 256  # bytes, BINPRM_BUF_SIZE (Linux 5.1)
MAX_REWRITES: Final = 5  # a sixth interpreter is ELOOP (fs/exec.c, exec_binprm)
_BLANKS: Final = b" \t"
_END: Final = re.compile(rb"[ \t\0]")  # of a name


def interpreter_of(head: bytes) -> bytes | None:
    """Return the name that the first `HEAD` bytes of a file give, or None for what is no script.

    b"" is a name too, and leads nowhere: the kernel takes it as the working directory and refuses.
    """
    if not head.startswith(b"#!"):
        return None
    line, newline, _ = head[2:HEAD].partition(b"\n")
    if not newline:
        # The name must be seen to end; after a file's last byte the buffer has NULs.
        line = head[2:].ljust(HEAD - 2, b"\0")[: HEAD - 2]
    name = line.lstrip(_BLANKS)
    if not newline and not _END.search(name):
        return None
    return _END.split(name, maxsplit=1)[0] if name else None
