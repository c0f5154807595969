"""ENTRY: makes all tasks of a session: builds their sandbox once, tries it as a task, then forks a keeper for each.

`python -I -m codingagents.supervisor.task_parent --fd N`. Single-threaded and synchronous, and driven like a confine
stub (`confine_spec`), but for `SandboxMade` before the rest. Each layer but the identity is on this process, and tasks
inherit it: so one filter, and one trap, are those of all. What is reported was tried in a process that was made exactly
as tasks are. Reads nothing that an untrusted role wrote. At EOF, which keepers get too, it waits for them and ends.
"""

from __future__ import annotations

import array
import errno
import functools
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Final

from codingagents.supervisor import (
    apparmor,
    identities,
    kernel,
    processes,
    role_layers,
    role_limits,
    task_command,
    task_keeper,
    task_sandbox,
)
from codingagents.supervisor.apparmor_profile import ASKED_FOR, TASK_PROFILE
from codingagents.supervisor.confine_spec import ExecFailed, Go, Observation, Observed
from codingagents.supervisor.role_layers import FILTERED, RoleLayers
from codingagents.supervisor.task_processes import ChildSignals, kill_below
from codingagents.supervisor.task_spec import SandboxMade, SandboxSpec
from codingagents.trust import errors, linux, wire

_MOST_HANDED: Final = 4  # descriptors that come with one message
_AGAIN_MILLISECONDS: Final = 20  # between two walks for what a lost keeper left


class _Parent:
    def __init__(self, channel: socket.socket, spec: SandboxSpec) -> None:
        self.channel = channel
        self.spec = spec
        self.layers = RoleLayers(spec.confine)
        self.step = "start"
        self._keepers: set[int] = set()
        self._lost_keeper = False  # and what it kept may be there

    # -- the sandbox -----------------------------------------------------------------------------------------------

    def confine(self) -> None:
        """Put all layers on, try them as a task, and report."""
        layers = self.layers
        self.step = "opening Landlock's probe"
        layers.open_probe_file()  # now, for the directories on its way may be masked later
        self.step = "namespaces"
        others = {"supervisor": os.getppid()}
        sandbox = task_sandbox.enter(self.spec.masks) if self.spec.namespaces else task_sandbox.Sandbox("disabled")
        if not sandbox.why:
            others.clear()  # it has no number in here
        if self.spec.confine.death_signal or not sandbox.why:
            linux.set_parent_death_signal()
        self._tell_which_process(sandbox.why)
        self.step = "controls"
        on_others = role_layers.on_processes(others | {"task-parent": os.getpid()})
        before = layers.outcomes(on_others) | self._controls()
        self.step = "Linux capabilities"
        layers.bar_privileges()
        layers.forbid_new_privileges()
        kernel.keep_capabilities(kernel.CAP_SETUID, kernel.CAP_SETGID)  # keepers become somebody else
        task_command.show(readable=False)
        self.step = "Landlock"
        trees = layers.restrict_execution(lambda act: self._as_task(lambda: layers.observe("", "", act()))[-1].outcome)
        layers.close_probe_file()
        self.step = "exec trap"
        trapped = layers.hand_over_trap(self.channel)

        def try_all() -> None:
            layers.try_identity()
            layers.compare(on_others, before)
            sandbox.try_as_task(layers)
            if layers.wants("limits"):
                layers.observations += role_limits.put_on(self.spec.confine.limits)
            layers.see_privileges()
            layers.compare(FILTERED, before)
            if trapped:
                task_command.show(readable=True)
                layers.try_trap()
            task_command.show(readable=True)
            layers.observe("apparmor", f"{TASK_PROFILE} at exec", apparmor.confine_next_exec(TASK_PROFILE) or ASKED_FOR)

        self.step = "trying as a task"
        seen = layers.observations + self._as_task(try_all)
        self.channel.sendall(wire.encode(Observed(observations=seen, trees=trees)))

    def _tell_which_process(self, why: str) -> None:
        pidfd = os.pidfd_open(os.getpid())
        socket.send_fds(self.channel, [wire.encode(SandboxMade(why=why))], [pidfd])
        os.close(pidfd)

    def _controls(self) -> dict[str, dict[str, str]]:
        wanted = {layer: acts for layer, acts in FILTERED.items() if self.layers.wants(layer)}
        no_controls = {layer: dict.fromkeys(acts, "") for layer, acts in wanted.items()}
        seen = self._as_task(lambda: self.layers.compare(wanted, no_controls))
        return {layer: {each.act: each.outcome for each in seen if each.layer == layer} for layer in wanted}

    def _as_task(self, act: Callable[[], None]) -> list[Observation]:
        """Return what `act` adds to the observations in a process that is made as a task is."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        keeper = self._fork(functools.partial(self._keep_trial, act, writing))
        os.close(writing)
        with open(reading, "rb") as report:
            line = report.read()
        os.waitpid(keeper, 0)  # noqa: TID251 -- its own, like the keepers
        if not line:
            raise OSError(errno.ECHILD, "the trial ended without a word")
        observed: Observed = wire.decode(Observed, line)
        return observed.observations

    def _keep_trial(self, act: Callable[[], None], writing: int) -> None:
        task_command.become_keeper(self.spec.confine)
        os.waitpid(self._fork(functools.partial(self._try, act, writing)), 0)  # noqa: TID251 -- likewise

    def _try(self, act: Callable[[], None], writing: int) -> None:
        task_command.become_task(self.spec.confine)
        self.layers.observations = []
        act()
        with open(writing, "wb") as report:
            report.write(wire.encode(Observed(observations=self.layers.observations, trees=[])))

    # -- tasks -----------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Make a keeper for each task that is asked for, until EOF; then return once no process is left."""
        role_layers.receive(self.channel, Go)
        processes.set_subreaper()  # of a lost keeper's tasks, where there is no PID namespace
        ended = ChildSignals()
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(self.channel, select.POLLIN)
        task_keeper.prepare()
        gc.collect()
        gc.freeze()  # keepers then never write to what they share with this process
        serving = True
        while self._reap() or serving:
            for descriptor, _ in poll.poll(_AGAIN_MILLISECONDS if self._lost_keeper else None):
                if descriptor == ended.fileno():
                    ended.drain()
                elif not self._make_keeper():
                    poll.unregister(self.channel)
                    serving = False

    def _make_keeper(self) -> bool:
        """Take one message; False at EOF."""
        room = socket.CMSG_SPACE(_MOST_HANDED * array.array("i").itemsize)
        try:
            data, ancillary, _, _ = self.channel.recvmsg(1, room, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            return False
        handed = array.array("i")
        for _, _, payload in ancillary:
            handed.frombytes(payload)
        if len(handed) in (2, 4):
            channel, *others = handed
            try:
                self._keepers.add(self._fork(lambda: task_keeper.main(channel, others, self.spec.confine)))
            except OSError as error:
                failed = task_command.could_not("making a keeper", error.errno or errno.EIO)
                os.write(channel, wire.encode(failed))
        for descriptor in handed:
            os.close(descriptor)
        return bool(data)

    def _reap(self) -> bool:
        """Reap what has ended, and end what a lost keeper left; say whether any process is there."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)  # noqa: TID251 -- a parent of nobody but keepers
            except ChildProcessError:
                self._lost_keeper = False
                return False
            if pid == 0:
                break
            if pid in self._keepers:
                self._keepers.remove(pid)
                self._lost_keeper = self._lost_keeper or status != 0
        if self._lost_keeper:
            with identities.effective_user(self.spec.confine.uid or 0):
                self._lost_keeper = kill_below(self._keepers)
        return True

    def _fork(self, main: Callable[[], object]) -> int:
        """Return the PID of a child that runs `main` and ends."""
        child = os.fork()  # noqa: TID251 -- see `_reap`
        if child:
            return child
        code = errors.EXIT_ENGINE
        try:
            main()
            code = errors.EXIT_OK
        except SystemExit:  # EOF before there was anything to do
            code = errors.EXIT_OK
        except BaseException as error:
            os.write(2, f"coding-agents: a process of tasks failed: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)


def main(argv: Sequence[str]) -> int:
    """Run on the descriptor that `--fd N` names; returns when no task is left, or what failed was told."""
    channel = socket.socket(fileno=int(argv[argv.index("--fd") + 1]))
    os.set_inheritable(channel.fileno(), False)
    linux.name_process("task parent")
    try:
        return _run(channel)
    except ConnectionError:  # the session ends; nobody is left to be told anything
        return errors.EXIT_ENGINE


def _run(channel: socket.socket) -> int:
    parent = _Parent(channel, role_layers.receive(channel, SandboxSpec))
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:
        parent.confine()
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "?")
        channel.sendall(wire.encode(ExecFailed(step=parent.step, errno=name, code=errors.EXIT_ENGINE)))
        return errors.EXIT_ENGINE
    parent.serve()
    return errors.EXIT_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
