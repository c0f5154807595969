"""The filter is run in an interpreter, against its stated rule and against what libseccomp makes of the same rule."""

import errno
import itertools
import os
import struct
import tempfile
from collections.abc import Iterator

import pytest
import seccomp
from hypothesis import given
from hypothesis import strategies as st

from classic_bpf import run, seccomp_data
from codingagents.supervisor import role_filter
from codingagents.trust import linux
from codingagents.trust.bpf import ALLOW, KILL_PROCESS, USER_NOTIF, errno_action
from codingagents.trust.syscalls import MACHINES

X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
EXECVE, EXECVEAT, MEMFD_CREATE, IOCTL, CLONE, UNSHARE, CLONE3 = 59, 322, 319, 16, 56, 272, 435
X32 = 0x40000000
ENOSYS, EPERM = errno_action(errno.ENOSYS), errno_action(errno.EPERM)
NAMESPACES = 0x7E020000  # all but time
NEWUSER, NEWTIME = 0x10000000, 0x80
TIOCSTI, TIOCLINUX, TIOCGWINSZ = 0x5412, 0x541C, 0x5413

LAYERS = ("exec_trap", "memfd_rule", "seccomp_static", "userns")
Choice = tuple[bool, ...]
CHOICES = list(itertools.product((False, True), repeat=len(LAYERS)))
EVERYTHING = (True,) * len(LAYERS)


def program(machine: str, choice: Choice = EVERYTHING) -> bytes:
    return role_filter.role_program(MACHINES[machine], **dict(zip(LAYERS, choice, strict=True)))


PROGRAMS = {choice: program("x86_64", choice) for choice in CHOICES}
REFUSED = MACHINES["x86_64"].numbers(*role_filter.REFUSED)
OF_INTEREST = [0, 1, 2, *REFUSED, EXECVE, EXECVEAT, MEMFD_CREATE, IOCTL, CLONE, UNSHARE, CLONE3]
numbers = st.sampled_from(sorted({near for nr in OF_INTEREST for near in (nr, nr + 1)})) | st.integers(0, 2**32 - 1)
arches = st.sampled_from([X86_64] * 5 + [I386, AARCH64, 0]) | st.integers(0, 2**32 - 1)
words = st.sampled_from([
    *(0, 7, 8, 9, 0xF, 0x10, 0xFFFFFFF7, 1 << 35, 2**64 - 1, NEWUSER, NEWUSER | 17, NEWTIME, 0x20000, 0x3D0F00, 0x600),
    *(TIOCSTI, TIOCSTI | 1 << 32, TIOCLINUX, TIOCGWINSZ, NEWUSER << 32),
]) | st.integers(0, 2**64 - 1)  # fmt: skip
arguments = st.tuples(words, words)


def stated(arch: int, nr: int, args: tuple[int, ...], choice: Choice = EVERYTHING) -> int:
    """The rule, in other words than the filter's."""
    on = dict(zip(LAYERS, choice, strict=True))
    if arch != X86_64:
        return KILL_PROCESS
    if nr >= X32:
        return ENOSYS
    low = [word & 0xFFFFFFFF for word in args]
    spaces = (NEWUSER if on["userns"] else 0) | (NAMESPACES & ~NEWUSER if on["seccomp_static"] else 0)
    if nr in (EXECVE, EXECVEAT) and on["exec_trap"]:
        return USER_NOTIF
    refused = {
        MEMFD_CREATE: on["memfd_rule"] and not low[1] & 8,
        IOCTL: on["seccomp_static"] and low[1] in (TIOCSTI, TIOCLINUX),
        CLONE: bool(low[0] & spaces),
        UNSHARE: bool(low[0] & spaces) or (on["seccomp_static"] and bool(low[0] & NEWTIME)),
    }.get(nr, on["seccomp_static"] and nr in REFUSED)
    return ENOSYS if nr == CLONE3 and spaces else EPERM if refused else ALLOW


def libseccomps() -> bytes:
    """The same rule in libseccomp's words, but for x32, which it knows only to kill."""
    rules = seccomp.SyscallFilter(defaction=seccomp.ALLOW)
    rules.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    for call in ("execve", "execveat"):
        rules.add_rule(seccomp.NOTIFY, call)
    for call in role_filter.REFUSED:
        rules.add_rule(seccomp.ERRNO(errno.EPERM), call)
    rules.add_rule(seccomp.ERRNO(errno.EPERM), "memfd_create", seccomp.Arg(1, seccomp.MASKED_EQ, 8, 0))
    for request in (TIOCSTI, TIOCLINUX):
        rules.add_rule(seccomp.ERRNO(errno.EPERM), "ioctl", seccomp.Arg(1, seccomp.MASKED_EQ, 0xFFFFFFFF, request))
    for bit in (1 << number for number in range(32) if NAMESPACES >> number & 1):
        for call in ("clone", "unshare"):
            rules.add_rule(seccomp.ERRNO(errno.EPERM), call, seccomp.Arg(0, seccomp.MASKED_EQ, bit, bit))
    rules.add_rule(seccomp.ERRNO(errno.EPERM), "unshare", seccomp.Arg(0, seccomp.MASKED_EQ, NEWTIME, NEWTIME))
    rules.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
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
        (X86_64, MEMFD_CREATE - 1, (), ALLOW),
        (X86_64, MEMFD_CREATE, (0, 0), EPERM),
        (X86_64, MEMFD_CREATE, (8, 0), EPERM),  # the name is not the flags
        (X86_64, MEMFD_CREATE, (0, 0x10), EPERM),  # MFD_EXEC
        (X86_64, MEMFD_CREATE, (0, 8 << 32), EPERM),  # the kernel takes an unsigned int: the high half is nothing
        (X86_64, MEMFD_CREATE, (0, 8), ALLOW),
        (X86_64, MEMFD_CREATE, (0, 0xF), ALLOW),
        (X86_64, 101, (), EPERM),  # ptrace
        (X86_64, IOCTL, (0, TIOCSTI), EPERM),
        (X86_64, IOCTL, (0, 1 << 32 | TIOCSTI), EPERM),  # the kernel takes an unsigned int
        (X86_64, IOCTL, (TIOCSTI, TIOCGWINSZ), ALLOW),
        (X86_64, CLONE, (0x3D0F00,), ALLOW),  # pthread_create(3)
        (X86_64, CLONE, (0x4111,), ALLOW),  # posix_spawn(3): CLONE_VM, VFORK, SIGCHLD
        (X86_64, CLONE, (0x80 | 17,), ALLOW),  # a signal at exit, not CLONE_NEWTIME
        (X86_64, CLONE, (NEWUSER | 17,), EPERM),
        (X86_64, UNSHARE, (0x600,), ALLOW),  # CLONE_FS, CLONE_FILES: no namespace
        (X86_64, UNSHARE, (NEWUSER,), EPERM),
        (X86_64, UNSHARE, (NEWTIME,), EPERM),
        (X86_64, CLONE3, (), ENOSYS),
        (X86_64, X32 | 520, (), ENOSYS),  # execve of x32
        (X86_64, X32 | EXECVE, (), ENOSYS),
        (X86_64, 0xFFFFFFFF, (), ENOSYS),
        (I386, 11, (), KILL_PROCESS),  # execve of i386
        (I386, EXECVE, (), KILL_PROCESS),
        (AARCH64, 221, (), KILL_PROCESS),
    ],
)
def test_calls_that_matter(arch: int, nr: int, args: tuple[int, ...], expected: int) -> None:
    assert run(PROGRAMS[EVERYTHING], seccomp_data(arch, nr, args)) == expected


@given(arches, numbers, arguments, st.sampled_from(CHOICES))
def test_the_filter_is_its_stated_rule_whatever_layers_it_has(
    arch: int, nr: int, args: tuple[int, ...], choice: Choice
) -> None:
    assert run(PROGRAMS[choice], seccomp_data(arch, nr, args)) == stated(arch, nr, args, choice)


LIBSECCOMPS = libseccomps()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="libseccomp exports for the machine it runs on")
@given(arches, numbers.filter(lambda nr: nr < X32), arguments)
def test_libseccomp_makes_the_same_of_it(arch: int, nr: int, args: tuple[int, ...]) -> None:
    data = seccomp_data(arch, nr, args)
    assert run(PROGRAMS[EVERYTHING], data) == run(LIBSECCOMPS, data)


def test_each_refused_call_is_allowed_without_its_layer() -> None:
    """The control of every test that expects EPERM."""
    without = PROGRAMS[True, True, False, True]
    for nr in REFUSED:
        assert run(PROGRAMS[EVERYTHING], seccomp_data(X86_64, nr)) == EPERM
        assert run(without, seccomp_data(X86_64, nr)) == ALLOW


def test_an_architecture_without_x32_has_no_high_numbers_to_refuse() -> None:
    arm = program("aarch64")
    assert run(arm, seccomp_data(AARCH64, X32 | 1)) == ALLOW
    assert run(arm, seccomp_data(AARCH64, 221)) == USER_NOTIF
    assert run(arm, seccomp_data(AARCH64, 279, (0, 0))) == EPERM
    assert run(arm, seccomp_data(AARCH64, 220, (NEWUSER,))) == EPERM
    assert run(arm, seccomp_data(X86_64, 221)) == KILL_PROCESS


def _steps(code: list[tuple[int, ...]], at: int, steps: int) -> Iterator[int]:
    """Yield how many instructions each way to an end takes."""
    operation, when_true, when_false, _ = code[at]
    if operation == 0x06:
        yield steps + 1
    elif operation & 0x07 == 0x05:
        yield from _steps(code, at + 1 + when_true, steps + 1)
        yield from _steps(code, at + 1 + when_false, steps + 1)
    else:
        yield from _steps(code, at + 1, steps + 1)


@pytest.mark.parametrize("machine", MACHINES)
def test_no_call_takes_many_steps(machine: str) -> None:
    """Kernels before 5.11 run it on every call: a list would take a step for each of its fifty numbers."""
    code = list(struct.iter_unpack("<HBBI", program(machine)))
    assert max(_steps(code, 0, 0)) <= 20


def test_this_machine_has_a_filter() -> None:
    machine = linux.machine()
    data = seccomp_data(machine.audit_arch, machine.number("execve"))
    assert run(role_filter.role_program(machine, **dict.fromkeys(LAYERS, True)), data) == USER_NOTIF
