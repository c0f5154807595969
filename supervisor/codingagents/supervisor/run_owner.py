"""SHELL: whose the session directories below /run are where they are plain ones: a lock that ends with its holder.

One session at a time has them. A file that nobody locks any more shows that its session was killed: the next one
may take its directories over. Makes and removes none itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import Final

from codingagents.rewrite import places
from codingagents.trust.errors import ProcessError

LOCK: Final = f"{places.RUN_ROOT}/.owner"


class RunOwner:
    """Holds the lock. `inherited` says that a session which was killed held it before."""

    def __init__(self) -> None:
        """Take it; `ProcessError` where a session that lives has it. The directory is root's alone."""
        self._descriptor, self.inherited = _claim(LOCK)

    def release(self) -> None:
        """Give it up, file included: after this, whatever lies beside it is nobody's."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(LOCK)
        os.close(self._descriptor)


def _claim(path: str) -> tuple[int, bool]:
    """Return the locked descriptor, never to be inherited, and whether the file was there before."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        was_there = True
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            was_there = False
            try:
                descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ProcessError(
                f"another session runs here and has {places.RUN_ROOT}; end it, or let sessions mount (CAP_SYS_ADMIN)"
            ) from None
        if _is_at(descriptor, path):
            return descriptor, was_there
        os.close(descriptor)  # its session ended meanwhile, and removed it


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False
