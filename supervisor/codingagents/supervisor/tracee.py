"""SHELL: reads what a trapped process asked to execute, as a role's own filesystem identity where root may not.

Under Docker's default Linux capabilities root cannot open another UID's /proc/PID/mem, but that UID can
(ptrace(2), access mode checks use the filesystem IDs): the reading thread becomes it for four system calls. Every
read is bounded; nothing that the tracee chose is opened except with O_PATH, which never blocks. No decision here.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from codingagents.supervisor import kernel
from codingagents.supervisor.seccomp import Notification

_PAGE: Final = 4096
MAX_PATH: Final = 4096  # PATH_MAX of the kernel, terminating NUL included
MAX_ARGUMENTS: Final = 512  # pointers read
MAX_ARGUMENT_BYTES: Final = 128 * 1024  # of all arguments together; the rest is only marked as truncated
_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000


class UnreadableTraceeError(Exception):
    """The tracee cannot be read, so what it asks for is unknown; the only safe answer is a denial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecCall:
    """One execve or execveat as the tracee's memory said it when it was read; the kernel will read it again."""

    pid: int
    parent_pid: int
    path: bytes  # absolute, as written, /proc/self made /proc/PID
    resolved: bytes | None  # after symlinks; None where nothing is there or the role may not look
    working_directory: bytes
    argv: list[bytes]
    truncated: bool


@dataclass(frozen=True, slots=True)
class TraceeReader:
    """Reads tracees of one role. `fs_ids` is (uid, gid) to become for a moment, or None with CAP_SYS_PTRACE."""

    fs_ids: tuple[int, int] | None
    rearm_death_signal: bool = False

    @contextmanager
    def _identity(self) -> Iterator[None]:
        if self.fs_ids is None:
            yield
            return
        # Per thread, by raw calls. The way back is in `finally`: a reader stuck as the role would be its prey.
        kernel.set_fs_ids(*self.fs_ids)
        try:
            yield
        finally:
            kernel.set_fs_ids(0, 0)
            kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
            if self.rearm_death_signal:
                kernel.set_parent_death_signal()

    def read(self, notification: Notification) -> ExecCall:
        """Return what `notification` asks for; `UnreadableTraceeError` where any needed part cannot be had."""
        pid = notification.pid
        at = notification.nr == kernel.abi().execveat
        args = notification.args
        path_pointer, argv_pointer = (args[1], args[2]) if at else (args[0], args[1])
        try:
            with self._identity():
                memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
                try:
                    path = _read_string(memory, path_pointer, MAX_PATH)
                    directory = os.readlink(os.fsencode(f"/proc/{pid}/cwd"))
                    base = _base(pid, path, at, args, directory)
                    path = _absolute(pid, path, base)
                    resolved = _resolve(path)
                except BaseException:
                    os.close(memory)
                    raise
            try:
                argv, truncated = _read_argv(memory, argv_pointer)
            finally:
                os.close(memory)
            parent = _parent_pid(pid)
        except OSError as error:
            raise UnreadableTraceeError(f"{os.strerror(error.errno or 0)}") from None
        return ExecCall(
            pid=pid,
            parent_pid=parent,
            path=path,
            resolved=resolved,
            working_directory=directory,
            argv=argv,
            truncated=truncated,
        )


def _base(pid: int, path: bytes, at: bool, args: tuple[int, ...], cwd: bytes) -> bytes:
    """Return the directory (or, for AT_EMPTY_PATH, the file) that a relative path starts from."""
    if not at:
        return cwd
    descriptor = struct.unpack("<i", struct.pack("<I", args[0] & 0xFFFFFFFF))[0]
    if descriptor == _AT_FDCWD or path.startswith(b"/"):
        return cwd
    if not path and not args[4] & _AT_EMPTY_PATH:
        return cwd
    return os.readlink(os.fsencode(f"/proc/{pid}/fd/{descriptor}"))


def _absolute(pid: int, path: bytes, base: bytes) -> bytes:
    full = path if path.startswith(b"/") else (base + b"/" + path if path else base)
    for magic in (b"/proc/self", b"/proc/thread-self"):
        if full == magic or full.startswith(magic + b"/"):
            return b"/proc/%d" % pid + full[len(magic) :]
    return full


def _resolve(path: bytes) -> bytes | None:
    """Return where `path` leads, symlinks followed, without opening what is there for reading."""
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        return os.readlink(b"/proc/self/fd/%d" % target)
    finally:
        os.close(target)


def _read_string(memory: int, address: int, limit: int) -> bytes:
    """Return the NUL-terminated string at `address`; longer than `limit` is ENAMETOOLONG, as the kernel has it."""
    pieces = bytearray()
    while len(pieces) < limit:
        # A read that crosses into an unmapped page comes back short or fails: never ask across a page.
        size = min(_PAGE - address % _PAGE, limit - len(pieces))
        data = os.pread(memory, size, address)
        if not data:
            raise OSError(14, "EFAULT")
        end = data.find(b"\0")
        if end >= 0:
            return bytes(pieces) + data[:end]
        pieces += data
        address += len(data)
    raise OSError(36, "ENAMETOOLONG")


def _read_argv(memory: int, address: int) -> tuple[list[bytes], bool]:
    """Return up to the limits of argv, and whether there was more."""
    argv: list[bytes] = []
    if address == 0:  # Linux takes a NULL argv as empty
        return argv, False
    total = 0
    while True:
        size = min(_PAGE - address % _PAGE, 8 * 64)
        block = os.pread(memory, size - size % 8 or 8, address)
        if len(block) < 8:
            raise OSError(14, "EFAULT")
        for (pointer,) in struct.iter_unpack("<Q", block[: len(block) - len(block) % 8]):
            if pointer == 0:
                return argv, False
            if len(argv) >= MAX_ARGUMENTS:
                return argv, True
            try:
                argument = _read_string(memory, pointer, MAX_ARGUMENT_BYTES - total)
            except OSError as error:
                if error.errno != 36:
                    raise
                argv.append(os.pread(memory, 512, pointer))  # enough of a huge argument to recognise it
                return argv, True
            argv.append(argument)
            total += len(argument) + 1
            if total >= MAX_ARGUMENT_BYTES:
                return argv, True
        address += len(block)


def _parent_pid(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
        # The command name may hold anything, so fields count from the last parenthesis.
        return int(file.read(1024).rpartition(b")")[2].split()[1])
