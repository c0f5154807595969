"""SHELL: the session's directories below /run: tmpfs in a private mount namespace where that is allowed, else plain.

Creates them, says which it got, and removes what a mount namespace would have taken along by itself.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets as randomness
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from codingagents.rewrite import places
from codingagents.supervisor import identities, kernel, namespaces, run_owner
from codingagents.trust.errors import ProcessError

# Executable only where stubs will live; every size is a ceiling, not a reservation.
MOUNTS: Final = (
    (places.RUN_ROOT, "mode=0755,size=64m", 0),
    (places.RUN_SECRETS, "mode=0700,size=16m", kernel.MS_NOEXEC),
    (places.RUN_DATA, "mode=0700,size=256m", kernel.MS_NOEXEC),
    (places.RUN_EXPORT, "mode=0700,size=256m", kernel.MS_NOEXEC),
)


@dataclass(slots=True)
class RunDirs:
    """What was made. `why_plain` is "" where all are tmpfs of our own mount namespace, else the errno or cause."""

    why_plain: str = ""
    probe_file: str = ""  # Landlock's probe, until `drop_probe_file`; "" where there is no place for one
    owner: tuple[int, int] = (0, 0)  # UID and GID of whoever fills the home and the clients' directories
    made: list[str] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)  # those that were there
    lock: run_owner.RunOwner | None = None  # held as long as there are plain ones

    def drop_probe_file(self) -> None:
        """Remove Landlock's probe: whoever tried it holds it open."""
        if self.probe_file:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.probe_file)
            self.probe_file = ""

    def remove(self) -> None:
        """Remove plain directories that this session made or filled; tmpfs ends with its mount namespace.

        Mount points stay: another session of this machine may have mounted on them, and rmdir(2) would take that away.
        `ProcessError` where something in them cannot be removed.
        """
        self.drop_probe_file()
        if self.lock is None:
            return
        try:
            for path in (*reversed(self.made), *self.filled):
                self.empty(path)
                if path in self.made and path != places.RUN_ROOT:
                    os.rmdir(path)
        except OSError as error:
            raise ProcessError(f"cannot remove {error.filename}: {error.strerror}; remove it") from None
        # The lock goes last: what lies there without one is not known to be ours.
        self.lock.release()
        self.lock = None
        if places.RUN_ROOT in self.made:
            with contextlib.suppress(OSError):  # the next session is quick
                os.rmdir(places.RUN_ROOT)
        self.made.clear()
        self.filled.clear()

    def empty(self, path: str) -> None:
        """Remove all that a directory holds, except the lock."""
        for entry in list(os.scandir(path)):
            if entry.is_dir(follow_symlinks=False):
                self._remove_tree(entry.path)
            elif entry.path != run_owner.LOCK:
                os.unlink(entry)

    def _remove_tree(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            shutil.rmtree(path)
        if os.path.lexists(path):
            # Root without CAP_DAC_OVERRIDE may not enter what the owner made private; the owner may. After a session
            # that was killed, that is its agent.
            identity = self.owner
            if os.path.lexists(places.AGENT_HOME):
                home = os.lstat(places.AGENT_HOME)
                identity = home.st_uid, home.st_gid
            identities.empty_as(*identity, path)
            with contextlib.suppress(FileNotFoundError):
                if path == places.AGENT_HOME:  # nobody but its owner may list it
                    os.rmdir(path)
                else:
                    shutil.rmtree(path)


def prepare(*, why_plain: str, agent_uid: int, agent_gid: int, session_dir: str) -> RunDirs:
    """Make all directories; `ProcessError` where one cannot be had or something foreign stands in its place.

    `why_plain` is what `namespaces.enter_mount_namespace` returned. Landlock's probe goes to `session_dir` where the
    session's directories are mounted noexec.
    """
    dirs = RunDirs(why_plain=why_plain, owner=(agent_uid, agent_gid))
    try:
        _fill(dirs)
        dirs.probe_file = make_probe_file((places.RUN_ROOT, session_dir))
    except OSError as error:
        dirs.remove()
        raise ProcessError(f"cannot prepare {error.filename or places.RUN_ROOT}: {error.strerror}") from None
    except ProcessError:
        dirs.remove()
        raise
    return dirs


def _fill(dirs: RunDirs) -> None:
    for path, options, flags in MOUNTS:
        if dirs.why_plain:
            _make_plain(dirs, path, 0o755 if path == places.RUN_ROOT else 0o700)
            continue
        try:
            os.makedirs(path, exist_ok=True)
            kernel.mount("coding-agents", path, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV | flags, options)
        except OSError as error:
            raise ProcessError(f"cannot have a tmpfs on {path}: {error.strerror}; let the engine mount one") from None
    _make_directory(places.CLIENTS, 0o755)
    _make_directory(places.SOCKETS, 0o755)
    _make_directory(places.TRUST, 0o700)
    identities.make_directory_of(*dirs.owner, places.AGENT_HOME)


def make_probe_file(directories: Sequence[str]) -> str:
    """Write a probe file, with a name of its own, in the first of `directories` that allows writing and execution.

    Returns its path, which the caller removes; "" where none does.
    """
    for directory in directories:
        with contextlib.suppress(OSError):
            if not os.statvfs(directory).f_flag & os.ST_NOEXEC:
                return write_probe_file(f"{directory}/.self-test-{randomness.token_hex(8)}")
    return ""


def write_probe_file(path: str) -> str:
    """Make the executable file of no format at `path`, and return the path."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o755)
    os.write(descriptor, b"no program\n")
    os.fchmod(descriptor, 0o755)  # whatever the umask was: the probe's control must be allowed to run it
    os.close(descriptor)
    return path


def try_mounting() -> str:
    """Move this process to a mount namespace of its own with a tmpfs on /run; return "" or why that cannot be."""
    if why := namespaces.enter_mount_namespace():
        return why
    try:
        kernel.mount("coding-agents", "/run", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    return ""


def apparmor_label() -> str:
    """Return this process's AppArmor label, "" where the kernel has no AppArmor."""
    try:
        with open("/proc/self/attr/apparmor/current", encoding="utf-8") as file:
            return file.read().strip("\0\n")
    except OSError:
        return ""


def _make_directory(path: str, mode: int) -> None:
    os.mkdir(path, mode)
    os.chmod(path, mode)  # whatever the umask was


def _make_plain(dirs: RunDirs, path: str, mode: int) -> None:
    try:
        _make_directory(path, mode)
        was_there = False
    except FileExistsError:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise ProcessError(f"{path} is not a directory that only root can write; remove it") from None
        was_there = True
    except OSError as error:
        raise ProcessError(f"cannot create {path}: {error.strerror}; mount a tmpfs there") from None
    if dirs.lock is None:  # the first directory is the one that the lock lies in
        dirs.lock = run_owner.RunOwner()
    if not was_there:
        dirs.made.append(path)
        return
    if dirs.lock.inherited:
        dirs.empty(path)
    elif set(os.listdir(path)) - {os.path.basename(run_owner.LOCK)}:
        raise ProcessError(f"{path} is not empty, and no session left it so; remove it")
    os.chmod(path, mode)
    dirs.filled.append(path)
