"""SHELL: runs git for a workspace as the user that a repository belongs to, within bounds. Decides nothing.

No configuration but a repository's own is read, no hook and no file system monitor is run, and no transport but the one
asked for. Output goes to files: a pipe could be filled without end, or held open.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import signal
import subprocess  # noqa: TID251 -- no session is there while git runs, whose exit code could be stolen
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Final

from codingagents.rewrite import places
from codingagents.trust.errors import ProcessError

_CLONE_NEWPID = 0x20000000
_ENVIRONMENT: Final = {
    "PATH": places.SYSTEM_PATH,
    "LC_ALL": "C",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",  # since git 2.45; without transports an older one cannot either
}
_SETTINGS: Final = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false"),
    *("-c", "pack.threads=1"),
    # Packs are looked at through windows, so that the bound of the address space is not one of their size.
    *("-c", "core.packedGitWindowSize=32m"),
    *("-c", "core.packedGitLimit=512m"),
)
_SAID_BYTES = 4096
_NOT_THERE = 127  # of setpriv(1) and prlimit(1), for the program that they are to run

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acting:
    """Whose IDs git runs with."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What git may take: None is no bound. `processes` are those of its user, itself among them."""

    written_bytes: int | None = None  # of each file
    memory_bytes: int | None = None  # of each process
    processes: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """How git ended: its exit code or minus the signal, its output where that was not given, its complaint."""

    code: int
    output: bytes
    said: str


def owner_acting(owner: os.stat_result) -> Acting:
    """Return the IDs that the owner of a tree has as a user of this machine; without an account, those of the tree."""
    try:
        account = pwd.getpwuid(owner.st_uid)
    except KeyError:
        return Acting(uid=owner.st_uid, gid=owner.st_gid)
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    return Acting(uid=owner.st_uid, gid=account.pw_gid, groups=tuple(groups))


def git(
    acting: Acting,
    words: Sequence[str],
    *,
    bounds: Bounds,
    given: bytes | IO[bytes] = b"",
    output: IO[bytes] | None = None,
    transport: str = "none",
) -> Done:
    """Run `git WORDS` as `acting` until it ends; all of it is killed when this is interrupted, or out of time.

    Raises `ProcessError` where it cannot be started, or takes too long.
    """
    with contextlib.ExitStack() as stack:
        stdin = given if not isinstance(given, bytes) else _file_of(stack, given)
        stdout = output or _file_of(stack)
        stderr = _file_of(stack)
        try:
            process = subprocess.Popen(
                [*_confining(acting, bounds), "git", "--no-pager", *_SETTINGS, *words],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd="/",
                env={**_ENVIRONMENT, "GIT_ALLOW_PROTOCOL": transport},
                umask=0o022,
                start_new_session=True,  # no terminal to ask at, and a group to kill
            )
        except FileNotFoundError:
            raise ProcessError("setpriv, of util-linux, is needed to run git as its owner; install it") from None
        try:
            code = process.wait(bounds.seconds)
        except BaseException as error:  # out of time, or a signal's
            os.killpg(process.pid, signal.SIGKILL)  # not awaited yet, so the group is still its own
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise ProcessError(f"git took more than {bounds.seconds:.0f} seconds") from None
            raise
        said = _complaint(_read(stderr, _SAID_BYTES))
        if code == _NOT_THERE:
            raise ProcessError(f"git cannot be run: {said}; install git")
        return Done(code, b"" if output else _read(stdout, None), said)


def leave_dead_namespace() -> None:
    """Have children of this process live in its own PID namespace again: the session's has ended, and takes none.

    Raises `OSError`.
    """
    with open("/proc/self/ns/pid", "rb") as own:
        if _libc.setns(own.fileno(), _CLONE_NEWPID) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def _confining(acting: Acting, bounds: Bounds) -> list[str]:
    groups = f"--groups={','.join(map(str, acting.groups))}" if acting.groups else "--clear-groups"
    limits = {"--fsize": bounds.written_bytes, "--as": bounds.memory_bytes, "--nproc": bounds.processes, "--core": 0}
    return [
        *("setpriv", f"--reuid={acting.uid}", f"--regid={acting.gid}", groups, "--no-new-privs", "--pdeathsig=KILL"),
        # After the change of user: it fails where the new one has as many processes as it may.
        *("prlimit", *(f"{name}={limit}" for name, limit in limits.items() if limit is not None)),
    ]


def _file_of(stack: contextlib.ExitStack, content: bytes = b"") -> IO[bytes]:
    file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 -- the stack is its context
    file.write(content)
    file.seek(0)
    return file


def _read(file: IO[bytes], last: int | None) -> bytes:
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - last) if last else 0)
    return file.read()


def _complaint(said: bytes) -> str:
    """Return git's reason to give up, without the advice after it; else its last line."""
    lines = said.decode("utf-8", "replace").strip().splitlines()
    fatal = [line.removeprefix("fatal: ") for line in lines if line.startswith("fatal: ")]
    return (fatal[:1] or lines[-1:] or ["git said nothing"])[0].strip()[:300]
