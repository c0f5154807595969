"""Tries in a container, by its own means, what the layer report speaks about; imports nothing of the project.

`python3 -I probe.py UID OUTSIDE` as root: each act in a child of its own, one JSON object on standard output. OUTSIDE
is an executable file of no format on a file system that allows execution.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import resource
import struct
import sys
import traceback
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
X86 = platform.machine() == "x86_64"
SECCOMP, MEMFD_CREATE, KEYCTL = (317, 319, 250) if X86 else (277, 279, 219)
SETFSUID, SETFSGID = (122, 123) if X86 else (151, 152)
PROCESS_VM_READV, CLONE3, USERFAULTFD = (310, 435, 323) if X86 else (270, 435, 282)
NO_ROOT_PRIVILEGES = 0xEB  # securebits.h: NOROOT and NO_CAP_AMBIENT_RAISE, and every bit locked
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
NEWNS = 0x20000
RUN_DIRECTORIES = (
    *("/run/coding-agents", "/run/agent-secrets", "/run/agent-task-runner"),
    *("/run/agent-tasks", "/run/agent-data", "/run/agent-data-export"),
)


def checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def syscall(number: int, *arguments: Any) -> int:
    return checked(libc.syscall(ctypes.c_long(number), *arguments))


def prctl(option: int, argument: int = 0) -> int:
    zero = ctypes.c_ulong(0)
    return checked(libc.prctl(option, ctypes.c_ulong(argument), zero, zero, zero))


def outcome(act: Callable[..., object], *arguments: object) -> str:
    try:
        act(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def in_child(act: Callable[[], Any]) -> Any:
    """Return what `act` returns in a forked child, or the errno's name."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            try:
                result = act()
            except OSError as error:
                result = errno.errorcode[error.errno or 0]
            os.write(writing, json.dumps(result).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(answer)


def status(name: str, pid: str = "self") -> str:
    with open(f"/proc/{pid}/status") as file:
        return next(line.split()[1] for line in file if line.startswith(name + ":"))


def become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def uid_drop(uid: int) -> list[str]:
    become(uid)
    return [outcome(os.setresuid, 0, 0, 0), outcome(os.kill, os.getppid(), 0)]


def drop_bounding() -> str:
    for capability in range(41):
        if prctl(23, capability):  # PR_CAPBSET_READ
            prctl(24, capability)  # PR_CAPBSET_DROP
    return status("CapBnd")


def securebits() -> str:
    refused = outcome(prctl, 28, NO_ROOT_PRIVILEGES)  # PR_SET_SECUREBITS
    return hex(prctl(27)) if refused == "ok" else refused


def limits(uid: int) -> list[str]:
    """Say whether the number of processes can be bounded for good: fork where none is left, and raise the bound."""
    become(uid)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 100))
    return [outcome(os.fork), outcome(resource.prlimit, 0, resource.RLIMIT_NPROC, (0, 101))]


def user_namespaces(uid: int) -> list[str]:
    """Say whether a user can make namespaces of its own, by unshare(2) and clone3(2) (EINVAL: the kernel looked)."""
    become(uid)
    return [outcome(checked_unshare, 0x10000000), outcome(syscall, CLONE3, None, ctypes.c_size_t(0))]


def checked_unshare(flags: int) -> None:
    checked(libc.unshare(flags))


def read_memory_of_another(uid: int) -> str:
    """Say whether a process of one user reads another of the same user, which only a filter can forbid."""
    become(uid)
    prctl(4, 1)  # PR_SET_DUMPABLE
    here, there = ctypes.create_string_buffer(1), ctypes.create_string_buffer(b"x")
    pid = os.getpid()

    def read() -> str:
        vectors = [(ctypes.c_size_t * 2)(ctypes.addressof(each), 1) for each in (here, there)]
        one = ctypes.c_ulong(1)
        return outcome(syscall, PROCESS_VM_READV, pid, vectors[0], one, vectors[1], one, ctypes.c_ulong(0))

    return str(in_child(read))


def hidden_processes() -> str:
    checked(libc.unshare(NEWNS))
    checked(libc.mount(b"none", b"/", None, ctypes.c_ulong(0x44000), None))
    checked(libc.mount(b"proc", b"/proc", b"proc", ctypes.c_ulong(14), b"hidepid=invisible"))
    return "ok"


def run_directories() -> dict[str, list[str]]:
    """Return type, options of the mount and mode of each directory of the session that is a mount point."""
    found = {}
    with open("/proc/self/mountinfo") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            path, options = before.split()[4:6]
            if path in RUN_DIRECTORIES:
                found[path] = [after.split()[0], options, oct(os.stat(path).st_mode & 0o7777)]
    return found


def no_new_privs() -> str:
    prctl(38, 1)
    return status("NoNewPrivs")


def landlock(outside: str) -> list[str]:
    control = outcome(os.execv, outside, [outside])
    prctl(38, 1)
    attributes = struct.pack("<Q", 1)  # LANDLOCK_ACCESS_FS_EXECUTE, granted nowhere
    ruleset = syscall(LANDLOCK_CREATE_RULESET, ctypes.c_char_p(attributes), ctypes.c_size_t(8), 0)
    syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0)
    return [control, outcome(os.execv, outside, [outside])]


def listener() -> str:
    prctl(38, 1)

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("program", ctypes.c_char_p))

    allow_all = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)
    return outcome(syscall, SECCOMP, 1, 8, ctypes.byref(Filter(1, allow_all)))  # SET_MODE_FILTER, NEW_LISTENER


def memory_access(uid: int) -> str:
    """Say how root reads the memory of a process of another user that has not hidden it."""
    ready, hold = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        become(uid)
        prctl(4, 1)  # PR_SET_DUMPABLE
        os.write(ready[1], b"x")
        os.close(hold[1])
        os.read(hold[0], 1)
        os._exit(0)
    os.read(ready[0], 1)

    def open_memory() -> None:
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY))

    def as_filesystem_user() -> None:
        libc.syscall(SETFSGID, uid)
        libc.syscall(SETFSUID, uid)
        try:
            open_memory()
        finally:
            libc.syscall(SETFSUID, 0)
            libc.syscall(SETFSGID, 0)

    found = "none"
    if outcome(open_memory) == "ok":
        found = "cap_sys_ptrace"
    elif outcome(as_filesystem_user) == "ok":
        found = "fsuid"
    os.close(hold[1])
    os.waitpid(pid, 0)
    return found


def mount_namespace() -> str:
    checked(libc.unshare(NEWNS))
    checked(libc.mount(b"none", b"/", None, ctypes.c_ulong(0x44000), None))  # MS_REC | MS_PRIVATE
    checked(libc.mount(b"probe", b"/run", b"tmpfs", ctypes.c_ulong(6), None))
    return "ok"


def apparmor() -> str:
    try:
        with open("/proc/self/attr/apparmor/current") as file:
            return file.read().strip("\0\n")
    except OSError:
        return ""


def main() -> None:
    uid, outside = int(sys.argv[1]), sys.argv[2]
    print(
        json.dumps(
            {
                "pid": os.getpid(),
                "capabilities": status("CapEff"),
                "uid_drop": in_child(lambda: uid_drop(uid)),
                "bounding": in_child(drop_bounding),
                "securebits": in_child(securebits),
                "no_new_privs": in_child(no_new_privs),
                "limits": in_child(lambda: limits(uid)),
                "user_namespaces": in_child(lambda: user_namespaces(uid)),
                "memory_of_the_same_user": in_child(lambda: read_memory_of_another(uid)),
                "hidden_processes": in_child(hidden_processes),
                "run_directories": run_directories(),
                "landlock": in_child(lambda: landlock(outside)),
                "listener": in_child(listener),
                "memfd_create": in_child(lambda: outcome(syscall, MEMFD_CREATE, ctypes.c_char_p(b"x"), 0)),
                "memory_access": in_child(lambda: memory_access(uid)),
                "mount_namespace": in_child(mount_namespace),
                # Docker's profile refuses it and no capability of the container allows it; podman's lets it through.
                "keyctl": in_child(lambda: outcome(syscall, KEYCTL, 0, -3, 0)),
                # The profiles of Docker and podman refuse it; without one anybody may (of its own faults only, flag 1).
                "userfaultfd": in_child(lambda: outcome(syscall, USERFAULTFD, 1)),
                "seccomp": status("Seccomp"),
                "apparmor": apparmor(),
                "programs": in_child(lambda: programs(uid)),
            }
        )
    )


def programs(uid: int) -> dict[str, str]:
    """Run as the agent's UID what the session must refuse: here nothing does."""
    become(uid)
    return {path: _ran(path) for path in sys.argv[3:]}


def _ran(path: str) -> str:
    try:
        return "ran" if os.spawnv(os.P_WAIT, path, [path, "/dev/null"]) == 0 else "failed"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


if __name__ == "__main__":
    main()
