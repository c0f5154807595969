"""SHELL: gives the session's IDs names in a container's /etc/passwd and /etc/group, and takes them back.

A convenience of `id`, `ls`, git and ssh: nothing of a session depends on names, so what forbids them is no error but a
word in the log. Never for the `local` engine: that /etc is the machine's. Which lines, says `account_lines`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from codingagents.rewrite.specs import UidPlan
from codingagents.supervisor import account_lines
from codingagents.supervisor.account_lines import Entry
from codingagents.trust.errors import ProcessError

MAX_BYTES: Final = 16 * 1024 * 1024  # of either file
LOCK_SECONDS: Final = 1.0  # others hold it for moments; lckpwdf(3) would wait for 15
_PAUSE: Final = 0.02


class _UnusableError(Exception):
    """Why the names cannot be had."""


@dataclass(slots=True)
class AccountFiles:
    """The account files below `etc`. Not for use by two threads at once; may block, on the lock and on the disk."""

    etc: Path = Path("/etc")
    _pieces: dict[str, bytes] = field(default_factory=dict)  # what was put into which file

    def add(self, uids: UidPlan, agent_shell: str = account_lines.SHELL) -> str:
        """Have all accounts of a session; return "created", "there", or "numeric: …" and then nothing was changed."""
        wanted = account_lines.accounts_of(uids, agent_shell)
        try:
            with self._locked():
                return self._add({"group": wanted.group, "passwd": wanted.passwd})
        except _UnusableError as error:
            return f"numeric: {error}"
        except OSError as error:
            return f"numeric: {error.filename or self.etc}: {errno.errorcode.get(error.errno or 0, '?')}"

    def shell_of(self, uid: int) -> str:
        """Return the shell of the account with this UID; "" where there is none, or it cannot be told."""
        try:
            return account_lines.shell_of(self._read("passwd")[0], uid)
        except (OSError, _UnusableError):
            return ""

    def remove(self) -> None:
        """Take out what `add` put in; `ProcessError` where that cannot be."""
        if not self._pieces:
            return
        try:
            with self._locked():
                for name in list(self._pieces):
                    data, like = self._read(name)
                    self._replace(name, account_lines.remove(data, self._pieces[name]), like)
                    del self._pieces[name]
        except (OSError, _UnusableError) as error:
            cause = error.strerror if isinstance(error, OSError) else str(error)
            raise ProcessError(f"cannot take the session's accounts out of {self.etc}: {cause}") from None

    def _add(self, wanted: dict[str, Sequence[Entry]]) -> str:
        found = {name: self._read(name) for name in wanted}
        for name, (data, _) in found.items():
            if why := account_lines.conflict(data, wanted[name]):
                raise _UnusableError(f"{self.etc / name}: {why}")
        done: list[str] = []
        try:
            for name, (data, like) in found.items():
                changed, piece = account_lines.add(data, wanted[name])
                if piece:
                    self._replace(name, changed, like)
                    done.append(name)
                    self._pieces[name] = piece
        except OSError:
            for name in done:
                self._replace(name, *found[name])
                del self._pieces[name]
            raise
        return "created" if done else "there"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of all who edit these files (lckpwdf(3)): a record lock, which any close(2) of it ends."""
        path = self.etc / ".pwd.lock"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            deadline = time.monotonic() + LOCK_SECONDS
            while True:
                try:
                    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except (BlockingIOError, PermissionError):
                    if time.monotonic() > deadline:
                        raise _UnusableError(f"another process has locked {path}") from None
                    time.sleep(_PAUSE)
                else:
                    break
            yield
        finally:
            os.close(descriptor)

    def _read(self, name: str) -> tuple[bytes, os.stat_result]:
        path = self.etc / name
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            like = os.fstat(descriptor)
            if not stat.S_ISREG(like.st_mode):
                raise _UnusableError(f"{path} is no file")
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise _UnusableError(f"{path} has more than {MAX_BYTES} bytes")
        return data, like

    def _replace(self, name: str, data: bytes, like: os.stat_result) -> None:
        """Put `data` in the file's place at once, with its owner and mode."""
        path, new = self.etc / name, self.etc / f".{name}.coding-agents"
        with contextlib.suppress(FileNotFoundError):  # of a session that was killed in here; we hold the lock
            new.unlink()
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchown(descriptor, like.st_uid, like.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
                os.fsync(descriptor)
            new.rename(path)  # EBUSY where the file itself is a mount
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink()
            raise
