"""SHELL: the acts that a helper tries on itself, to see which are refused. Harmless where they succeed. Judges nothing.

Each is tried before its layer is on and after: the first is the control, without which a refusal shows little.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable, Mapping
from socket import SocketType  # the bare one: what a helper runs, it has a copy of in its own memory

from codingagents.proxies.layer_rows import Tried
from codingagents.trust import linux

Acts = Mapping[str, Callable[[], object]]
_PTRACE_PEEKDATA = 2
# _LINUX_CAPABILITY_VERSION_3, of this process; two rows of effective, permitted and inheritable.
_CAPABILITY_HEADER = (ctypes.c_uint32 * 2)(0x20080522, 0)
_CAPABILITY_DATA = (ctypes.c_uint32 * 6)()
_NOTHING = (ctypes.c_char_p * 1)(None)


def outcomes(acts: Acts) -> dict[str, str]:
    """Try each and return its outcome: an errno's name, or "succeeded"."""
    return {name: linux.attempt(act) for name, act in acts.items()}


def compared(layer: str, acts: Acts, before: Mapping[str, str], *, wanted: str) -> list[Tried]:
    """Try each again, now that `layer` is on."""
    return [
        Tried(layer=layer, act=name, outcome=outcome, wanted=wanted, control=before[name])
        for name, outcome in outcomes(acts).items()
    ]


def privileges(uid: int, gid: int) -> list[Tried]:
    """Read back what was dropped, and try to be root again."""
    values = {
        ("uid_drop", "UIDs"): (os.getresuid(), (uid, uid, uid)),
        ("uid_drop", "GIDs"): (os.getresgid(), (gid, gid, gid)),
        ("uid_drop", "groups"): (os.getgroups(), []),
        ("uid_drop", "setresuid(0, 0, 0)"): (linux.attempt(os.setresuid, 0, 0, 0), "EPERM"),
        ("capabilities", "held"): (_capabilities(), "none"),
        ("no_new_privs", "PR_GET_NO_NEW_PRIVS"): (linux.prctl(linux.PR_GET_NO_NEW_PRIVS), 1),
        ("non_dumpable", "PR_GET_DUMPABLE"): (linux.prctl(linux.PR_GET_DUMPABLE), 0),
        ("environment", "variables"): (len(os.environ), 0),
    }
    return [
        Tried(layer=layer, act=act, outcome=str(outcome), wanted=str(wanted))
        for (layer, act), (outcome, wanted) in values.items()
    ]


def _capabilities() -> str:
    """Return the sets that count (effective, permitted, inheritable) as bits; the bounding set is for programs only."""
    linux.syscall(linux.machine().number("capget"), _CAPABILITY_HEADER, _CAPABILITY_DATA)
    return "none" if not any(_CAPABILITY_DATA) else " ".join(f"{word:08x}" for word in _CAPABILITY_DATA)


def _and_close(family: int, kind: int, act: Callable[..., object], *arguments: object) -> None:
    tried = SocketType(family, kind)
    try:
        act(tried, *arguments)
    finally:
        tried.close()


def _bind() -> None:
    _and_close(socket.AF_INET, socket.SOCK_STREAM, SocketType.bind, ("127.0.0.1", 0))


def _connect() -> None:
    _and_close(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, SocketType.connect, ("127.0.0.1", 0))


FILES: Acts = {
    "open / for reading": lambda: os.open("/", os.O_RDONLY | os.O_CLOEXEC),
    "open /dev/null for writing": lambda: os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC),
}
# Nobody can listen on port 0: without Landlock the machine itself refuses the connection.
NETWORK: Acts = {"bind a TCP port": _bind, "connect to TCP port 0": _connect}


def abstract_receiver() -> SocketType:
    """Return a socket with an abstract address of the kernel's choice, for `scope` to be refused."""
    receiver = SocketType(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind("")
    return receiver


def scope(receiver: SocketType) -> Acts:
    """Return what Landlock's scopes forbid, as long as `receiver` was bound before."""
    address = receiver.getsockname()
    return {
        "send to an abstract unix socket": lambda: _and_close(
            socket.AF_UNIX, socket.SOCK_DGRAM, SocketType.sendto, b"", address
        )
    }


def _execve() -> None:
    """Run the program of the empty path: there is none (ENOENT)."""
    linux.syscall(linux.machine().number("execve"), b"", _NOTHING, _NOTHING)


def _ptrace() -> None:
    """Read a word of process 0: there is none (ESRCH)."""
    linux.syscall(linux.machine().number("ptrace"), ctypes.c_long(_PTRACE_PEEKDATA), ctypes.c_long(0), None, None)


def _unshare() -> None:
    """Leave no namespace."""
    linux.syscall(linux.machine().number("unshare"), ctypes.c_int(0))


def _local_socket() -> None:
    SocketType(socket.AF_UNIX, socket.SOCK_STREAM).close()


CALLS: Acts = {
    "execve": _execve,
    "ptrace": _ptrace,
    "unshare": _unshare,
    "memfd_create": lambda: linux.memfd_create(0),
    "socket(AF_UNIX)": _local_socket,
}
