"""ENTRY: the stub between the supervisor and a confined role: puts every layer on, tries each, then execs.

`python -I -m codingagents.supervisor.confine --fd N`. Single-threaded and synchronous; holds no secret. The report it
sends comes from attempts made in this very process, after which it *is* the role: nothing lies between report and
fact.
"""

from __future__ import annotations

import errno
import os
import socket
import sys

from codingagents.supervisor import agent_mounts, role_layers, role_limits, terminal_handover
from codingagents.supervisor.confine_spec import ConfineSpec, ExecFailed, Go, Observed
from codingagents.supervisor.role_layers import FILTERED, RoleLayers
from codingagents.trust import errors, linux, wire


class _Stub:
    def __init__(self, channel: socket.socket, spec: ConfineSpec) -> None:
        self.channel = channel
        self.spec = spec
        self.layers = RoleLayers(spec)
        self.mounted: list[str] | None = None
        self.step = "start"

    def drop_identity(self) -> None:
        self.step = "dropping Linux capabilities and identity"
        spec, layers = self.spec, self.layers
        if spec.uid is None:
            return
        on_supervisor = role_layers.on_processes({"supervisor": os.getppid()})
        before = layers.outcomes(on_supervisor)
        layers.bar_privileges()
        if layers.wants("uid_drop"):
            os.setgroups(spec.groups)
            os.setresgid(spec.gid, spec.gid, spec.gid)
            os.setresuid(spec.uid, spec.uid, spec.uid)
            linux.drop_capabilities()
            if os.getresuid() != (spec.uid,) * 3 or os.getresgid() != (spec.gid,) * 3:
                raise OSError(errno.EPERM, "identity did not change")
        layers.try_identity()
        layers.compare(on_supervisor, before)

    def limit(self) -> None:
        self.step = "limits"
        if self.layers.wants("limits"):
            self.layers.observations += role_limits.put_on(self.spec.limits)

    def restrict(self) -> list[str]:
        self.step = "no_new_privs"
        self.layers.forbid_new_privileges()
        self.layers.see_privileges()
        self.step = "Landlock"
        return self.layers.restrict_execution()

    def trap(self) -> None:
        self.step = "exec trap"
        # setresuid made this process undumpable, and then nobody without CAP_SYS_PTRACE could read its first exec.
        linux.prctl(linux.PR_SET_DUMPABLE, 1)
        if self.spec.death_signal:
            linux.set_parent_death_signal()
        before = self.layers.outcomes(FILTERED)
        self.step = "handing over the trap"
        trapped = self.layers.hand_over_trap(self.channel, self.mounted)
        self.layers.compare(FILTERED, before)
        if trapped:
            self.layers.try_trap()

    def run(self) -> None:
        spec = self.spec
        self.step = "opening Landlock's probe"
        self.layers.open_probe_file()  # now, for the directories on its way may be root's alone
        self.step = "terminal"
        if (terminal := terminal_handover.find_terminal()) is not None:
            terminal_handover.take(terminal)
        self.step = "mounts"
        self.mounted = agent_mounts.lay_over(spec.shims)
        self.drop_identity()
        self.limit()
        trees = self.restrict()
        self.trap()
        self.step = "reporting"
        self.channel.sendall(wire.encode(Observed(observations=self.layers.observations, trees=trees)))
        role_layers.receive(self.channel, Go)
        if not spec.argv:
            return
        self.step = f"entering {spec.working_directory}"
        os.chdir(spec.working_directory)
        os.umask(spec.umask)
        self.step = f"running {spec.argv[0]}"
        os.execvpe(spec.argv[0], spec.argv, spec.environment)  # noqa: S606 -- running the role is its purpose; no shell


def main(argv: list[str]) -> int:
    """Run the stub on the descriptor that `--fd N` names; returns only when the program was not run."""
    channel = socket.socket(fileno=int(argv[argv.index("--fd") + 1]))
    os.set_inheritable(channel.fileno(), False)
    stub = _Stub(channel, role_layers.receive(channel, ConfineSpec))
    role_layers.reset_signals()
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
