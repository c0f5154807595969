"""SHELL: copies a tree for a session: by descriptors, following no symbolic link. `workspace_rules` decides.

Everything copied is a new inode of the given owner. Whoever calls removes what was made when this fails.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

from codingagents.launcher.workspace_owner import LOOK, opened
from codingagents.launcher.workspace_rules import MAX_ENTRIES, shared_mode, why_left_out
from codingagents.trust.errors import ProcessError

_FICLONE = 0x40049409  # ioctl_ficlone(2): share the blocks where the file system can
_CHUNK = 64 * 1024 * 1024
_TREE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


@dataclass(slots=True)
class TreeCopy:
    """One copy under way. `uid` and `gid` get all that it makes; `on_entry` hears the number of entries so far."""

    source: str
    uid: int
    gid: int
    on_entry: Callable[[int], None]
    entries: int = 0
    left_out: list[str] = field(default_factory=list)  # "path: why", at most twenty
    more_left_out: int = 0

    def into(self, target: str) -> None:
        """Copy the tree into `target`, an empty directory that nobody else can enter yet. Raises `ProcessError`."""
        try:
            with opened(self.source, _TREE) as source, opened(target, _TREE) as made:
                root = os.fstat(source)
                self._directory(source, made, root, "")
                self._finish(made, root)
        except OSError as error:
            remedy = "make room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "look at both"
            raise ProcessError(
                f"the workspace {self.source} cannot be copied to {target}: {error.strerror}; {remedy}"
            ) from None

    def _directory(self, source: int, made: int, root: os.stat_result, path: str) -> None:
        """Copy what is in the directory `source`; `path` is that below the tree, with a slash at its end, or ""."""
        for name in os.listdir(source):
            self.entries += 1
            if self.entries > MAX_ENTRIES:
                raise ProcessError(
                    f"the workspace {self.source} has more than {MAX_ENTRIES} entries; name a smaller one"
                )
            self.on_entry(self.entries)
            with contextlib.suppress(FileNotFoundError), opened(name, LOOK, source) as looked:  # removed meanwhile
                self._entry(looked, made, root, path + name)

    def _entry(self, looked: int, made: int, root: os.stat_result, path: str) -> None:
        found = os.fstat(looked)
        inode, name = f"/proc/self/fd/{looked}", os.path.basename(path)
        why = why_left_out(found, root, path.count("/") + 1)
        if why:
            self._leave_out(path, why)
        elif stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink("", dir_fd=looked), name, dir_fd=made)
            os.chown(name, self.uid, self.gid, dir_fd=made, follow_symlinks=False)
        elif stat.S_ISDIR(found.st_mode):
            os.mkdir(name, 0o700, dir_fd=made)
            with opened(inode, os.O_RDONLY | os.O_DIRECTORY) as below, opened(name, _TREE, made) as target:
                self._directory(below, target, root, f"{path}/")
                self._finish(target, found)
        else:
            with opened(inode, os.O_RDONLY) as file, opened(name, _MAKE, made) as target:
                _copy_bytes(file, target, found.st_size)
                self._finish(target, found)

    def _finish(self, made: int, found: os.stat_result) -> None:
        os.fchown(made, self.uid, self.gid)
        os.fchmod(made, shared_mode(found.st_mode))
        os.utime(made, ns=(found.st_atime_ns, found.st_mtime_ns))

    def _leave_out(self, path: str, why: str) -> None:
        if len(self.left_out) < 20:
            self.left_out.append(f"{path}: {why}")
        else:
            self.more_left_out += 1


def _copy_bytes(source: int, target: int, size: int) -> None:
    """Copy as a file of `size` bytes with its holes, by shared blocks where that can be."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:  # another file system, or one that cannot
        os.ftruncate(target, size)
        place = 0
        while place < size:
            try:
                place = os.lseek(source, place, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # a hole up to the end
                    return
                raise
            end = min(os.lseek(source, place, os.SEEK_HOLE), size)
            os.lseek(target, place, os.SEEK_SET)
            while place < end:
                done = os.sendfile(target, source, place, min(end - place, _CHUNK))
                if not done:  # it became shorter meanwhile
                    return
                place += done
