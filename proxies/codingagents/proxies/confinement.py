"""SHELL: what a helper does to its own process: keeps only its descriptors, changes its UID for good, hides its memory.

Does not serve and knows no spec; every step is read back, and one that did not take raises `ProcessError`.
Linux only: prctl(2), close_range(2), proc(5).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import stat
import struct

from codingagents.trust.errors import ProcessError

CHANNEL = 3  # the descriptors of a helper, after everything else was closed
LISTENER = 4
SOCK_DIAG = 5  # only where the listener belongs to another network namespace
_ABOVE = 10  # out of the way of every number that gets a meaning
_NO_LIMIT = 1 << 20  # close_range(2) ignores what lies past the table

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_GET_DUMPABLE = 3
_PR_SET_NAME = 15
_PR_GET_SECCOMP = 21
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_PR_GET_NO_NEW_PRIVS = 39

_SECCOMP_MODE_FILTER = 2
# linux/filter.h and linux/seccomp.h; offsets in struct seccomp_data
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _DENY, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
_NUMBER, _ARCHITECTURE = 0, 4
_X32 = 0x40000000  # x86-64's second table begins here; others have no such numbers
# By machine: AUDIT_ARCH_*, execve, execveat.
_EXECS = {"x86_64": (0xC000003E, 59, 322), "aarch64": (0xC00000B7, 221, 281)}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
_libc.prctl.restype = ctypes.c_int


def _prctl(option: int, argument: int = 0, another: int = 0) -> int:
    result: int = _libc.prctl(option, argument, another, 0, 0)
    if result < 0:
        number = ctypes.get_errno()
        raise ProcessError(f"prctl({option}) failed: {os.strerror(number)}")
    return result


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent's *thread* that made this process ends, prctl(2).

    A second line behind EOF on the channel. The supervisor therefore makes the zygote from its main thread. The kernel
    clears the request at every change of credentials: call again after it.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def name_process(name: str) -> None:
    """Set what `ps` shows, 15 bytes at most; the argv of the zygote stays visible beside it."""
    buffer = ctypes.create_string_buffer(name.encode("ascii", "replace")[:15])
    _prctl(_PR_SET_NAME, ctypes.addressof(buffer))


def keep_only(*descriptors: int) -> None:
    """Move channel, listener and perhaps netlink socket to their numbers, put 0 to 2 on /dev/null, close the rest."""
    high = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for number in descriptors]
    null = fcntl.fcntl(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC), fcntl.F_DUPFD_CLOEXEC, _ABOVE)
    for number in (0, 1, 2):
        os.dup2(null, number)
    for number, kept in enumerate(high, CHANNEL):
        os.dup2(kept, number, inheritable=False)
    os.closerange(CHANNEL + len(high), _NO_LIMIT)


def open_descriptors() -> dict[int, str]:
    """Return {number: target} of this process, as proc(5) tells it, without the descriptor of the listing itself."""
    found: dict[int, str] = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own descriptor, closed by now
    return dict(sorted(found.items()))


def assert_nothing_foreign(*, sock_diag: bool = False) -> None:
    """Raise `ProcessError` unless exactly /dev/null three times, the channel and the listener are open.

    And, with `sock_diag`, the netlink socket that answers for the listener's network namespace.
    """
    found = open_descriptors()
    sockets = [CHANNEL, LISTENER, *([SOCK_DIAG] if sock_diag else [])]
    if set(found) != {0, 1, 2, *sockets}:
        raise ProcessError(f"a helper must hold descriptors {[0, 1, 2, *sockets]}, found {found}")
    null = os.stat(os.devnull).st_rdev
    for number in (0, 1, 2):
        if os.fstat(number).st_rdev != null:
            raise ProcessError(f"descriptor {number} of a helper must be {os.devnull}, found {found[number]}")
    for number in sockets:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            raise ProcessError(f"descriptor {number} of a helper must be a socket, found {found[number]}")


def forbid_exec() -> None:
    """Make every exec fail with EPERM, here and in all that is forked, for good; needs no_new_privs.

    A helper never needs one, and nothing else would see what it ran if it were not ours any more.
    """
    architecture, execve, execveat = _EXECS[os.uname().machine]
    # The two numbers of a jump: how many instructions to skip where the comparison holds, and where not.
    program = (
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, 2, 0, _X32),
        (_IF_EQUAL, 1, 0, execve),
        (_IF_EQUAL, 0, 1, execveat),
        (_RETURN, 0, 0, _DENY),
        (_RETURN, 0, 0, _ALLOW),
    )
    code = b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    fprog = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(buffer)))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(fprog))


def drop(uid: int, gid: int) -> None:
    """Become `uid` and `gid` for good: no groups, capabilities, new privileges, execs or core, not traceable.

    Raises `ProcessError` where a step failed or did not read back as demanded.
    """
    if uid == 0 or gid == 0:
        raise ProcessError("a helper never runs as root: give it a UID and GID of its own")
    try:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.umask(0o077)
        os.chdir("/")
    except OSError as error:
        raise ProcessError(f"the helper cannot become UID {uid}: {error.strerror}") from None
    os.environ.clear()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    forbid_exec()
    _prctl(_PR_SET_DUMPABLE, 0)
    die_with_parent()
    _assert_dropped(uid, gid)


def _assert_dropped(uid: int, gid: int) -> None:
    facts = {
        "real, effective and saved UID": (os.getresuid(), (uid, uid, uid)),
        "real, effective and saved GID": (os.getresgid(), (gid, gid, gid)),
        "groups": (os.getgroups(), []),
        "no_new_privs": (_prctl(_PR_GET_NO_NEW_PRIVS), 1),
        "seccomp mode": (_prctl(_PR_GET_SECCOMP), _SECCOMP_MODE_FILTER),
        "dumpable": (_prctl(_PR_GET_DUMPABLE), 0),
        "capabilities": (_capabilities(), {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapAmb": 0}),
    }
    for what, (found, wanted) in facts.items():
        if found != wanted:
            raise ProcessError(f"the helper's {what} must be {wanted} and is {found}")


def _capabilities() -> dict[str, int]:
    # As bytes: a codec would be imported here and now, in each helper, and from paths that may be root's alone.
    with open("/proc/self/status", "rb", buffering=0) as status:
        pairs = (line.split(b":", 1) for line in status.read().splitlines() if line.startswith(b"Cap"))
        return {name.decode(): int(mask, 16) for name, mask in pairs if name != b"CapBnd"}
