"""SHELL: puts the layers of a role on the calling process, and tries them: what stub and task parent have in common.

Each layer can be left out by the specification. What was tried becomes observations, with the same act before the layer
was on as its control; `layers` judges them. The order of things is the caller's.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import msgspec

from codingagents.supervisor import attempts, kernel, landlock, seccomp, signals
from codingagents.supervisor.confine_spec import PROBE_ARGV0, WANTED_SECUREBITS, ConfineSpec, Observation, Trapped
from codingagents.supervisor.role_filter import role_program
from codingagents.trust import errors, linux, wire

TYPE_CHECKING = False  # see signals.py
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal

_GLIBCS: Final = frozenset({32, 33})  # it keeps these for itself
# What the filter refuses, and how each layer of it is tried.
FILTERED: Final[Mapping[str, attempts.Acts]] = {
    "memfd_rule": {"memfd_create(flags=0)": lambda: linux.attempt(linux.memfd_create, 0)},
    "seccomp_static": attempts.STATIC,
    "userns": attempts.USER_NAMESPACES,
}
Outcomes = Mapping[str, Mapping[str, str]]  # of each act of each layer

_Message = TypeVar("_Message")


class RoleLayers:
    """What is put on and tried for one specification."""

    def __init__(self, spec: ConfineSpec) -> None:
        """Have tried nothing yet."""
        self.spec = spec
        self.observations: list[Observation] = []
        self._probe_file = -1

    def wants(self, layer: str) -> bool:
        """Say whether `layer` is to be on."""
        return layer not in self.spec.layers_off

    def observe(self, layer: str, act: str, outcome: str, control: str = "") -> None:
        """Note what was tried."""
        self.observations.append(Observation(layer=layer, act=act, control=control, outcome=outcome))

    def outcomes(self, acts: Mapping[str, attempts.Acts]) -> dict[str, dict[str, str]]:
        """Try the acts of each wanted layer."""
        return {layer: attempts.outcomes(each) for layer, each in acts.items() if self.wants(layer)}

    def compare(self, acts: Mapping[str, attempts.Acts], before: Outcomes) -> None:
        """Try them again and note both."""
        for layer, each in acts.items():
            if layer in before:
                self.observations += attempts.compared(layer, each, before[layer])

    def open_probe_file(self) -> None:
        """Open Landlock's probe, while the directories on its way can be passed."""
        if self.spec.probe_file is not None:
            self._probe_file = os.open(self.spec.probe_file, os.O_PATH | os.O_CLOEXEC)

    def close_probe_file(self) -> None:
        """Let go of it."""
        if self._probe_file >= 0:
            os.close(self._probe_file)
            self._probe_file = -1

    def exec_probe_file(self) -> str:
        """Exec a file of no format: ENOEXEC where it may be executed, EACCES where Landlock forbids it."""
        return linux.attempt(os.execve, self._probe_file, ["self-test"], {})

    def bar_privileges(self) -> None:
        """Close the ways by which UID 0 or a program gives Linux capabilities; those that are held stay."""
        if self.wants("securebits"):
            with contextlib.suppress(PermissionError):  # what is read back says what came of it
                linux.prctl(linux.PR_SET_SECUREBITS, WANTED_SECUREBITS)
        if self.wants("caps_bounding"):
            try:
                linux.drop_bounding_set()
            except PermissionError:
                self.observe("caps_bounding", "prctl(PR_CAPBSET_DROP)", "EPERM")

    def try_identity(self) -> None:
        """Now that the role's identity is on: look at it, and try to become root again."""
        if self.wants("uid_drop"):
            others = sorted(set(os.getgroups()) - {*self.spec.groups, self.spec.gid})
            self.observe("uid_drop", "groups of others", " ".join(map(str, others)) or "none")
            self.observe("uid_drop", "setresuid(0, 0, 0)", linux.attempt(os.setresuid, 0, 0, 0))
        if self.wants("securebits"):
            self.observe("securebits", "prctl(PR_GET_SECUREBITS)", f"{linux.prctl(linux.PR_GET_SECUREBITS):#x}")

    def forbid_new_privileges(self) -> None:
        """Set no_new_privs, which all that follows needs."""
        if self.wants("no_new_privs"):
            linux.set_no_new_privs()

    def see_privileges(self) -> None:
        """Look at what is left of them."""
        fields = kernel.status_fields()
        self.observe("no_new_privs", "/proc/self/status NoNewPrivs", fields["NoNewPrivs"])
        for held in ("CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"):
            self.observe("caps_bounding", f"/proc/self/status {held}", fields[held])

    def restrict_execution(self, as_role: Callable[[Callable[[], str]], str] = lambda act: act()) -> list[str]:
        """Have Landlock allow the trees alone, and return those that hold. `as_role` does an act as the role."""
        if not self.wants("landlock_exec"):
            return []
        probed = self._probe_file >= 0
        control = as_role(self.exec_probe_file) if probed else ""
        try:
            trees = landlock.restrict_execution(self.spec.execute_trees)
        except OSError as error:
            self.observe("landlock_exec", "landlock_restrict_self", errno.errorcode[error.errno or 0])
            return []
        if probed:
            self.observe("landlock_exec", "execve of a file outside the trees", as_role(self.exec_probe_file), control)
        else:
            self.observe("landlock_exec", "landlock_restrict_self", linux.SUCCEEDED)
        return trees

    def hand_over_trap(self, channel: socket.socket, mounted: list[str] | None = None) -> bool:
        """Install the filter and send `Trapped`; return whether there is a trap, which is the receiver's then."""
        listener, trapped = self._install_filter()
        trapped = msgspec.structs.replace(trapped, mounted=mounted)
        if listener < 0:
            channel.sendall(wire.encode(trapped))
            return False
        socket.send_fds(channel, [wire.encode(trapped)], [listener])
        os.close(listener)
        return True

    def try_trap(self) -> None:
        """Exec what the trap is to deny."""
        program, name = "/bin/true", PROBE_ARGV0 + self.spec.probe_nonce
        outcome = linux.attempt(os.execve, program, [name], {})
        self.observe("exec_trap", f"execve of {program} that the trap denies", outcome)

    def _install_filter(self) -> tuple[int, Trapped]:
        """Install the trap and the rules, or where there is to be no trap or can be none, the rules alone."""
        why = "disabled"
        rules = {name: self.wants(name) for name in FILTERED}
        program = functools.partial(role_program, linux.machine(), **rules)
        if self.wants("exec_trap"):
            try:
                listener, killable = seccomp.install(program(exec_trap=True))
            except OSError as error:
                why = errno.errorcode[error.errno or 0]
            else:
                return listener, Trapped(wait_killable=killable)
        if any(rules.values()):
            with contextlib.suppress(OSError):  # the attempts that follow say what came of it
                seccomp.install(program(exec_trap=False), listener=False)
        return -1, Trapped(error=why)


def on_processes(pids: Mapping[str, int]) -> dict[str, attempts.Acts]:
    """Return what a role must not do to processes that are not its own, by the names that reports give them."""
    return {
        "uid_drop": {
            f"kill({name}, 0)": functools.partial(linux.attempt, os.kill, pid, 0) for name, pid in pids.items()
        },
        "proc_hidden": {
            f"stat(/proc/{name.upper()})": functools.partial(linux.attempt, _look_at, pid) for name, pid in pids.items()
        },
    }


def _look_at(pid: int) -> None:
    os.stat(f"/proc/{pid}")


def receive(channel: socket.socket, kind: type[_Message]) -> _Message:
    """Return the next message, and read nothing past it; exits where the supervisor is gone."""
    line = bytearray()
    while not line.endswith(b"\n"):
        waiting = channel.recv(65536, socket.MSG_PEEK)
        if not waiting:
            sys.exit(errors.EXIT_ENGINE)
        line += channel.recv(waiting.find(b"\n") + 1 or len(waiting))
    return wire.decode(kind, line)


def reset_signals() -> None:
    """Give the role the kernel's defaults: Python ignores SIGPIPE, and the supervisor blocks what it waits for.

    Of dispositions only an ignored one outlives an exec.
    """
    for number in signals.CATCHABLE - _GLIBCS:
        _signal.signal(number, _signal.SIG_DFL)  # `signal.signal` takes 50 times as long, for names that nobody reads
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
