"""CORE: which system calls a helper may make, as a seccomp program. Makes none itself.

An allow-list (docs/adr/0014-what-a-helper-may-call.md): what an event loop, TLS and getaddrinfo(3) with its threads
need, and nothing that runs a program, makes a process, writes to a file, changes an identity or reaches into another
process. What is refused is EPERM; calls that came after 2019 are ENOSYS, as on the kernels that the C library has older
ways for. The first of the list are those of a request: kernels before 5.11 run the program on every call.
"""

from __future__ import annotations

import errno

from codingagents.trust.bpf import (
    ALLOW,
    KILL_PROCESS,
    Block,
    assemble,
    errno_action,
    give,
    if_argument_has,
    if_argument_in,
    if_argument_is_null,
    on_call,
    on_calls_from,
    prologue,
)
from codingagents.trust.syscalls import Machine

_OF_A_REQUEST = (
    *("epoll_pwait", "epoll_wait", "read", "write", "sendto", "recvfrom", "futex", "sendmsg", "recvmsg", "writev"),
    *("readv", "epoll_ctl", "close", "accept4", "getpid", "clock_gettime"),
)
_OF_CONNECTIONS = (
    *("connect", "listen", "accept", "shutdown", "getsockname", "getpeername", "getsockopt", "setsockopt"),
    *("recvmmsg", "sendmmsg", "poll", "ppoll"),
)
_OF_MEMORY_AND_TIME = (
    *("brk", "munmap", "mremap", "madvise", "getrandom"),
    *("clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time", "restart_syscall"),
)
_OF_DESCRIPTORS = (
    *("fstat", "newfstatat", "stat", "lstat", "statx", "lseek", "pread64", "getdents64", "readlink", "readlinkat"),
    *("access", "faccessat", "getcwd", "dup", "dup3", "close_range", "pipe", "pipe2", "eventfd2", "epoll_create1"),
)
_OF_THREADS_AND_SIGNALS = (
    *("exit", "exit_group", "set_robust_list", "rseq", "gettid", "sched_yield", "sched_getaffinity"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack"),
)
_OF_ITSELF = (
    *("getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups", "getppid"),
    *("uname", "getrusage", "getrlimit"),
)
_PLAIN = (
    *(*_OF_A_REQUEST, *_OF_CONNECTIONS, *_OF_MEMORY_AND_TIME),
    *(*_OF_DESCRIPTORS, *_OF_THREADS_AND_SIGNALS, *_OF_ITSELF),
)

_SINCE_2019 = 424  # from here on, all architectures share the numbers (Linux 5.1)

# The same on the machines that we know (asm-generic/fcntl.h, linux/sched.h, linux/prctl.h, linux/socket.h …).
_WRITING = 0o1 | 0o2 | 0o100 | 0o1000 | 0o2000 | 0o20000000  # O_WRONLY, RDWR, CREAT, TRUNC, APPEND, __O_TMPFILE
_PROT_EXEC = 0x4
_CLONE_THREAD = 0x00010000
_CLONE_NAMESPACES = 0x7E020000  # CLONE_NEWCGROUP, UTS, IPC, USER, PID, NET, NS
_FCNTL = (0, 1, 2, 3, 4, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC
_IOCTL = (0x541B, 0x5421, 0x5451)  # FIONREAD, FIONBIO, FIOCLEX
_PRCTL = (3, 15, 16, 21, 39)  # PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_GET_NO_NEW_PRIVS
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_SOCK_STREAM, _SOCK_DGRAM = 1, 2
_SOCK_FLAGS = (0, 0o2000000, 0o4000, 0o2004000)  # none, SOCK_CLOEXEC, SOCK_NONBLOCK, both
_IP_PROTOCOLS = (0, 6, 17)  # the type's own, TCP, UDP; not MPTCP, which Landlock's ports do not cover
_SOCK_DIAG = 4

_YES, _NO = give(ALLOW), give(errno_action(errno.EPERM))


def helper_program(machine: Machine, *, resolves: bool) -> bytes:
    """Return the filter of a helper; with `resolves`, it may have UDP sockets to ask for a name."""
    checked = {
        # As the kernel reads them: ints, of which the high half is nothing, except where a whole pointer is compared.
        "openat": if_argument_has(2, _WRITING, _NO, _YES),
        "open": if_argument_has(1, _WRITING, _NO, _YES),
        "mmap": if_argument_has(2, _PROT_EXEC, _NO, _YES),
        "mprotect": if_argument_has(2, _PROT_EXEC, _NO, _YES),
        "socket": _sockets(resolves=resolves),
        "socketpair": if_argument_in(0, [_AF_UNIX], _YES, _NO),
        "clone": if_argument_has(0, _CLONE_NAMESPACES, _NO, if_argument_has(0, _CLONE_THREAD, _YES, _NO)),
        "fcntl": if_argument_in(1, _FCNTL, _YES, _NO),
        "ioctl": if_argument_in(1, _IOCTL, _YES, _NO),
        "prctl": if_argument_in(0, _PRCTL, _YES, _NO),
        "prlimit64": if_argument_is_null(2, _YES, _NO),  # to read limits, not to set them
    }
    return assemble(
        prologue(machine.audit_arch, KILL_PROCESS if machine.has_x32 else None),
        *(on_call(number, _YES) for number in machine.numbers(*_PLAIN)),
        *(on_call(number, block) for name, block in checked.items() for number in machine.numbers(name)),
        on_calls_from(_SINCE_2019, give(errno_action(errno.ENOSYS))),
        _NO,
    )


def _sockets(*, resolves: bool) -> Block:
    """Allow TCP, perhaps UDP, and the netlink socket that says who a client is; nothing local, raw or of a device."""
    kinds = (_SOCK_STREAM, _SOCK_DGRAM) if resolves else (_SOCK_STREAM,)
    types = [kind | flags for kind in kinds for flags in _SOCK_FLAGS]
    internet = if_argument_in(1, types, if_argument_in(2, _IP_PROTOCOLS, _YES, _NO), _NO)
    diag = if_argument_in(0, [_AF_NETLINK], if_argument_in(2, [_SOCK_DIAG], _YES, _NO), _NO)
    return if_argument_in(0, [_AF_INET, _AF_INET6], internet, diag)
