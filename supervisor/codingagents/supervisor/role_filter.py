"""CORE: the seccomp filter of a role, as data: trap, memfd rule and what no role may call. Makes no system call.

One program for four layers, any of which can be left out: the kernel runs each program of a chain on each call that one
of them looks at. Our own arrays instead of libseccomp's, whose Python binding can neither hand the listener to another
process nor set the wake-up flags (docs/adr/0004-raw-seccomp.md). What is refused, and what is not:
docs/adr/0023-what-a-role-may-not-call.md.
"""

from __future__ import annotations

import errno
from typing import Final

from codingagents.trust.bpf import (
    ALLOW,
    USER_NOTIF,
    Block,
    assemble,
    by_number,
    errno_action,
    give,
    if_argument_has,
    if_argument_in,
    prologue,
)
from codingagents.trust.syscalls import Machine

MFD_NOEXEC_SEAL: Final = 0x8
TIOCSTI: Final = 0x5412
TIOCLINUX: Final = 0x541C

# linux/sched.h, the same on the machines that we know.
CLONE_NEWUSER: Final = 0x10000000
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWPID, NEWNET: each needs a Linux capability of the user namespace one is in.
CLONE_OTHER_NAMESPACES: Final = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
CLONE_NEWTIME: Final = 0x80  # unshare(2) only: in clone(2), the low byte is the signal at exit

_OF_OTHER_PROCESSES: Final = ("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp")
_OF_MOUNTS: Final = (
    *("mount", "umount2", "pivot_root", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "fspick"),
    *("mount_setattr", "open_by_handle_at"),
)
_OF_KEYS: Final = ("keyctl", "add_key", "request_key")
_OF_LARGE_INTERFACES: Final = (
    *("bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register"),
)
_OF_THE_MACHINE: Final = (
    *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "swapon", "swapoff", "reboot"),
    *("acct", "quotactl", "quotactl_fd", "lookup_dcookie"),
)
REFUSED: Final = (*(*_OF_OTHER_PROCESSES, *_OF_MOUNTS, "setns", *_OF_KEYS, *_OF_LARGE_INTERFACES, *_OF_THE_MACHINE),)

_YES, _NO, _NOT_THERE = give(ALLOW), give(errno_action(errno.EPERM)), give(errno_action(errno.ENOSYS))


def role_program(machine: Machine, *, exec_trap: bool, memfd_rule: bool, seccomp_static: bool, userns: bool) -> bytes:
    """Return the filter as an array of `struct sock_filter` (8 bytes each), with these layers.

    A foreign architecture kills the process, and x32 calls are ENOSYS, whatever the layers. `exec_trap`: `execve` and
    `execveat` wait for the supervisor. `memfd_rule`: `memfd_create` without MFD_NOEXEC_SEAL is EPERM, because a memfd
    can be executed past Landlock. `seccomp_static`: `REFUSED` is EPERM, and so are terminal calls that type in
    another's place, and namespaces other than a user's. `userns`: a new user namespace is EPERM. All else is allowed.
    """
    blocks: dict[int, Block] = {}
    if exec_trap:
        blocks |= dict.fromkeys(machine.numbers("execve", "execveat"), give(USER_NOTIF))
    if memfd_rule:
        blocks[machine.number("memfd_create")] = if_argument_has(1, MFD_NOEXEC_SEAL, _YES, _NO)
    if seccomp_static:
        blocks |= dict.fromkeys(machine.numbers(*REFUSED), _NO)
        blocks[machine.number("ioctl")] = if_argument_in(1, (TIOCSTI, TIOCLINUX), _NO, _YES)
    namespaces = CLONE_OTHER_NAMESPACES * seccomp_static | CLONE_NEWUSER * userns
    if namespaces:
        blocks[machine.number("clone")] = if_argument_has(0, namespaces, _NO, _YES)
        blocks[machine.number("unshare")] = if_argument_has(0, namespaces | CLONE_NEWTIME * seccomp_static, _NO, _YES)
        blocks[machine.number("clone3")] = _NOT_THERE  # its flags lie in memory; the C library goes back to clone(2)
    return assemble(
        prologue(machine.audit_arch, errno_action(errno.ENOSYS) if machine.has_x32 else None),
        by_number(blocks, _YES),
    )
