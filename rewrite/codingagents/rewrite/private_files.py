"""SHELL: files and directories that only this user may touch: made, read and replaced by one set of rules.

A path is trusted when every directory above it belongs to root or to us and no one else may write there (the
rule of OpenSSH's StrictModes; a sticky directory such as /tmp counts as unwritable). With that, a later open by path
means the file that was checked. Does not decide what the files hold.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from codingagents.trust.errors import AgentError, ConfigError

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_ANY = stat.S_IRWXG | stat.S_IRWXO


def read_private(path: Path, *, limit: int) -> bytes:
    """Return the bytes of a regular file, ours or root's, of mode 0600 or stricter and at most `limit` bytes.

    Raises `FileNotFoundError` where there is none, else `ConfigError` that names the file and the remedy.
    """
    descriptor = _open_regular(path, os.O_NOFOLLOW)
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if found.st_uid not in {0, os.geteuid()}:
            raise ConfigError(f"{path} belongs to UID {found.st_uid}; it must belong to root or to you: chown it")
        if found.st_mode & (_OTHERS_ANY | stat.S_IXUSR):
            raise ConfigError(f"{path} has mode {stat.S_IMODE(found.st_mode):04o}; run: chmod 600 {path}")
        return _bounded(file, path, limit)


def read_plain(path: Path, *, limit: int, directory: int | None = None) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes, whoever owns it. Raises as `read_private`.

    With `directory`, a descriptor of the one that `path` is in, it is the file of that name there, and no symbolic link
    is followed.
    """
    descriptor = _open_regular(path, 0) if directory is None else _open_regular(path, os.O_NOFOLLOW, directory)
    with open(descriptor, "rb") as file:
        return _bounded(file, path, limit)


def private_directory(path: Path, *, create: bool) -> Path:
    """Return the real path of `path`, a directory of mode 0700 that is ours, checked from the root down.

    What is missing of it is made with mode 0700 when `create`; without, it is only checked that it could be made.
    The last component must not be a symbolic link. Raises `ConfigError`.
    """
    real = Path(os.path.realpath(path.parent)) / path.name
    for directory in (*reversed(real.parents), real):
        try:
            found = os.lstat(directory)
        except FileNotFoundError:
            if not create:
                return real
            found = _make_directory(directory)
        except OSError as error:
            raise ConfigError(f"cannot use {directory}: {error.strerror}") from None
        _check_directory(directory, found, last=directory == real)
    return real


def replace_private(path: Path, content: bytes) -> None:
    """Make `path` hold `content`, mode 0600, as one step that survives a crash; its directory must be private.

    Raises `AgentError` where the file system refuses.
    """
    draft = path.with_name(f".{path.name}.new")
    try:
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(draft, path)
    except OSError as error:
        raise AgentError(f"cannot write {path}: {error.strerror}") from None


def _open_regular(path: Path, flags: int, directory: int | None = None) -> int:
    try:
        # O_NONBLOCK: a FIFO put in the file's place must not hang us before fstat sees it.
        name = path if directory is None else path.name
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags, dir_fd=directory)
    except FileNotFoundError:
        raise
    except OSError as error:
        what = "must be a regular file" if error.errno == errno.ELOOP else f"cannot be read: {error.strerror}"
        raise ConfigError(f"{path} {what}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigError(f"{path} must be a regular file")
    return descriptor


def _bounded(file: BinaryIO, path: Path, limit: int) -> bytes:
    try:
        content = file.read(limit + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > limit:
        raise ConfigError(f"{path} is over the limit of {limit} bytes")
    return content


def _make_directory(directory: Path) -> os.stat_result:
    """Make `directory` and return what stands there, which another launcher may have made first: check it."""
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        return os.lstat(directory)
    except OSError as error:
        raise ConfigError(f"cannot make {directory}: {error.strerror}") from None


def _check_directory(directory: Path, found: os.stat_result, *, last: bool) -> None:
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{directory} must be a directory, not a symbolic link or a file")
    if last:
        if found.st_uid != os.geteuid():
            raise ConfigError(f"{directory} belongs to UID {found.st_uid}; it must belong to UID {os.geteuid()}")
        if found.st_mode & _OTHERS_ANY:
            raise ConfigError(f"{directory} has mode {stat.S_IMODE(found.st_mode):04o}; run: chmod 700 {directory}")
        return
    if found.st_uid not in {0, os.geteuid()}:
        raise ConfigError(f"{directory} belongs to UID {found.st_uid}, who could replace what is kept below it")
    if found.st_mode & _OTHERS_WRITE and not found.st_mode & stat.S_ISVTX:
        raise ConfigError(f"{directory} may be written by others, who could replace what is kept below it")
