"""SHELL: the session's directories below /run: tmpfs in a private mount namespace where that is allowed, else plain.

Or what the engine mounted there. Creates them, reads back which it got, and removes what a mount namespace would have
taken along by itself.
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
from codingagents.supervisor import identities, kernel, mounts_seen, namespaces, run_owner
from codingagents.supervisor.mounts_seen import Mount, Place, Wanted
from codingagents.trust.errors import ProcessError

_HOME: Final = "home"  # as the last part of AGENT_HOME and TASK_HOME


@dataclass(slots=True)
class RunDirs:
    """What was made. `why_plain` is "" where all are tmpfs of our own mount namespace, else the errno or cause."""

    why_plain: str = ""
    probe_file: str = ""  # Landlock's probe, until `drop_probe_file`; "" where there is no place for one
    # UID and GID of whoever fills a home and what lies beside it: the agent's, and that of the tasks.
    owner: tuple[int, int] = (0, 0)
    task_owner: tuple[int, int] = (0, 0)
    made: list[str] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)  # those that were there, an engine's mounts among them
    seen: Sequence[Place] = ()  # what was read back of each
    lock: run_owner.RunOwner | None = None  # held as long as there are plain ones

    def drop_probe_file(self) -> None:
        """Remove Landlock's probe: whoever tried it holds it open."""
        if self.probe_file:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.probe_file)
            self.probe_file = ""

    def remove(self) -> None:
        """Remove plain directories that this session made, and empty those that it filled.

        Its own tmpfs end with their mount namespace.

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
            # that was killed, that is whose home lies beside it, and where all may write whoever made what lies there.
            directory = os.path.dirname(path)
            home, identity = f"{directory}/{_HOME}", self.task_owner if directory == places.RUN_TASKS else self.owner
            if os.path.lexists(home):
                found = os.lstat(home)
                identity = found.st_uid, found.st_gid
            for each in _makers(path) if path == places.TASK_FILES else {identity}:
                identities.empty_as(*each, path)
            with contextlib.suppress(FileNotFoundError):
                if path == home:  # nobody but its owner may list it
                    os.rmdir(path)
                else:
                    shutil.rmtree(path)


def prepare(*, why_plain: str, agent: tuple[int, int], task: tuple[int, int], session_dir: str) -> RunDirs:
    """Make all directories; `ProcessError` where one cannot be had or something foreign stands in its place.

    `agent` and `task` are UID and GID of who gets a home. `why_plain` is what `namespaces.enter_mount_namespace`
    returned. Landlock's probe goes to `session_dir` where the session's directories are mounted noexec.
    """
    dirs = RunDirs(why_plain=why_plain, owner=agent, task_owner=task)
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
    engines = _mounts() if dirs.why_plain else ()
    for wanted in mounts_seen.WANTED:
        if dirs.why_plain:
            _take(dirs, wanted, is_mount=mounts_seen.mount_at(engines, wanted.path) is not None)
            continue
        try:
            _mount(wanted)
        except OSError as error:
            raise ProcessError(
                f"cannot have a tmpfs on {wanted.path}: {error.strerror}; let the engine mount one"
            ) from None
    dirs.seen = look(ours=not dirs.why_plain)
    _make_directory(places.CLIENTS, 0o755)
    _make_directory(places.SOCKETS, 0o755)
    _make_directory(places.TRUST, 0o700)
    identities.make_directory_of(*dirs.owner, places.AGENT_HOME)
    _make_directory(places.SHELLS, 0o755)
    identities.make_directory_of(*dirs.task_owner, places.TASK_HOME)
    _make_directory(places.TASK_FILES, 0o1777)


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


def try_mounting() -> tuple[str, Sequence[Place]]:
    """Mount as a session would, in a mount namespace of this process's own, and return "" and what was read back.

    Where that cannot be: why, and what a session would find there; then nothing is changed.
    """
    if why := namespaces.enter_mount_namespace():
        return why, look(ours=False, before=True)
    try:
        # Over all of it, so that no mount point is left on the machine.
        kernel.mount("coding-agents", "/run", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755")
        for wanted in mounts_seen.WANTED:
            _mount(wanted)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?"), look(ours=False, before=True)
    return "", look(ours=True)


def look(*, ours: bool, before: bool = False) -> list[Place]:
    """Return what stands at each of the directories. `before`: as it will be once a session has set root's modes."""
    mounts = _mounts()
    places_seen = []
    for wanted in mounts_seen.WANTED:
        mount = mounts_seen.mount_at(mounts, wanted.path)
        owner, mode = 0, wanted.mode
        if mount is not None:
            found = os.lstat(wanted.path)
            owner = found.st_uid
            if not before or owner != os.geteuid():
                mode = stat.S_IMODE(found.st_mode)
        places_seen.append(mounts_seen.place_of(wanted, mount, ours=ours, owner=owner, mode=mode))
    return places_seen


def apparmor_label() -> str:
    """Return this process's AppArmor label, "" where the kernel has no AppArmor."""
    try:
        with open("/proc/self/attr/apparmor/current", encoding="utf-8") as file:
            return file.read().strip("\0\n")
    except OSError:
        return ""


def _makers(path: str) -> set[tuple[int, int]]:
    """Return UID and GID of whoever made what lies in the directory `path`."""
    found = [entry.stat(follow_symlinks=False) for entry in os.scandir(path)]
    return {(status.st_uid, status.st_gid) for status in found}


def _make_directory(path: str, mode: int) -> None:
    os.mkdir(path, mode)
    os.chmod(path, mode)  # whatever the umask was


def _mounts() -> tuple[Mount, ...]:
    with open("/proc/self/mountinfo", "rb") as file:
        data = file.read(mounts_seen.MAX_MOUNTINFO + 1)
    try:
        return mounts_seen.parse_mountinfo(data)
    except ValueError as error:
        raise ProcessError(f"cannot tell what is mounted here: /proc/self/mountinfo: {error}") from None


def _mount(wanted: Wanted) -> None:
    """Mount a tmpfs of ours that nobody can mount a second time elsewhere."""
    os.makedirs(wanted.path, exist_ok=True)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | (0 if wanted.executable else kernel.MS_NOEXEC)
    kernel.mount("coding-agents", wanted.path, "tmpfs", flags, wanted.options)
    kernel.mount("none", wanted.path, None, kernel.MS_UNBINDABLE)


def _take(dirs: RunDirs, wanted: Wanted, *, is_mount: bool) -> None:
    """Have a plain directory, or what the engine mounted there; `ProcessError` where that is not safe to use."""
    path = wanted.path
    try:
        _make_directory(path, wanted.mode)
        was_there = False
    except FileExistsError:
        _require_roots(wanted, is_mount=is_mount)
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
    os.chmod(path, wanted.mode)
    dirs.filled.append(path)


def _require_roots(wanted: Wanted, *, is_mount: bool) -> None:
    """Refuse what another user can write. An engine's tmpfs is open to all unless told otherwise; ours to close."""
    path = wanted.path
    if is_mount:
        with contextlib.suppress(OSError):  # what came of it is seen below
            os.chmod(path, wanted.mode)
    found = os.lstat(path)
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022:
        return
    if is_mount:
        raise ProcessError(
            f"what is mounted on {path} is not root's alone to write; "
            f"mount it by --tmpfs {path}:{wanted.engine_options}"
        )
    raise ProcessError(f"{path} is not a directory that only root can write; remove it")
