"""SHELL: walks a tree, and gives what a session made in it to its owner; by descriptors, following no symbolic link.

Giving changes inodes only that belong to one of the session's own UIDs, and so were made by the session, wherever else
they may be linked; nothing on another file system. To be called when no process of the session lives any more.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from codingagents.launcher.workspace_rules import MAX_DEPTH, MAX_ENTRIES, without_privilege

LOOK = os.O_PATH | os.O_NOFOLLOW  # at the inode itself, whatever it is


@contextlib.contextmanager
def opened(path: str, flags: int, directory: int | None = None, mode: int = 0o600) -> Iterator[int]:
    """Give a descriptor of `path`, below `directory` where that is a descriptor."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, mode, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def unseen_sentence(path: str, made_by: Collection[int]) -> str:
    """Return what is to be said of a walk that did not see all."""
    numbers = " ".join(map(str, sorted(made_by)))
    return (
        f"warning: {path} has more entries than are looked at; what the session made in the rest keeps "
        f"its user IDs: {numbers}"
    )


@dataclass(slots=True)
class TreeWalk:
    """One walk over the tree at `path`: `visit` gets a descriptor of each inode, the top's first, and its fstat(2)."""

    path: str
    visit: Callable[[int, os.stat_result], None]
    entries: int = 0
    unseen: int = 0  # directories that were too deep, or came after too many entries

    def run(self) -> None:
        """Walk. Raises `OSError` where the tree itself cannot be opened."""
        with opened(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) as top:
            self.visit(top, os.fstat(top))
            self._below(top, os.fstat(top).st_dev, 1)

    def _below(self, directory: int, device: int, depth: int) -> None:
        with os.scandir(directory) as entries:
            for entry in entries:
                self.entries += 1
                if self.entries > MAX_ENTRIES:
                    self.unseen += 1
                    return
                with contextlib.suppress(FileNotFoundError):  # its owner works there too
                    self._entry(directory, entry.name, device, depth)

    def _entry(self, directory: int, name: str, device: int, depth: int) -> None:
        with opened(name, LOOK, directory) as looked:
            found = os.fstat(looked)
            if found.st_dev != device:
                return
            self.visit(looked, found)
            if not stat.S_ISDIR(found.st_mode):
                return
            if depth >= MAX_DEPTH:
                self.unseen += 1
                return
            with opened(f"/proc/self/fd/{looked}", os.O_RDONLY | os.O_DIRECTORY) as below:
                self._below(below, device, depth + 1)


@dataclass(slots=True)
class GivingBack:
    """What of the tree at `path` is of one of `made_by` goes to `uid` and `gid`, with mode `mode_of`."""

    path: str
    made_by: Collection[int]
    uid: int
    gid: int
    mode_of: Callable[[int], int] = without_privilege  # of files; of directories too where `directories` is true
    directories: bool = False
    unseen: int = 0  # as in `TreeWalk`

    def run(self) -> None:
        """Walk. Raises `OSError` where the tree itself cannot be opened."""
        walk = TreeWalk(self.path, self.give)
        walk.run()
        self.unseen = walk.unseen

    def give(self, looked: int, found: os.stat_result) -> None:
        """Give the inode that `looked` is a descriptor of."""
        if found.st_uid not in self.made_by:
            return
        inode = f"/proc/self/fd/{looked}"  # proc(5): leads to this inode and not further, a symbolic link's too
        if stat.S_ISREG(found.st_mode) or (self.directories and stat.S_ISDIR(found.st_mode)):
            os.chmod(inode, self.mode_of(found.st_mode))  # first: nobody may find it setuid and the owner's
        os.chown(inode, self.uid, self.gid)
