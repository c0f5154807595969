"""SHELL: replaces a configuration file as one step, for its owner: same owner, same mode, never half of it.

One writer at a time holds the directory's lock; an editor does not, so the content is compared once more before the
replacement. A symbolic link is followed where nobody else could have put it there, and what it leads to is replaced.
What is locked, read and replaced is in one directory, whoever moves another one into its place meanwhile.
Decides nothing about the content.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from codingagents.rewrite.reading import read_text
from codingagents.trust.errors import AgentError, ConfigError

_MAX_LINKS = 40  # as the kernel has it
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def rewrite(path: Path, edit: Callable[[str], str]) -> None:
    """Replace what `path` holds by what `edit` makes of it, which may raise to leave all as it is.

    Raises `ConfigError` or `NotFoundError` where the file is not one to be replaced, and `AgentError` where the file
    system refuses, or somebody changed the file meanwhile.
    """
    real = trusted_target(path)
    with _locked(real.parent) as directory:
        before = read_text(real, directory)
        after = edit(before)
        if after != before:
            _replace(directory, real, before, after)


def trusted_target(path: Path) -> Path:
    """Return the absolute path of what `path` leads to; `ConfigError` where another user could lead it elsewhere."""
    left = list(Path(os.path.abspath(path)).parts[1:])
    links = 0
    here = Path("/")
    while left:
        name = left.pop(0)
        if name == "..":
            here = here.parent
            continue
        step = here / name
        try:
            found = os.lstat(step)
        except OSError:
            return Path(step, *left)  # whoever reads it says what is wrong
        if not stat.S_ISLNK(found.st_mode):
            here = step
            continue
        _check_link(step, found, os.lstat(here))
        links += 1
        if links > _MAX_LINKS:
            raise ConfigError(f"{path} leads through too many symbolic links")
        target = Path(os.readlink(step))
        here = Path("/") if target.is_absolute() else here
        left = [part for part in target.parts if part != "/"] + left
    return here


def _check_link(link: Path, found: os.stat_result, directory: os.stat_result) -> None:
    ours = {0, os.geteuid()}
    if found.st_uid not in ours or directory.st_uid not in ours:
        raise ConfigError(f"{link} is another user's symbolic link, which is not followed; name the file itself")
    if directory.st_mode & _OTHERS_WRITE and not directory.st_mode & stat.S_ISVTX:
        raise ConfigError(f"{link} is a symbolic link that others could replace; name the file itself")


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[int]:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"cannot use {directory}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _replace(directory: int, path: Path, before: str, after: str) -> None:
    draft = f".{path.name}.new"
    try:
        found = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{path} must be a regular file")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=directory)  # of a writer that was killed: nobody else holds the lock
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
        try:
            with open(descriptor, "wb") as file:
                file.write(after.encode())
                file.flush()
                os.fchown(descriptor, found.st_uid, found.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
                os.fsync(descriptor)
            if read_text(path, directory) != before:
                raise AgentError(f"{path} was changed meanwhile, and is left as it is; try again")
            os.replace(draft, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            os.unlink(draft, dir_fd=directory)
            raise
        os.fsync(directory)
    except OSError as error:
        raise AgentError(f"cannot write {path}: {error.strerror}; it is as it was") from None
