"""ENTRY: the stub between the supervisor and a confined role: puts every layer on, tries each, then execs.

`python -I -m codingagents.supervisor.confine --fd N`. Single-threaded and synchronous; holds no secret. The report it
sends comes from attempts made in this very process, after which it *is* the role: nothing lies between report and
fact.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Final

from codingagents.supervisor import attempts, kernel, landlock, role_limits, seccomp, terminal_handover
from codingagents.supervisor.confine_spec import (
    PROBE_ARGV0,
    WANTED_SECUREBITS,
    ConfineSpec,
    ExecFailed,
    Go,
    Observation,
    Observed,
    Trapped,
)
from codingagents.supervisor.role_filter import role_program
from codingagents.trust import errors, linux, wire

# What the filter refuses, and how each layer of it is tried.
_FILTERED: Final[Mapping[str, attempts.Acts]] = {
    "memfd_rule": {"memfd_create(flags=0)": lambda: linux.attempt(linux.memfd_create, 0)},
    "seccomp_static": attempts.STATIC,
    "userns": attempts.USER_NAMESPACES,
}


class _Stub:
    def __init__(self, channel: socket.socket, spec: ConfineSpec) -> None:
        self.channel = channel
        self.spec = spec
        self.observations: list[Observation] = []
        self.step = "start"
        self.probe_file = -1

    def wants(self, layer: str) -> bool:
        return layer not in self.spec.layers_off

    def observe(self, layer: str, act: str, outcome: str, control: str = "") -> None:
        self.observations.append(Observation(layer=layer, act=act, control=control, outcome=outcome))

    def exec_probe_file(self) -> str:
        """Exec a file of no format: ENOEXEC where it may be executed, EACCES where Landlock forbids it."""
        return linux.attempt(os.execve, self.probe_file, ["self-test"], {})

    def drop_identity(self) -> None:
        self.step = "dropping Linux capabilities and identity"
        spec = self.spec
        if spec.uid is None:
            return
        supervisor = os.getppid()
        signalled, shown = linux.attempt(os.kill, supervisor, 0), linux.attempt(_look_at, supervisor)
        if self.wants("securebits"):
            with contextlib.suppress(PermissionError):  # what is read back says what came of it
                linux.prctl(linux.PR_SET_SECUREBITS, WANTED_SECUREBITS)
        if self.wants("caps_bounding"):
            try:
                linux.drop_bounding_set()
            except PermissionError:
                self.observe("caps_bounding", "prctl(PR_CAPBSET_DROP)", "EPERM")
        if self.wants("uid_drop"):
            os.setgroups(spec.groups)
            os.setresgid(spec.gid, spec.gid, spec.gid)
            os.setresuid(spec.uid, spec.uid, spec.uid)
            linux.drop_capabilities()
            if os.getresuid() != (spec.uid,) * 3 or os.getresgid() != (spec.gid,) * 3:
                raise OSError(errno.EPERM, "identity did not change")
            others = sorted(set(os.getgroups()) - {*spec.groups, spec.gid})
            self.observe("uid_drop", "groups of others", " ".join(map(str, others)) or "none")
            self.observe("uid_drop", "setresuid(0, 0, 0)", linux.attempt(os.setresuid, 0, 0, 0))
            self.observe("uid_drop", "kill(supervisor, 0)", linux.attempt(os.kill, supervisor, 0), signalled)
        if self.wants("securebits"):
            self.observe("securebits", "prctl(PR_GET_SECUREBITS)", f"{linux.prctl(linux.PR_GET_SECUREBITS):#x}")
        if self.wants("proc_hidden"):
            self.observe("proc_hidden", "stat(/proc/SUPERVISOR)", linux.attempt(_look_at, supervisor), shown)

    def limit(self) -> None:
        self.step = "limits"
        if self.wants("limits"):
            self.observations += role_limits.put_on(self.spec.limits)

    def restrict(self) -> list[str]:
        self.step = "no_new_privs"
        if self.wants("no_new_privs"):
            linux.set_no_new_privs()
        fields = kernel.status_fields()
        self.observe("no_new_privs", "/proc/self/status NoNewPrivs", fields["NoNewPrivs"])
        for held in ("CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"):
            self.observe("caps_bounding", f"/proc/self/status {held}", fields[held])
        self.step = "Landlock"
        trees: list[str] = []
        if self.wants("landlock_exec"):
            control = self.exec_probe_file() if self.probe_file >= 0 else ""
            try:
                trees = landlock.restrict_execution(self.spec.execute_trees)
            except OSError as error:
                self.observe("landlock_exec", "landlock_restrict_self", errno.errorcode[error.errno or 0])
            else:
                if self.probe_file < 0:
                    self.observe("landlock_exec", "landlock_restrict_self", linux.SUCCEEDED)
                else:
                    self.observe("landlock_exec", "execve of a file outside the trees", self.exec_probe_file(), control)
        return trees

    def trap(self) -> None:
        self.step = "exec trap"
        # setresuid made this process undumpable, and then nobody without CAP_SYS_PTRACE could read its first exec.
        linux.prctl(linux.PR_SET_DUMPABLE, 1)
        if self.spec.death_signal:
            linux.set_parent_death_signal()
        acts = {name: acts for name, acts in _FILTERED.items() if self.wants(name)}
        before = {name: attempts.outcomes(each) for name, each in acts.items()}
        listener, trapped = self.install_filter()
        self.step = "handing over the trap"
        if listener >= 0:
            socket.send_fds(self.channel, [wire.encode(trapped)], [listener])
            os.close(listener)
        else:
            self.channel.sendall(wire.encode(trapped))
        for name, each in acts.items():
            self.observations += attempts.compared(name, each, before[name])
        if listener >= 0:
            program, name = "/bin/true", PROBE_ARGV0 + self.spec.probe_nonce
            outcome = linux.attempt(os.execve, program, [name], {})
            self.observe("exec_trap", f"execve of {program} that the trap denies", outcome)

    def install_filter(self) -> tuple[int, Trapped]:
        """Install the trap and the rules, or where there is to be no trap or can be none, the rules alone."""
        why = "disabled"
        rules = {name: self.wants(name) for name in _FILTERED}
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

    def run(self) -> None:
        spec = self.spec
        self.step = "opening Landlock's probe"
        if spec.probe_file is not None:  # now, for the directories on its way may be root's alone
            self.probe_file = os.open(spec.probe_file, os.O_PATH | os.O_CLOEXEC)
        self.step = "terminal"
        if (terminal := terminal_handover.find_terminal()) is not None:
            terminal_handover.take(terminal)
        self.drop_identity()
        self.limit()
        trees = self.restrict()
        self.trap()
        self.step = "reporting"
        self.channel.sendall(wire.encode(Observed(observations=self.observations, trees=trees)))
        wire.decode(Go, _read_line(self.channel))
        if not spec.argv:
            return
        self.step = f"entering {spec.working_directory}"
        os.chdir(spec.working_directory)
        os.umask(spec.umask)
        self.step = f"running {spec.argv[0]}"
        os.execvpe(spec.argv[0], spec.argv, spec.environment)  # noqa: S606 -- running the role is its purpose; no shell


def _look_at(pid: int) -> None:
    os.stat(f"/proc/{pid}")


def _read_line(channel: socket.socket) -> bytes:
    buffer = wire.LineBuffer()
    while True:
        data = channel.recv(65536)
        if not data:
            sys.exit(errors.EXIT_ENGINE)  # the supervisor is gone
        lines = buffer.feed(data)
        if lines:
            return lines[0]


def _reset_signals() -> None:
    """Give the role the kernel's defaults: Python ignores SIGPIPE, and the supervisor blocks what it waits for."""
    for number in range(1, signal.NSIG):
        if number not in (signal.SIGKILL, signal.SIGSTOP) and number in signal.valid_signals():
            try:
                signal.signal(number, signal.SIG_DFL)
            except OSError:  # glibc keeps 32 and 33
                continue
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def main(argv: list[str]) -> int:
    """Run the stub on the descriptor that `--fd N` names; returns only when the program was not run."""
    channel = socket.socket(fileno=int(argv[argv.index("--fd") + 1]))
    os.set_inheritable(channel.fileno(), False)
    stub = _Stub(channel, wire.decode(ConfineSpec, _read_line(channel)))
    _reset_signals()
    try:
        stub.run()
    except OSError as error:
        code = errors.EXIT_ENGINE
        if stub.step.startswith("running "):
            missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
            code = errors.EXIT_NO_PROGRAM if missing else errors.EXIT_NOT_EXECUTABLE
        name = errno.errorcode.get(error.errno or 0, "?")
        channel.sendall(wire.encode(ExecFailed(step=stub.step, errno=name, code=code)))
        return code
    return errors.EXIT_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
