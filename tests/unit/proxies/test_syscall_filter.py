"""The filter is run in an interpreter, for both machines: what serving takes is allowed, what matters is refused."""

import errno

import pytest
import seccomp
from hypothesis import given
from hypothesis import strategies as st

from classic_bpf import run, seccomp_data
from codingagents.proxies.syscall_filter import helper_program
from codingagents.trust.bpf import ALLOW, KILL_PROCESS, errno_action
from codingagents.trust.syscalls import MACHINES

ARCHITECTURES = {"x86_64": seccomp.Arch.X86_64, "aarch64": seccomp.Arch.AARCH64}
PROGRAMS = {
    (name, resolves): helper_program(machine, resolves=resolves)
    for name, machine in MACHINES.items()
    for resolves in (False, True)
}
EPERM, ENOSYS = errno_action(errno.EPERM), errno_action(errno.ENOSYS)
THREAD = 0x3D0F00  # what pthread_create(3) asks of clone(2)
CLOEXEC_NONBLOCK = 0o2004000

both = pytest.mark.parametrize("machine", MACHINES)


def outcome(machine: str, call: str, *args: int, resolves: bool = True) -> int | None:
    """Return what the filter says of a call by name; None where the machine has no such call."""
    number = seccomp.resolve_syscall(ARCHITECTURES[machine], call)
    if number < 0:
        return None
    return run(PROGRAMS[machine, resolves], seccomp_data(MACHINES[machine].audit_arch, number, args))


@both
@pytest.mark.parametrize("call", [
    "execve", "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev", "kcmp",
    "mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "personality",
    "bpf", "userfaultfd", "perf_event_open", "keyctl", "add_key", "request_key", "memfd_create", "seccomp",
    "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "syslog",
    "open_by_handle_at", "name_to_handle_at", "execveat",
    "setuid", "setgid", "setresuid", "setresgid", "setgroups", "capset", "setfsuid", "setsid", "setpgid",
    "kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo",
    "creat", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat",
    "symlink", "symlinkat", "mknod", "mknodat", "chmod", "fchmod", "fchmodat", "chown", "fchown", "fchownat", "lchown",
    "truncate", "ftruncate", "fallocate", "utimensat", "setxattr", "fsetxattr", "chdir", "fchdir", "umask",
    "bind", "setrlimit", "sched_setscheduler", "sched_setaffinity", "setpriority", "ioprio_set", "mlock", "mlockall",
    "shmget", "shmat", "msgget", "semget", "mq_open", "inotify_init1", "fanotify_init", "splice", "tee", "vmsplice",
    "sendfile", "copy_file_range", "timer_create", "io_setup", "io_submit", "acct", "quotactl", "iopl", "ioperm",
    "modify_ldt", "uselib", "vhangup", "lookup_dcookie", "move_pages", "migrate_pages", "mbind", "set_mempolicy",
    "pkey_mprotect", "remap_file_pages", "process_madvise",
])  # fmt: skip
def test_what_serving_does_not_take_is_refused(machine: str, call: str) -> None:
    assert outcome(machine, call) in (EPERM, ENOSYS, None)


@both
@pytest.mark.parametrize("call", [
    "clone3", "io_uring_setup", "io_uring_enter", "pidfd_send_signal", "pidfd_open", "pidfd_getfd", "openat2",
    "mount_setattr", "open_tree", "move_mount", "fsopen", "landlock_create_ruleset", "memfd_secret", "faccessat2",
])  # fmt: skip
def test_calls_of_newer_kernels_are_not_there(machine: str, call: str) -> None:
    """ENOSYS is what the C library and libuv have an older way for."""
    assert outcome(machine, call) == ENOSYS


@both
@pytest.mark.parametrize("call", [
    "epoll_wait", "epoll_pwait", "epoll_ctl", "read", "write", "recvfrom", "sendto", "close", "accept4", "futex",
    "connect", "listen", "getsockopt", "setsockopt", "getpid", "brk", "munmap", "exit_group", "rt_sigreturn",
    "getrandom", "newfstatat", "close_range", "sendmmsg", "poll", "ppoll", "rseq", "set_robust_list",
])  # fmt: skip
def test_what_serving_takes_is_allowed(machine: str, call: str) -> None:
    assert outcome(machine, call) in (ALLOW, None)


CHECKED = [
    ("openat", (0, 0, 0o2000000), ALLOW),  # O_RDONLY | O_CLOEXEC
    ("openat", (0, 0, 0o1), EPERM),
    ("openat", (0, 0, 0o2), EPERM),
    ("openat", (0, 0, 0o100), EPERM),  # O_CREAT
    ("openat", (0, 0, 0o1000), EPERM),  # O_TRUNC, also of a file opened for reading
    ("openat", (0, 0, 0o20000000), EPERM),  # O_TMPFILE
    ("open", (0, 0o1, 0), EPERM),
    ("open", (0, 0, 0o1), ALLOW),  # the mode is not the flags
    ("mmap", (0, 4096, 0x3), ALLOW),
    ("mmap", (0, 4096, 0x5), EPERM),
    ("mprotect", (0, 4096, 0x3), ALLOW),
    ("mprotect", (0, 4096, 0x4), EPERM),
    ("clone", (THREAD,), ALLOW),
    ("clone", (17,), EPERM),  # fork(3)
    ("clone", (0x4111,), EPERM),  # vfork(3)
    ("clone", (THREAD | 0x10000000,), EPERM),  # CLONE_NEWUSER
    ("clone", (THREAD | 0x00020000,), EPERM),  # CLONE_NEWNS
    ("clone", (THREAD | 0x02000000,), EPERM),  # CLONE_NEWCGROUP
    ("fcntl", (3, 4), ALLOW),  # F_SETFL
    ("fcntl", (3, 8), EPERM),  # F_SETOWN
    ("fcntl", (3, 1024), EPERM),  # F_SETLEASE
    ("ioctl", (3, 0x5421), ALLOW),  # FIONBIO
    ("ioctl", (3, 0x5412), EPERM),  # TIOCSTI
    ("prctl", (3,), ALLOW),  # PR_GET_DUMPABLE
    ("prctl", (4, 1), EPERM),  # PR_SET_DUMPABLE
    ("prctl", (1, 0), EPERM),  # PR_SET_PDEATHSIG
    ("prctl", (22, 2), EPERM),  # PR_SET_SECCOMP
    ("prlimit64", (0, 7, 0, 0xFFFF), ALLOW),
    ("prlimit64", (0, 7, 0xFFFF, 0), EPERM),
    ("prlimit64", (0, 7, 0xFFFF << 32, 0), EPERM),
    ("socketpair", (1, 1, 0), ALLOW),
    ("socketpair", (30, 1, 0), EPERM),  # AF_TIPC
    ("socket", (2, 1 | CLOEXEC_NONBLOCK, 6), ALLOW),
    ("socket", (10, 1, 0), ALLOW),
    ("socket", (2, 3, 0), EPERM),  # SOCK_RAW
    ("socket", (2, 1, 262), EPERM),  # MPTCP, which Landlock does not see
    ("socket", (2, 2, 1), EPERM),  # ping
    ("socket", (1, 1, 0), EPERM),  # AF_UNIX
    ("socket", (17, 3, 0), EPERM),  # AF_PACKET
    ("socket", (40, 1, 0), EPERM),  # AF_VSOCK
    ("socket", (38, 5, 0), EPERM),  # AF_ALG
    ("socket", (16, 2, 4), ALLOW),  # NETLINK_SOCK_DIAG
    ("socket", (16, 3, 0), EPERM),  # NETLINK_ROUTE
    ("socket", (16, 2, 12), EPERM),  # NETLINK_NETFILTER
    ("socket", (2 | 1 << 32, 1, 0), ALLOW),  # the kernel takes an int
]


@both
@pytest.mark.parametrize(("call", "args", "expected"), CHECKED)
def test_arguments_decide(machine: str, call: str, args: tuple[int, ...], expected: int) -> None:
    assert outcome(machine, call, *args) in (expected, None)


@both
def test_only_who_resolves_names_has_udp(machine: str) -> None:
    for kind in (2, 2 | 0o4000, 2 | 0o2000000, 2 | CLOEXEC_NONBLOCK):
        assert outcome(machine, "socket", 2, kind, 0, resolves=True) == ALLOW
        assert outcome(machine, "socket", 2, kind, 0, resolves=False) == EPERM
    assert outcome(machine, "socket", 2, 1, 0, resolves=False) == ALLOW


@both
@given(number=st.integers(0, 2**32 - 1), arch=st.sampled_from([0x40000003, 0xC00000B7, 0xC000003E, 0]))
def test_every_other_table_of_calls_is_death(machine: str, number: int, arch: int) -> None:
    """Foreign architectures and x32; and what is no call of the list is never allowed."""
    said = run(PROGRAMS[machine, True], seccomp_data(arch, number, (2**32 - 1,) * 6))
    own = MACHINES[machine]
    if arch != own.audit_arch or (own.has_x32 and number >= 0x40000000):
        assert said == KILL_PROCESS
    elif number > 460:
        assert said == ENOSYS


@both
@given(args=st.tuples(*[st.integers(0, 2**64 - 1)] * 6))
def test_nothing_runs_a_program_whatever_its_arguments(machine: str, args: tuple[int, ...]) -> None:
    for call in ("execve", "execveat", "ptrace", "memfd_create", "bind", "kill"):
        assert outcome(machine, call, *args) == EPERM


def test_it_is_small_enough_for_the_kernel_and_for_its_jumps() -> None:
    """BPF_MAXINSNS; `struct.pack` would refuse a jump that does not fit its byte."""
    assert all(len(program) // 8 < 4096 for program in PROGRAMS.values())
