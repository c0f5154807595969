"""What code in a helper's place could try: `python -I helper_attacker.py MODE TCP_PORT UNIX_PATH` prints the outcomes.

Each act is done by a process of its own, under the helper's UID, with as much of a helper's confinement as MODE says:
`nothing` but the UID, `landlock`, `seccomp`, or `all`, which is what a helper does; `root` is not even the UID.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable

from codingagents.proxies import confinement
from codingagents.proxies.descriptors import CHANNEL, keep_only
from codingagents.proxies.needs import Needs
from codingagents.trust import linux
from codingagents.trust.bpf import ALLOW, assemble, give

UID = 58071  # of no account
THREADS = 100  # more than a helper may have
MODE, PORT, UNIX_PATH = sys.argv[1], int(sys.argv[2]), sys.argv[3]
NEEDS = Needs(ports=(53, 443), resolves=True, descriptors=100, connections=8)
number = linux.machine().number
ARGV, ENVIRONMENT = (ctypes.c_char_p * 2)(b"true", None), (ctypes.c_char_p * 1)(None)
PTRACE_ATTACH = 16
SYS_IO_URING_SETUP = 425
NEWUSER, CLONE_FILES = 0x10000000, 0x400
AF_PACKET, AF_ALG = 17, 38

confinement.preload()
encodings_that_load_late = "x".encode("idna")
sibling = 0  # a process of the same UID that only waits, and lets itself be looked at


def execve() -> None:
    linux.syscall(number("execve"), b"/usr/bin/true", ARGV, ENVIRONMENT)


def execveat() -> None:
    linux.syscall(number("execveat"), -100, b"/usr/bin/true", ARGV, ENVIRONMENT, 0)


def execve_of_x32() -> None:
    linux.syscall(0x40000000 + 520, b"/usr/bin/true", ARGV, ENVIRONMENT)


def memfd_and_exec() -> None:
    program = os.memfd_create("program", 0)
    os.write(program, b"#!/usr/bin/true\n")
    linux.syscall(number("execveat"), program, b"", ARGV, ENVIRONMENT, 0x1000)  # AT_EMPTY_PATH


def write_a_file() -> None:
    with tempfile.TemporaryFile(dir="/tmp") as file:
        file.write(b"x")


def read_memory() -> None:
    with open(f"/proc/{sibling}/mem", "rb") as memory:
        memory.read(0)


def process_vm_readv() -> None:
    buffer, one, none = ctypes.create_string_buffer(8), ctypes.c_ulong(1), ctypes.c_ulong(0)
    here = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
    there = (ctypes.c_size_t * 2)(ctypes.addressof(ARGV), 8)  # of before the fork, so at the same place
    linux.syscall(number("process_vm_readv"), sibling, here, one, there, one, none)


def connect(port: int) -> None:
    with socket.socket() as tcp:
        tcp.connect(("127.0.0.1", port))


def connect_locally(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as local:
        local.connect(address)


def bind(kind: int) -> None:
    with socket.socket(socket.AF_INET, kind) as own:
        own.bind(("127.0.0.1", 0))


def open_socket(family: int, kind: int, protocol: int = 0) -> None:
    socket.socket(family, kind, protocol).close()


def fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def many_threads() -> None:
    """Start threads until one cannot be made."""
    over = threading.Event()
    try:
        for _ in range(THREADS):
            threading.Thread(target=over.wait, daemon=True).start()
    except RuntimeError:
        raise OSError(errno.EAGAIN, "no more threads") from None
    finally:
        over.set()


def map_code() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()


def turn_memory_into_code() -> None:
    with mmap.mmap(-1, 4096) as memory:
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        if ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(address), 4096, 5):
            os._exit(report(errno.errorcode[ctypes.get_errno()]))
        os._exit(report("succeeded"))


def change_a_limit() -> None:
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))
    except ValueError:  # Python's word for EPERM
        raise PermissionError(errno.EPERM, "setrlimit") from None


def install_a_filter() -> None:
    if not linux.prctl(linux.PR_GET_NO_NEW_PRIVS):
        linux.set_no_new_privs()
    linux.install_filter(assemble(give(ALLOW)))


ACTS: dict[str, Callable[[], object]] = {
    "execve": execve,
    "execveat": execveat,
    "memfd and exec": memfd_and_exec,
    "write a file in /tmp": write_a_file,
    "make a directory": lambda: os.rmdir(tempfile.mkdtemp(dir="/tmp")),
    "read /etc/passwd": lambda: open("/etc/passwd").close(),
    "list a directory": lambda: os.listdir("/usr"),
    "read a sibling's memory": read_memory,
    "process_vm_readv": process_vm_readv,
    "ptrace a sibling": lambda: linux.syscall(number("ptrace"), PTRACE_ATTACH, sibling, None, None),
    "signal a sibling": lambda: os.kill(sibling, 0),
    "signal a sibling by pidfd": lambda: signal.pidfd_send_signal(os.pidfd_open(sibling), 0),
    "connect to another TCP port": lambda: connect(PORT),
    "connect to a unix socket": lambda: connect_locally(UNIX_PATH),
    "bind TCP": lambda: bind(socket.SOCK_STREAM),
    "bind UDP": lambda: bind(socket.SOCK_DGRAM),
    "unshare": lambda: linux.syscall(number("unshare"), CLONE_FILES),
    "packet socket": lambda: open_socket(AF_PACKET, socket.SOCK_RAW),
    "raw socket": lambda: open_socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "kernel crypto socket": lambda: open_socket(AF_ALG, socket.SOCK_SEQPACKET),
    "netlink socket of routes": lambda: open_socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "io_uring": lambda: linux.syscall(SYS_IO_URING_SETUP, 1, ctypes.create_string_buffer(120)),
    "fork": fork,
    "many threads": many_threads,
    "map code": map_code,
    "turn memory into code": turn_memory_into_code,
    "be dumpable": lambda: linux.prctl(linux.PR_SET_DUMPABLE, 1),
    "outlive the supervisor": lambda: linux.prctl(linux.PR_SET_PDEATHSIG, 0),
    "change a limit": change_a_limit,
    "install a filter": install_a_filter,
    # What a helper does all day, or its confinement would be no achievement.
    "read /etc/hosts": lambda: open("/etc/hosts").close(),
    "resolve a name": lambda: socket.getaddrinfo("localhost", 443),
    "make a thread": lambda: threading.Thread(target=int).start(),
    "connect to its own port": lambda: connect(443),
}  # fmt: skip
if os.uname().machine == "x86_64":
    ACTS["execve of x32"] = execve_of_x32


def confine() -> None:
    if MODE == "root":
        return
    if MODE == "all":
        confinement.confine(UID, UID, NEEDS)
        return
    confinement._drop_identity(UID, UID)
    if MODE == "nothing":
        linux.prctl(linux.PR_SET_DUMPABLE, 1)
        return
    confinement._give_up_privileges()
    if MODE == "landlock":
        confinement._landlock(NEEDS)
    else:
        confinement._restrict_calls(NEEDS)


def report(outcome: str) -> int:
    os.write(CHANNEL, outcome.encode())
    return 0


def attempt(act: Callable[[], object]) -> str:
    """Do `act` in a process of its own; an exec that works says nothing and ends with 0."""
    ours, theirs = socket.socketpair()
    with ours, socket.create_server(("127.0.0.1", 0)) as listener:
        pid = os.fork()
        if pid == 0:
            keep_only(theirs.fileno(), listener.fileno())
            confine()
            os._exit(report(linux.attempt(act)))
        theirs.close()
        said = ours.recv(100).decode()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return said or ("succeeded" if status == 0 else f"ended with {status}")


def main() -> None:
    global sibling  # noqa: PLW0603 -- a script's one process to attack
    ready, tell = os.pipe()
    sibling = os.fork()
    if sibling == 0:
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
        linux.prctl(linux.PR_SET_DUMPABLE, 1)
        linux.set_parent_death_signal()
        os.write(tell, b"x")
        while True:
            time.sleep(60)
    os.read(ready, 1)
    try:
        outcomes = {name: attempt(act) for name, act in ACTS.items()}
    finally:
        os.kill(sibling, signal.SIGKILL)
        os.waitpid(sibling, 0)
    print(json.dumps(outcomes))


main()
