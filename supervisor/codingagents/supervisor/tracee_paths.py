"""SHELL: says where a path leads for another process. No decision; opens nothing but by O_PATH.

To the kernel /proc/self and /dev/fd are whoever asks, so `/dev/fd/9`, or a symlink to it, would be looked up among our
descriptors and run from the tracee's. So the kernel is asked only for what leads through no such link, which is nearly
everything, and the rest is a walk of our own. A process that is *apart* has mounts and a PID namespace of its role's,
with a procfs that has its numbers: what it calls by a path is looked up from its own root. What one with any other root
directory or mount namespace means cannot be told from here: see `FileTree`.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from typing import Final

from codingagents.supervisor import kernel, mounts_seen

_MAX_LINKS: Final = 40  # the kernel's own limit, path_resolution(7)
_OWN_NUMBER: Final = re.compile(rb"\nNSpid:.*?(\d+)\n")
_ITSELF: Final = (b"self", b"thread-self")
_NOTHING: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES})


class NamelessError(Exception):
    """What the path leads to has no path that we could name, or none that we may see, so no rule can speak of it."""


@dataclass(frozen=True, slots=True)
class FileTree:
    """What the paths of a process mean: its root directory, and the mount that this is on.

    Each mount namespace has mounts of its own, so that the mount tells it.
    """

    device: int
    inode: int
    mount: int

    @classmethod
    def of_us(cls) -> FileTree:
        """Return this process's."""
        root = kernel.statx(b"/")
        return cls(root.device, root.inode, root.mount)

    @classmethod
    def copied_by(cls, pid: int) -> FileTree:
        """Return that of a process with the same root directory, in a copy of our mounts.

        Nobody without CAP_SYS_PTRACE may look at it through /proc/PID/root where it is not dumpable.
        """
        ours, mount = cls.of_us(), mounts_seen.mount_at(_mounts(pid), "/")
        if mount is None:
            raise OSError(errno.ENOENT, "it has no root")
        return cls(ours.device, ours.inode, mount.id)

    def is_of(self, pid: int) -> bool:
        """Say whether it is that of process `pid`."""
        root = kernel.statx(b"/proc/%d/root" % pid)
        return root.inode == self.inode and root.device == self.device and root.mount == self.mount


def proc_mounts(pid: int | None = None) -> tuple[bytes, ...]:
    """Return where process `pid`, or ours, has procfs mounted, as b"/proc/": there, links depend on who reads them."""
    return tuple(mount.target + b"/" for mount in _mounts(pid) if mount.kind == b"proc")


def _mounts(pid: int | None) -> tuple[mounts_seen.Mount, ...]:
    with open(f"/proc/{pid or 'self'}/mountinfo", "rb") as file:
        return mounts_seen.parse_mountinfo(file.read())


def path_in_proc(pid: int, rest: bytes, *, apart: bool = False) -> bytes:
    """Return the path by which process `pid`, which may be apart, itself finds `rest` of its own entry in /proc."""
    return b"/proc/%d/%b" % (_own_number(pid) if apart else pid, rest)


def _own_number(pid: int) -> int:
    """Return the number of thread `pid` in its own PID namespace."""
    with open(b"/proc/%d/status" % pid, "rb") as file:
        found = _OWN_NUMBER.search(file.read())
    if found is None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return int(found[1])


def find(pid: int, path: bytes, procs: tuple[bytes, ...], *, apart: bool = False) -> tuple[bytes | None, int]:
    """Return what `resolve` does, and a descriptor (O_PATH) of what is there: -1 where nothing is, or not for us."""
    if not apart:
        return _find(pid, path, procs)
    root = os.open(b"/proc/%d/root" % pid, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _find(pid, path, procs, root)
    finally:
        os.close(root)


def _find(pid: int, path: bytes, procs: tuple[bytes, ...], root: int | None = None) -> tuple[bytes | None, int]:
    try:
        descriptor = kernel.open_path(path, kernel.RESOLVE_NO_MAGICLINKS, root)
    except OSError:
        pass  # nothing there, or a link of procfs on the way: the walk tells
    else:
        named = _name_of(descriptor)
        # A path that ends in procfs went by /proc/self, perhaps, and that was ours.
        if named.startswith(b"/") and not named.startswith(procs):
            return named, descriptor
        os.close(descriptor)
    resolved = resolve(pid, path, procs, apart=root is not None)
    if resolved is None:
        return None, -1
    try:
        return resolved, kernel.open_path(resolved, kernel.RESOLVE_NO_SYMLINKS, root)
    except OSError:
        return resolved, -1


def _name_of(descriptor: int) -> bytes:
    """Return the path of what `descriptor` holds, b"" where it has none."""
    try:
        name = os.readlink(b"/proc/self/fd/%d" % descriptor)
    except OSError:  # ENAMETOOLONG: deeper than a path can say
        return b""
    return b"" if name.endswith(b" (deleted)") else name


def resolve(pid: int, path: bytes, procs: tuple[bytes, ...], *, apart: bool = False) -> bytes | None:
    """Return where the absolute `path` leads for process `pid`, or None where nothing is there or we may not look.

    `procs` is `proc_mounts()`. Raises `NamelessError` for a file without a name (a memfd, a deleted program) and for
    what procfs does not show us, and `OSError` where the walk fails for any other reason: the kernel's own may still
    succeed.
    """
    try:
        return _walk(pid, path, procs) if not apart else _walk(_own_number(pid), path, procs, b"/proc/%d/root" % pid)
    except OSError as error:
        if error.errno in _NOTHING:
            return None
        raise


def _walk(pid: int, path: bytes, procs: tuple[bytes, ...], root: bytes = b"") -> bytes:
    at, rest, links = b"", path.split(b"/")[::-1], 0
    while rest:
        name = rest.pop()
        if name in (b"", b"."):
            continue
        if name == b"..":
            at = at[: max(at.rfind(b"/"), 0)]
            continue
        here = at + b"/" + name
        try:
            # In a procfs of another PID namespace, these two are not there for us.
            itself = root and at + b"/" in procs and name in _ITSELF
            target = b"" if itself else _link(root + here)
        except OSError as error:
            if here.startswith(procs) and _hidden(error, here, tuple(proc + b"%d/" % pid for proc in procs)):
                raise NamelessError("procfs does not show us what it names") from None
            raise
        if target is None:
            at = here
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if here.startswith(procs) and not target.startswith(b"self/"):  # `mounts` and `net` are links like any other
            if at + b"/" in procs and name in _ITSELF:
                number = b"%d" % pid
                rest += [number] if name == b"self" else [number, b"task", number]  # as deep as the link's: for `..`
            else:
                at = _named(root, here, target)
        else:
            at = b"" if target.startswith(b"/") else at
            rest += target.split(b"/")[::-1]
    return at or b"/"


def _hidden(error: OSError, here: bytes, of_the_tracee: tuple[bytes, ...]) -> bool:
    """Say whether procfs may have kept `here` from us and shows it to the role.

    The role owns the user namespaces that it makes, and so may look into their processes, as we may not. With the mount
    option `hidepid` nothing seems to be there. Only of the tracee itself, whose memory we could read, is all shown.
    """
    return error.errno == errno.EACCES or (error.errno == errno.ENOENT and not here.startswith(of_the_tracee))


def _link(here: bytes) -> bytes | None:
    """Return what the symlink says, or None where there is something else."""
    try:
        return os.readlink(here)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise


def _named(root: bytes, here: bytes, target: bytes) -> bytes:
    """Return the path of what a magic link (proc(5): exe, cwd, root, fd/N) stands for."""
    try:
        meant, found = os.stat(root + here), os.lstat(root + target if target.startswith(b"/") else target)
    except OSError:
        raise NamelessError("what it names has no path") from None
    # The link's text is only a description: `/tmp/x (deleted)` may be another file, of that very name.
    if not target.startswith(b"/") or (meant.st_dev, meant.st_ino) != (found.st_dev, found.st_ino):
        raise NamelessError("what it names has no path")
    return target.rstrip(b"/")
