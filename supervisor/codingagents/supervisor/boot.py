"""SHELL: wires one session together; the only file that knows all parts. Decides the order of things, nothing else.

Start: secrets, event log, directories, helpers, client configs, confinement, agent. End, whatever the cause: agent's
tree, helpers, zygote, trap, log, directories. Every step of the start can be cut short by a stop; the end always
runs.
"""

from __future__ import annotations

import functools
import os
import secrets as randomness
import signal
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

import trio

from codingagents.rewrite.clients.base import Endpoint
from codingagents.rewrite.clients.known import CLIENTS
from codingagents.rewrite.files import install_client_files
from codingagents.rewrite.specs import ControlCheckpoint, SessionSecrets, SessionSpec
from codingagents.supervisor import complaints, kernel, processes, rundirs, signals
from codingagents.supervisor.complaints import complain
from codingagents.supervisor.confine_spec import ConfineSpec, ExecFailed
from codingagents.supervisor.confined import ConfinedRole, TrapSettings
from codingagents.supervisor.control import Control
from codingagents.supervisor.early import StubProcess, ZygoteProcess
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.helpers import HelperKeeper, Slot, bind_slot
from codingagents.supervisor.layers import Facts, unmet_requirements
from codingagents.supervisor.processes import Children
from codingagents.supervisor.reaper import Reaper
from codingagents.supervisor.sessionfiles import open_event_log, read_session_spec
from codingagents.supervisor.zygote_client import Zygote
from codingagents.trust import checkpoint, errors
from codingagents.trust.errors import AgentError, ProcessError
from codingagents.trust.events import AgentStarted, LayerReport, SessionEnded, SessionStarted
from codingagents.trust.scrub import Scrubber
from codingagents.trust.vocabulary import Role, Secret, SessionId

VERSION: Final = "0.1.0"
AGENT_GRACE: Final = 5.0  # seconds between TERM and KILL for what is left of the agent's tree
KILL_SECONDS: Final = 5.0
HELPER_GRACE: Final = 5.0
CHECKPOINT_SECONDS: Final = 2.0
COMPLAINT_SECONDS: Final = 1.0  # for standard error to take what is still to be said
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # where the specification has none
# A stop ends the session; the others are the agent's business and are only passed on.
_STOPS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_PASSED_ON: Final = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT)


@dataclass(frozen=True, slots=True)
class Parts:
    """What was made before this module was loaded."""

    children: Children
    stub: StubProcess
    zygote: ZygoteProcess
    why_no_mounts: str  # "" in a mount namespace of our own


def run(parts: Parts, session_dir: str, control_fd: int | None, command: list[str]) -> int:
    """Run the session; see `session.main`."""
    spec = read_session_spec(session_dir)
    try:
        return trio.run(Session(parts, spec, session_dir, control_fd, list(command or spec.command)).run)
    finally:
        complaints.finish(COMPLAINT_SECONDS)


@dataclass(slots=True)
class _Ending:
    """Why the session ends, and with which code; the first cause wins."""

    reason: str = ""
    code: int = 0

    def because(self, reason: str, code: int) -> None:
        if not self.reason:
            self.reason, self.code = reason, code


@dataclass(slots=True)
class _Made:
    """What the start has made so far, for the end to take apart."""

    log: EventLog | None = None
    dirs: rundirs.RunDirs | None = None
    role: ConfinedRole | None = None
    keepers: list[HelperKeeper] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    agent_runs: bool = False


class Session:
    """One session from its first step to its last."""

    def __init__(
        self, parts: Parts, spec: SessionSpec, session_dir: str, control_fd: int | None, command: list[str]
    ) -> None:
        """Hold what `run` will use."""
        self._parts = parts
        self._children = parts.children
        self._reaper = Reaper(parts.children)
        self._spec = spec
        self._dir = session_dir
        self._command = command
        self._control = None if control_fd is None else Control(control_fd)
        self._made = _Made()
        self._ending = _Ending()
        self._life = trio.CancelScope()

    async def run(self) -> int:
        """Return the session's exit code; everything that was made is gone then."""
        # The reaper outlives everything else: whatever fails, the end still waits for each process.
        async with trio.open_nursery() as reaping:
            await reaping.start(self._reaper.run)
            async with trio.open_nursery() as services:
                await self._live(services)
                services.cancel_scope.cancel()
            reaping.cancel_scope.cancel()
        return self._ending.code

    async def _live(self, services: trio.Nursery) -> None:
        await services.start(self._hear_signals)
        services.start_soon(self._watch_launcher)
        zygote = Zygote(self._parts.zygote, self._children)
        try:
            with self._life:
                await self._start_and_wait(services, zygote)
        except AgentError as error:
            complain(str(error))
            self._ending.because(str(error), errors.EXIT_ENGINE)  # any lower code could be the agent's own
        finally:
            # Every cause that we know of has been named by now.
            self._ending.because("internal error", errors.EXIT_ENGINE)
            with trio.CancelScope(shield=True):
                await self._end(zygote)

    # -- start ---------------------------------------------------------------------------------------------------

    async def _start_and_wait(self, services: trio.Nursery, zygote: Zygote) -> None:
        if self._control is None:
            raise ProcessError("a session needs --control-fd, over which its secrets come")
        granted = await self._control.receive_secrets()
        log = self._open_log(granted)
        self._made.log = log
        services.start_soon(self._sign_regularly, log)
        uids = self._spec.uids
        log.append(self._started())
        engine_seccomp = kernel.status_fields().get("Seccomp", "0")
        self._made.dirs = dirs = rundirs.prepare(
            why_plain=self._parts.why_no_mounts, agent_uid=uids.agent, agent_gid=uids.agent, session_dir=self._dir
        )
        self._start_helpers(services, zygote, log, granted)
        environment = self._install_clients(dirs)
        await trio.lowlevel.checkpoint()

        settings = TrapSettings(
            exec_spec=self._spec.exec,
            log=log,
            scrubber=self._scrubber(granted),
            on_trouble=complain,
        )
        self._made.role = role = ConfinedRole(self._parts.stub, Role.AGENT, settings)
        facts = Facts(
            is_pid1=processes.is_pid1(),
            mount_namespace=dirs.why_plain,
            engine_seccomp=engine_seccomp,
            apparmor=rundirs.apparmor_label(),
            root=os.geteuid() == 0,
        )
        rows = await role.confine(self._confinement(dirs, environment), facts, self._spec.layers)
        dirs.drop_probe_file()
        log.append(LayerReport(role=Role.AGENT.value, layers=rows))
        if unmet := unmet_requirements(rows):
            names = ", ".join(row.layer for row in unmet)
            remedies = "; ".join(row.remedy for row in unmet if row.remedy) or unmet[0].why
            raise ProcessError(f"required layers are not enforced here: {names} ({remedies})")
        child = self._parts.stub.child
        command = settings.scrubber.scrub_argv([os.fsencode(part) for part in self._command]).args
        log.append(AgentStarted(process_pid=child.pid, user_id=uids.agent, command=command))
        self._made.agent_runs = True
        if failed := await role.go():
            sentence = f"{failed.step} failed with {failed.errno}{self._hint(failed)}"
            complain(sentence)
            self._ending.because(sentence, failed.code)
        ended = await self._reaper.wait(child)
        self._ending.because("the agent ended", ended.code)

    def _hint(self, failed: ExecFailed) -> str:
        if failed.code == errors.EXIT_NO_PROGRAM and "/" not in self._command[0]:
            return f"; install it for all users: the agent's PATH is {self._spec.environment.get('PATH', _PATH)}"
        if failed.errno != "EACCES":
            return ""
        if failed.step.startswith("entering"):
            return f"; UID {self._spec.uids.agent} must be able to reach the workspace: give it a copy with --workspace"
        return f"; only {' '.join(self._spec.exec.trees)} may be executed: see [exec] trees"

    def _open_log(self, granted: SessionSecrets) -> EventLog:
        key = granted.signing_key
        if checkpoint.public_key(key) != self._spec.public_key:
            raise ProcessError("the signing key that came over the control channel is not the session's")
        session = SessionId(self._spec.session)
        control = self._control
        assert control is not None
        return EventLog(
            open_event_log(self._dir),
            session,
            functools.partial(checkpoint.sign_checkpoint, key, session=session),
            on_checkpoint=lambda note: control.send(ControlCheckpoint(note=note)),
            on_trouble=complain,
        )

    def _started(self) -> SessionStarted:
        uids = self._spec.uids
        return SessionStarted(
            agent=self._spec.agent,
            engine=self._spec.engine,
            servers=[remote.name for remote in self._spec.remotes],
            config_sha256=self._spec.config_sha256,
            exec_mode=self._spec.exec.mode,
            uids={Role.AGENT.value: uids.agent, Role.TASK.value: uids.task, **uids.servers},
            supervisor_version=VERSION,
        )

    def _start_helpers(self, services: trio.Nursery, zygote: Zygote, log: EventLog, granted: SessionSecrets) -> None:
        uids = self._spec.uids
        for remote in self._spec.remotes:
            slot = bind_slot(remote, uids.servers[remote.name], Secret(randomness.token_urlsafe(32)))
            keeper = HelperKeeper(
                slot,
                zygote=zygote,
                children=self._children,
                reaper=self._reaper,
                log=log,
                agent_uid=uids.agent,
                secrets=granted.secrets,
            )
            self._made.slots.append(slot)
            self._made.keepers.append(keeper)
            services.start_soon(keeper.run)

    def _install_clients(self, dirs: rundirs.RunDirs) -> dict[str, str]:
        """Write every client's configuration; return the environment that makes clients read it.

        A client that is told by arguments gets them where the command is that client and not a program around it.
        """
        endpoints = [Endpoint(name=slot.remote.name, url=slot.url, bearer=slot.bearer) for slot in self._made.slots]
        environment: dict[str, str] = {}
        for client in CLIENTS.values():
            install_client_files(dirs.clients, client.render(endpoints, self._spec.codex_toml), self._spec.uids.agent)
            switches = client.switches(dirs.clients)
            environment |= switches.environment
            if self._spec.agent == client.NAME and os.path.basename(self._command[0]) == client.NAME:
                self._command[1:1] = switches.arguments
        return environment

    def _confinement(self, dirs: rundirs.RunDirs, client_environment: Mapping[str, str]) -> ConfineSpec:
        uids = self._spec.uids
        trees = self._spec.exec.trees
        return ConfineSpec(
            argv=self._command,
            environment={
                "PATH": _PATH,
                "HOME": dirs.home,
                **client_environment,
                "CODING_AGENTS_SESSION": self._spec.session,
                **self._spec.environment,
            },
            working_directory=self._spec.working_directory,
            uid=uids.agent,
            gid=uids.agent,
            groups=[uids.workspace_gid],
            umask=0o002,
            execute_trees=sorted({*trees, *map(os.path.realpath, trees)}),
            probe_file=dirs.probe_file or None,
            probe_nonce=randomness.token_hex(16),
            death_signal=not processes.is_pid1(),
            layers_off=[name for name, wish in self._spec.layers.items() if wish == "off"],
        )

    def _scrubber(self, granted: SessionSecrets) -> Scrubber:
        local = {f"local bearer of {slot.remote.name}": slot.bearer for slot in self._made.slots}
        return Scrubber({**granted.secrets, **local})

    # -- while it runs -------------------------------------------------------------------------------------------

    async def _sign_regularly(self, log: EventLog) -> None:
        while True:
            await trio.sleep(CHECKPOINT_SECONDS)
            log.checkpoint()

    async def _hear_signals(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.open_signal_receiver(*_STOPS, *_PASSED_ON) as arrivals:
            task_status.started()
            signals.unblock_all()
            async for number in arrivals:
                self._hear(number)

    def _hear(self, number: int) -> None:
        if self._made.agent_runs and number == signal.SIGTERM:
            # `_end` passes it on, to all of the agent's tree; its exit code no longer matters to whoever stopped us.
            self._ending.because("SIGTERM", 128 + number)
            self._life.cancel()
        elif self._made.agent_runs:
            self._children.kill_group(self._parts.stub.child, number)
        elif number in _STOPS:
            self._ending.because(f"{signal.Signals(number).name} during start-up", 128 + number)
            self._life.cancel()

    async def _watch_launcher(self) -> None:
        if self._control is None:
            return
        # `receive_secrets` reads first; both never read at once, because the launcher sends nothing after it.
        await self._control.secrets_came.wait()
        await self._control.wait_for_launchers_end()
        self._ending.because("the launcher is gone", errors.EXIT_ENGINE)
        self._life.cancel()

    # -- end -----------------------------------------------------------------------------------------------------

    async def _end(self, zygote: Zygote) -> None:
        made = self._made
        await self._end_agent()
        async with trio.open_nursery() as nursery:
            for keeper in made.keepers:
                nursery.start_soon(keeper.stop, HELPER_GRACE)
        zygote.close()
        for keeper in made.keepers:
            await keeper.ended.wait()
        await self._end_child(zygote.child, HELPER_GRACE)
        if not processes.is_pid1():
            with trio.move_on_after(KILL_SECONDS):
                await self._sweep(self._spec.uids.servers.values())  # what a helper that is not ours any more forked
        for slot in made.slots:
            slot.listener.close()
        if made.role is not None and made.role.trap is not None:
            made.role.trap.join(1.0)
        if made.log is not None:
            made.log.close(SessionEnded(exit_code=self._ending.code, reason=self._ending.reason))
        if made.dirs is not None:
            try:
                made.dirs.remove()
            except ProcessError as error:
                complain(str(error))
        if self._control is not None:
            self._control.close()

    async def _end_agent(self) -> None:
        """End the agent and whatever else runs as one of the session's untrusted UIDs."""
        if self._made.role is not None:
            self._made.role.close()
        else:
            self._parts.stub.channel.close()
        child = self._parts.stub.child
        untrusted = {self._spec.uids.agent, self._spec.uids.task}
        self._children.signal_users(untrusted, signal.SIGTERM)
        self._children.signal_users(untrusted, signal.SIGCONT)  # what is stopped cannot end
        with trio.move_on_after(AGENT_GRACE) as grace:
            await self._reaper.wait(child)
            while self._children.signal_users(untrusted, 0):  # noqa: ASYNC110 -- nothing announces the last of them
                await trio.sleep(0.02)
        if grace.cancelled_caught or not processes.is_pid1():  # what a walk misses ends with its PID namespace
            with trio.move_on_after(KILL_SECONDS):  # what is stuck in the kernel must not hold up the end
                await self._kill(child, untrusted)

    async def _kill(self, child: processes.Child, uids: Collection[int]) -> None:
        """Kill the stub and all that runs as one of `uids`."""
        self._children.signal(child, signal.SIGKILL)
        await self._sweep(uids)
        await self._reaper.wait(child)
        while self._children.signal_users(uids, 0):  # noqa: ASYNC110 -- likewise
            await trio.sleep(0.02)

    async def _sweep(self, uids: Collection[int]) -> None:
        """Kill all that runs as one of `uids`, also what forks faster than a walk through /proc."""
        if not uids:
            return
        argv = [sys.executable, "-I", "-m", "codingagents.supervisor.sweep", *map(str, uids)]
        swept = False
        while not swept:  # for an instant the sweeper is one of its prey, which may have killed it
            try:
                sweeper = self._children.spawn(argv, env={}, fds={2: 2})
            except OSError:  # they left no room for one more process
                self._children.signal_users(uids, signal.SIGKILL)
                await trio.sleep(0.02)
                continue
            try:
                swept = (await self._reaper.wait(sweeper)).code == errors.EXIT_OK
            finally:
                self._children.signal(sweeper, signal.SIGKILL)

    async def _end_child(self, child: processes.Child, grace: float) -> None:
        with trio.move_on_after(grace):
            await self._reaper.wait(child)
            return
        self._children.signal(child, signal.SIGKILL)
        await self._reaper.wait(child)
