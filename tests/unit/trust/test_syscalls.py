"""The numbers are libseccomp's, for every machine that we know; another machine is refused."""

import pytest
import seccomp

from codingagents.trust import linux, syscalls
from codingagents.trust.syscalls import MACHINES, machine

ARCHITECTURES = {"x86_64": seccomp.Arch.X86_64, "aarch64": seccomp.Arch.AARCH64}
AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("call", syscalls._NUMBERS)
def test_every_number_is_libseccomps(name: str, call: str) -> None:
    """What libseccomp resolves to a negative number, the machine does not have."""
    resolved = seccomp.resolve_syscall(ARCHITECTURES[name], call)
    assert machine(name).numbers(call) == ([resolved] if resolved >= 0 else [])


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_is_told_by_its_audit_number(name: str) -> None:
    assert machine(name).audit_arch == AUDIT_ARCHITECTURES[name]
    assert machine(name).has_x32 is (name == "x86_64")


def test_a_call_that_the_machine_never_had_is_no_number() -> None:
    assert machine("aarch64").numbers("open", "openat") == [56]
    with pytest.raises(KeyError, match="open"):
        machine("aarch64").number("open")
    with pytest.raises(KeyError):
        machine("x86_64").numbers("no_such_call")


def test_a_machine_nobody_has_checked_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(NotImplementedError, match="riscv64"):
        linux.machine.__wrapped__()
