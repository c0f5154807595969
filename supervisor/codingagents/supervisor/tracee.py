"""SHELL: reads what a trapped process asked to execute, as a role's own filesystem identity where root may not.

Under Docker's default Linux capabilities root cannot open another UID's /proc/PID/mem, but that UID can
(ptrace(2), access mode checks use the filesystem IDs): the reading thread becomes it. Every read is bounded. Of what
the tracee chose only regular files are read, a line's worth, and only as the role may. No decision here.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from dataclasses import dataclass
from typing import Final, Self

import msgspec

from codingagents.supervisor import exec_policy, kernel
from codingagents.supervisor.programs import Program
from codingagents.supervisor.scripts import Interpreted, Scripts
from codingagents.supervisor.seccomp import Notification
from codingagents.supervisor.tracee_paths import FileTree, NamelessError, find, path_in_proc
from codingagents.trust import linux

_PAGE: Final = 4096  # or a part of a page, where pages are larger
_ADDRESSES: Final = 1 << 63  # what a file offset can say; no process has memory above
MAX_PATH: Final = 4096  # PATH_MAX of the kernel, terminating NUL included
MAX_ARGUMENTS: Final = 512  # pointers read
MAX_ARGUMENT_BYTES: Final = 128 * 1024  # of all arguments together; the rest is only marked as truncated
_RECOGNIZABLE: Final = 512  # bytes kept of an argument that is over the limit
MAX_VARIABLES: Final = 8192  # looked at; with more, the call is unreadable
_VARIABLE: Final = 256  # bytes of one that tell whether it has code loaded
_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_STATUS: Final = re.compile(rb"\nTgid:\t(\d+)\n(?s:.*?)\nPPid:\t(\d+)\n(?s:.*?)\nUid:\t(\d+)\t")


class Caller(msgspec.Struct, frozen=True):
    """Who called, in the reader's PID namespace; zeros where that could not be read, and -1 for the UID."""

    pid: int = 0
    parent_pid: int = 0
    uid: int = -1  # real


class UnreadableTraceeError(Exception):
    """The tracee cannot be read, so what it asks for is unknown; the only safe answer is a denial."""

    def __init__(self, reason: str, path: bytes = b"", caller: Caller | None = None) -> None:
        """Say why, and which path was written and by whom, where that could be read."""
        super().__init__(reason)
        self.path = path
        self.caller = caller or Caller()


class ExecCall(msgspec.Struct, kw_only=True):
    """One execve or execveat as the tracee's memory said it when it was read; the kernel will read it again."""

    caller: Caller
    path: bytes  # absolute, as written
    resolved: bytes | None  # after symlinks; None where nothing is there or the role may not look
    program: Program | None  # what is there, where the role may look; whoever got the call closes it
    interpreted: Interpreted  # by what, where it is a script
    working_directory: bytes
    argv: list[bytes]
    truncated: bool
    loading: bytes = b""  # name of a variable by which other code than the program's would run in it


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceeReader:
    """Reads tracees of one role.

    `fs_ids` is (uid, gid) to become for good, or None with CAP_SYS_PTRACE. `tree` is what the role's paths are taken to
    mean, and each call is held to it; None where the role was seen to be unable to leave ours (a root directory of its
    own takes a Linux capability, a mount namespace a call that is refused). `procs` is `tracee_paths.proc_mounts()`;
    `apart` is said there. `environments` has each call's looked through for `exec_policy.loads_code`.
    """

    fs_ids: tuple[int, int] | None
    groups: tuple[int, ...]
    tree: FileTree | None
    procs: tuple[bytes, ...]
    scripts: Scripts
    apart: bool = False
    environments: bool = False

    def prepare_thread(self) -> None:
        """Make the calling thread, which reads from now on, the role as far as files are concerned, for good.

        Its groups too, since the role's paths may lead through them. The thread keeps root's UID, and that is what
        signals and ptrace(2) ask for of their target. The dumpable flag, which the change clears, is the whole
        process's; the main thread's parent-death signal is its own and stays.
        """
        _become(self.fs_ids, self.groups)

    def prepare_file_thread(self) -> None:
        """Make the calling thread, which reads files and no tracees, the role likewise, with CAP_SYS_PTRACE too."""
        _become(self.fs_ids or self.scripts.file_ids, self.groups)

    def read(self, notification: Notification) -> ExecCall:
        """Return what `notification` asks for; `UnreadableTraceeError` where any needed part cannot be had."""
        pid = notification.pid
        written, caller = b"", None
        try:
            caller = _caller(pid)
            at = notification.nr == linux.machine().number("execveat")
            args = notification.args
            path_pointer, argv_pointer, environment_pointer = args[1:4] if at else args[0:3]
            with _Memory(pid) as memory:
                written = memory.path(path_pointer)
                argv, truncated = memory.argv(argv_pointer)
                loading = memory.loading(environment_pointer) if self.environments else b""
            if self.tree is not None and not self.tree.is_of(pid):
                raise UnreadableTraceeError("its root directory or mount namespace is its own", written, caller)
            directory = _working_directory(pid)
            base = _base(written, at, args)
            path = _absolute(written, b"/proc/%d/%b" % (pid, base) if base else b"")
            start = path_in_proc(pid, base, apart=self.apart) if base else b""
            resolved, program, interpreted = self._program(pid, start + b"/" + written)
        except NamelessError as error:
            raise UnreadableTraceeError(str(error), written, caller) from None
        except OSError as error:
            raise UnreadableTraceeError(os.strerror(error.errno or 0), written, caller) from None
        return ExecCall(
            caller=caller,
            path=path,
            resolved=resolved,
            program=program,
            interpreted=interpreted,
            working_directory=directory,
            argv=argv,
            truncated=truncated,
            loading=loading,
        )

    def _program(self, pid: int, path: bytes) -> tuple[bytes | None, Program | None, Interpreted]:
        resolved, descriptor = find(pid, path, self.procs, apart=self.apart)
        if descriptor < 0:
            return resolved, None, Interpreted()
        program = Program(descriptor)
        try:
            return resolved, program, self.scripts.interpreters(pid, program)
        except BaseException:
            program.close()
            raise


def _become(ids: tuple[int, int] | None, groups: tuple[int, ...]) -> None:
    if ids is not None:
        kernel.set_groups_of_this_thread(groups)
        kernel.set_fs_ids(*ids)
        linux.prctl(linux.PR_SET_DUMPABLE, 1)


def _working_directory(pid: int) -> bytes:
    """Return it for the record; b"" where it lies too deep for a path to say, as only relative execs depend on it."""
    try:
        return os.readlink(b"/proc/%d/cwd" % pid)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return b""
        raise


def _base(path: bytes, at: bool, args: tuple[int, ...]) -> bytes:
    """Return where a path starts, as a process's entry of procfs calls it: `cwd`, a descriptor, or "" for the root."""
    if path.startswith(b"/"):
        return b""
    descriptor = struct.unpack("<i", struct.pack("<I", args[0] & 0xFFFFFFFF))[0] if at else _AT_FDCWD
    if descriptor == _AT_FDCWD or (not path and not args[4] & _AT_EMPTY_PATH):
        return b"cwd"
    return b"fd/%d" % descriptor


def _absolute(path: bytes, base: bytes) -> bytes:
    """Return `path` as a rule can match it: a relative one below what its base is called."""
    if not base:
        return path
    named = os.readlink(base)
    return named + b"/" + path if path else named


class _Memory:
    """A process's memory, read page by page and each page once: an argv's strings lie side by side."""

    def __init__(self, pid: int) -> None:
        self._descriptor = os.open(b"/proc/%d/mem" % pid, os.O_RDONLY | os.O_CLOEXEC)
        self._pages: dict[int, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def path(self, address: int) -> bytes:
        """Return the path at `address`; one that is too long is ENAMETOOLONG, as the kernel has it."""
        path, whole = self._string(address, MAX_PATH)
        if not whole:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return path

    def argv(self, address: int) -> tuple[list[bytes], bool]:
        """Return up to the limits of argv, and whether there was more."""
        argv: list[bytes] = []
        left = MAX_ARGUMENT_BYTES
        while address:  # Linux takes a NULL argv as empty
            pointer = int.from_bytes(self._take(address, 8), "little")
            if pointer == 0:
                break
            if len(argv) >= MAX_ARGUMENTS or left <= 0:
                return argv, True
            argument, whole = self._string(pointer, left)
            if not whole:
                argv.append(argument[:_RECOGNIZABLE])
                return argv, True
            argv.append(argument)
            left -= len(argument) + 1
            address += 8
        return argv, False

    def loading(self, address: int) -> bytes:
        """Return the name of an environment's variable that has code loaded, or b""; E2BIG past the limit."""
        found: list[bytes] = []
        for _ in range(MAX_VARIABLES):
            pointer = int.from_bytes(self._take(address, 8), "little") if address else 0
            if pointer == 0:
                return exec_policy.first_of(found)
            beginning, _ = self._string(pointer, _VARIABLE)
            if name := exec_policy.loads_code(beginning):
                found.append(name)
            address += 8
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))

    def _string(self, address: int, limit: int) -> tuple[bytes, bool]:
        """Return the string at `address` and True, or its first `limit` bytes and False where no NUL is in them."""
        found = bytearray()
        while len(found) < limit:
            page, offset = self._page(address), address % _PAGE
            end = page.find(b"\0", offset, offset + limit - len(found))
            if end >= 0:
                return bytes(found + page[offset:end]), True
            found += page[offset : offset + limit - len(found)]
            address += _PAGE - offset
        return bytes(found), False

    def _take(self, address: int, size: int) -> bytes:
        page, offset = self._page(address), address % _PAGE
        found = page[offset : offset + size]
        return found if len(found) == size else found + self._page(address + len(found))[: size - len(found)]

    def _page(self, address: int) -> bytes:
        number = address // _PAGE
        page = self._pages.get(number)
        if page is None:
            if address >= _ADDRESSES:
                raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
            page = self._pages[number] = os.pread(self._descriptor, _PAGE, number * _PAGE)
            if len(page) < _PAGE:
                raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        return page


def _caller(thread: int) -> Caller:
    """Return whose thread it is: in a tenth of the time where the kernel tells it without its /proc."""
    try:
        return Caller(*kernel.process_of(thread))
    except OSError:
        return _caller_in_proc(thread)


def _caller_in_proc(thread: int) -> Caller:
    """Return the same by /proc; a process's name, which may hold anything, has its newlines escaped (proc(5))."""
    descriptor = os.open(b"/proc/%d/status" % thread, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = _STATUS.search(os.read(descriptor, 1024))
    finally:
        os.close(descriptor)
    if found is None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return Caller(int(found[1]), int(found[2]), int(found[3]))
