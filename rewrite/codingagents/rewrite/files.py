"""SHELL: writes client files where the role that reads them cannot replace them. Decides nothing about their content.

A directory that a role owns is no place for its configuration: the owner may unlink any file in it. Here each client's
directory belongs to the caller (root) and is sticky and group-writable, so the client keeps its state beside our file
and can touch only what it made itself (unlink(2), EPERM on sticky directories). What the role planted there is never
followed and never overwritten: it is refused by name.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence

from codingagents.rewrite.clients.base import ClientFile
from codingagents.trust.errors import ConfigError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def install_client_files(root: str, files: Sequence[ClientFile], owner_gid: int) -> tuple[str, ...]:
    """Write `files` below the absolute path `root` and return their paths.

    `root` becomes the caller's with mode 0750, each directory below it 1770 and each file 0640, all with group
    `owner_gid`. Its parent must exist and be writable by the caller alone. A file that is already there is replaced
    atomically. Raises `ConfigError` where a symlink or somebody else's file is in the way, or the write fails.
    """
    parent, name = os.path.split(root)
    written = []
    try:
        with contextlib.ExitStack() as stack:
            top = stack.enter_context(_opened(os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)))
            base = stack.enter_context(_opened(_make_directory(top, name, root, 0o750, owner_gid)))
            for file in files:
                directory, _, leaf = file.path.partition("/")
                if not directory or not leaf or "/" in leaf or {directory, leaf} & {".", ".."}:
                    raise ValueError(f"{file.path!r} is not DIRECTORY/NAME")
                below = f"{root}/{directory}"
                with _opened(_make_directory(base, directory, below, 0o1770, owner_gid)) as opened:
                    _replace(opened, leaf, f"{root}/{file.path}", file.content, owner_gid)
                written.append(f"{root}/{file.path}")
    except OSError as error:
        raise ConfigError(f"cannot write client files below {root}: {error.strerror}") from error
    return tuple(written)


@contextlib.contextmanager
def _opened(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _make_directory(parent: int, name: str, path: str, mode: int, gid: int) -> int:
    """Return an open descriptor of a directory that the caller owns, made where it is missing."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
    except NotADirectoryError:  # what O_DIRECTORY with O_NOFOLLOW says of a symlink, too
        raise ConfigError(f"{path} is not a directory, and is not followed if it is a link; remove it") from None
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            raise ConfigError(f"{path} belongs to somebody else; remove it")
        os.fchown(fd, -1, gid)
        os.fchmod(fd, mode)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _replace(directory: int, name: str, path: str, content: bytes, gid: int) -> None:
    # The rename below would replace a link, not follow it; the refusal is there so that the planting is noticed.
    with contextlib.suppress(FileNotFoundError):
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise ConfigError(f"{path} is a link or belongs to somebody else; remove it")
    temporary = f".{name}.{secrets.token_hex(8)}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchown(fd, -1, gid)
            os.fchmod(fd, 0o640)
            os.fsync(fd)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.unlink(temporary, dir_fd=directory)
        raise
    os.fsync(directory)
