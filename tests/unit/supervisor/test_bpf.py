"""The filter is run in an interpreter, against its stated rule and against what libseccomp makes of the same rule."""

import errno
import os
import tempfile

import pytest
import seccomp
from hypothesis import given
from hypothesis import strategies as st

from classic_bpf import run, seccomp_data
from codingagents.supervisor import bpf
from codingagents.supervisor import seccomp as our_seccomp
from codingagents.trust import linux
from codingagents.trust.bpf import ALLOW, KILL_PROCESS, USER_NOTIF, errno_action

X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
EXECVE, EXECVEAT, MEMFD_CREATE = 59, 322, 319
X32 = 0x40000000
ENOSYS, EPERM = errno_action(errno.ENOSYS), errno_action(errno.EPERM)

TRAP = bpf.exec_trap_program(
    audit_arch=X86_64, execve=EXECVE, execveat=EXECVEAT, memfd_create=MEMFD_CREATE, has_x32=True
)
MEMFD_ONLY = bpf.exec_trap_program(
    audit_arch=X86_64, execve=EXECVE, execveat=EXECVEAT, memfd_create=MEMFD_CREATE, has_x32=True, notify=False
)
TRAP_ONLY = bpf.exec_trap_program(
    audit_arch=X86_64, execve=EXECVE, execveat=EXECVEAT, memfd_create=MEMFD_CREATE, has_x32=True, guard_memfd=False
)
ARM = bpf.exec_trap_program(audit_arch=AARCH64, execve=221, execveat=281, memfd_create=279, has_x32=False)

numbers = st.sampled_from([0, 1, 2, 58, 59, 60, 221, 279, 281, 318, 319, 320, 321, 322, 323, 0x3FFFFFFF]) | st.integers(
    0, 2**32 - 1
)
arches = st.sampled_from([X86_64, I386, AARCH64, 0]) | st.integers(0, 2**32 - 1)
words = st.sampled_from([0, 7, 8, 9, 0xF, 0x10, 0xFFFFFFF7, 1 << 35, 2**64 - 1]) | st.integers(0, 2**64 - 1)
arguments = st.tuples(words, words)


def stated(arch: int, nr: int, args: tuple[int, ...], *, notify: bool = True, guard: bool = True) -> int:
    if arch != X86_64:
        return KILL_PROCESS
    if nr >= X32:
        return ENOSYS
    if notify and nr in (EXECVE, EXECVEAT):
        return USER_NOTIF
    if guard and nr == MEMFD_CREATE and not args[1] & bpf.MFD_NOEXEC_SEAL:
        return EPERM
    return ALLOW


def libseccomps() -> bytes:
    """The same rule in libseccomp's words, but for x32, which it knows only to kill."""
    rules = seccomp.SyscallFilter(defaction=seccomp.ALLOW)
    rules.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    rules.add_rule(seccomp.NOTIFY, "execve")
    rules.add_rule(seccomp.NOTIFY, "execveat")
    argument = seccomp.Arg(1, seccomp.MASKED_EQ, bpf.MFD_NOEXEC_SEAL, 0)
    rules.add_rule(seccomp.ERRNO(errno.EPERM), "memfd_create", argument)
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


@pytest.mark.parametrize(
    ("arch", "nr", "args", "expected"),
    [
        (X86_64, EXECVE, (), USER_NOTIF),
        (X86_64, EXECVEAT, (), USER_NOTIF),
        (X86_64, EXECVE + 1, (), ALLOW),
        (X86_64, EXECVEAT - 1, (), ALLOW),
        (X86_64, MEMFD_CREATE, (0, 0), EPERM),
        (X86_64, MEMFD_CREATE, (8, 0), EPERM),  # the name is not the flags
        (X86_64, MEMFD_CREATE, (0, 0x10), EPERM),  # MFD_EXEC
        (X86_64, MEMFD_CREATE, (0, 8 << 32), EPERM),  # the kernel takes an unsigned int: the high half is nothing
        (X86_64, MEMFD_CREATE, (0, 8), ALLOW),
        (X86_64, MEMFD_CREATE, (0, 0xF), ALLOW),
        (X86_64, X32 | 520, (), ENOSYS),  # execve of x32
        (X86_64, X32 | EXECVE, (), ENOSYS),
        (X86_64, 0xFFFFFFFF, (), ENOSYS),
        (I386, 11, (), KILL_PROCESS),  # execve of i386
        (I386, EXECVE, (), KILL_PROCESS),
        (AARCH64, 221, (), KILL_PROCESS),
    ],
)
def test_calls_that_matter(arch: int, nr: int, args: tuple[int, ...], expected: int) -> None:
    assert run(TRAP, seccomp_data(arch, nr, args)) == expected


@given(arches, numbers, arguments)
def test_the_filter_is_its_stated_rule(arch: int, nr: int, args: tuple[int, ...]) -> None:
    data = seccomp_data(arch, nr, args)
    assert run(TRAP, data) == stated(arch, nr, args)
    assert run(MEMFD_ONLY, data) == stated(arch, nr, args, notify=False)
    assert run(TRAP_ONLY, data) == stated(arch, nr, args, guard=False)


LIBSECCOMPS = libseccomps()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="libseccomp exports for the machine it runs on")
@given(arches, numbers.filter(lambda nr: nr < X32), arguments)
def test_libseccomp_makes_the_same_of_it(arch: int, nr: int, args: tuple[int, ...]) -> None:
    data = seccomp_data(arch, nr, args)
    assert run(TRAP, data) == run(LIBSECCOMPS, data)


def test_an_architecture_without_x32_has_no_high_numbers_to_refuse() -> None:
    assert run(ARM, seccomp_data(AARCH64, X32 | 1)) == ALLOW
    assert run(ARM, seccomp_data(AARCH64, 221)) == USER_NOTIF
    assert run(ARM, seccomp_data(AARCH64, 279, (0, 0))) == EPERM
    assert run(ARM, seccomp_data(X86_64, 221)) == KILL_PROCESS


def test_this_machine_has_a_filter() -> None:
    program = our_seccomp.exec_trap_for_this_machine(notify=True, guard_memfd=True)
    machine = linux.machine()
    assert run(program, seccomp_data(machine.audit_arch, machine.number("execve"))) == USER_NOTIF
