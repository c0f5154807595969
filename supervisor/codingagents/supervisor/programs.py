"""SHELL: a file that is to be executed: what was seen of it, held by a descriptor that reads nothing and wakes nothing.

The path was chosen by an untrusted process: it may be a FIFO, a device, or another file by the next look. So the file
is opened by O_PATH, looked at, and only a regular one is opened again, through /proc/self/fd: the same inode, by
whoever the calling thread is as far as files are concerned, and never waiting. Decides which files keep their bytes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Final, Self

from codingagents.supervisor import kernel, mounts_seen

# File systems of this machine, whose change times nobody but its kernel writes: not those that a process (FUSE) or
# another machine answers for.
_LOCAL: Final = frozenset(b"bcachefs btrfs erofs ext2 ext3 ext4 f2fs overlay ramfs squashfs tmpfs xfs zfs".split())
# A file that changes twice within the clock's grain has the same times with different bytes.
_GRAIN: Final = 2 * 10**9  # nanoseconds


def local_mounts(pid: int | None = None) -> frozenset[int]:
    """Return the IDs of the mounts, of process `pid` or ours, whose change times can be relied on.

    What is mounted later is not among them.
    """
    with open(f"/proc/{pid or 'self'}/mountinfo", "rb") as file:
        mounts = mounts_seen.parse_mountinfo(file.read())
    return frozenset(mount.id for mount in mounts if mount.kind in _LOCAL)


class Program:
    """One file, as it was when it was looked at. Whoever holds it closes it."""

    __slots__ = ("_descriptor", "seen")

    def __init__(self, descriptor: int) -> None:
        """Own `descriptor` (O_PATH), also where looking at it fails."""
        self._descriptor = descriptor
        try:
            self.seen = kernel.statx(descriptor)
        except OSError:
            os.close(descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; once more is nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def is_regular(self) -> bool:
        """Say whether it is a regular file."""
        return stat.S_ISREG(self.seen.mode)

    @property
    def identity(self) -> str:
        """Return what records call it: "device:inode:mtime_ns"."""
        return f"{self.seen.device}:{self.seen.inode}:{self.seen.mtime}"

    def keeps(self, mounts: frozenset[int], now: int) -> bool:
        """Say whether the same `seen` means the same bytes, as long as root does not lie; `now` in nanoseconds.

        Who owns a file can write it, and who could write it before may still have it open; but every write(2) shows in
        the change time, which nobody can set. That time is only as good as the file system (`mounts`), and not yet
        while it is of this very moment. What it does not show is a store into memory that was mapped, and stored to,
        before the file became root's: a session gives root no file of a role that still runs.
        """
        seen = self.seen
        return (
            seen.uid == 0
            and not seen.mode & (stat.S_IWGRP | stat.S_IWOTH)
            and seen.mount in mounts
            and now - seen.ctime > _GRAIN
        )

    def reopen(self) -> int:
        """Open the same file for reading, as whoever this thread is; `OSError` where that may not read it."""
        assert self.is_regular
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(b"/proc/self/fd/%d" % self._descriptor, flags)

    def changed(self) -> bool:
        """Say whether it no longer is what was seen: size, times and owner."""
        return kernel.statx(self._descriptor) != self.seen

    def head(self, length: int) -> bytes:
        """Return its first `length` bytes; `OSError` where it may not be read."""
        descriptor = self.reopen()
        try:
            return os.pread(descriptor, length, 0)
        finally:
            os.close(descriptor)

    def read_all(self, take: Callable[[bytes], object], *, chunk: int) -> int:
        """Pass all that was seen of it, and no more, to `take`; return how many bytes that was."""
        descriptor, at = self.reopen(), 0
        try:
            while data := os.pread(descriptor, min(chunk, self.seen.size - at), at):
                take(data)
                at += len(data)
        finally:
            os.close(descriptor)
        return at
