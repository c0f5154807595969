"""SHELL: wires one session together; the only file that knows all parts. Decides the order of things, nothing else.

Start: secrets, event log, directories, helpers, client configs, confinement, agent. Every step of it can be cut short
by a stop; the end (`ending`) always runs.
"""

from __future__ import annotations

import functools
import os
import secrets as randomness
import signal
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import trio

from codingagents.rewrite import places
from codingagents.rewrite.specs import ControlCheckpoint, SessionSecrets, SessionSpec
from codingagents.supervisor import (
    agent_plan,
    complaints,
    expiry,
    kernel,
    operator_socket,
    processes,
    renewals,
    rundirs,
    shells,
    signals,
    wrapping,
)
from codingagents.supervisor.accounts import AccountFiles
from codingagents.supervisor.agent_routing import AgentRouting
from codingagents.supervisor.client_configs import install_clients
from codingagents.supervisor.complaints import complain
from codingagents.supervisor.confine_spec import ConfineSpec
from codingagents.supervisor.confined import ConfinedRole, TrapSettings
from codingagents.supervisor.control import Control
from codingagents.supervisor.early import StubProcess, ZygoteProcess
from codingagents.supervisor.ending import Ending, Made
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.expiry_watch import ExpiryWatch
from codingagents.supervisor.explain import PolicyDocument
from codingagents.supervisor.helper_report import HelperReport
from codingagents.supervisor.helpers import HelperKeeper
from codingagents.supervisor.kept_trust import KeptTrust
from codingagents.supervisor.layers import Facts
from codingagents.supervisor.processes import Children
from codingagents.supervisor.reaper import Reaper
from codingagents.supervisor.routing import NOT_ROUTED, Routing
from codingagents.supervisor.sessionfiles import open_event_log, read_session_spec
from codingagents.supervisor.slots import bind_slots
from codingagents.supervisor.task_service import TaskService
from codingagents.supervisor.trust_snapshot import Snapshots
from codingagents.supervisor.zygote_keeper import ZygoteKeeper
from codingagents.trust import checkpoint, errors
from codingagents.trust.errors import AgentError, ProcessError, UnconfinedError
from codingagents.trust.events import AgentStarted, LayerReport, SessionStarted
from codingagents.trust.scrub import Scrubber
from codingagents.trust.vocabulary import Role, SessionId

VERSION: Final = "0.1.0"
CHECKPOINT_SECONDS: Final = 2.0
COMPLAINT_SECONDS: Final = 1.0  # for standard error to take what is still to be said
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
    why_shown: str  # why /proc shows all processes to all users, "" where it does not


def run(parts: Parts, session_dir: str, control_fd: int | None, command: list[str]) -> int:
    """Run the session; see `session.main`."""
    spec = read_session_spec(session_dir)
    try:
        return trio.run(Session(parts, spec, session_dir, control_fd, list(command or spec.command)).run)
    finally:
        complaints.finish(COMPLAINT_SECONDS)


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
        self._agent = AgentRouting(spec, command)
        self._control = None if control_fd is None else Control(control_fd)
        zygote = ZygoteKeeper(parts.zygote, parts.children, self._reaper)
        self._made = Made(stub=parts.stub, zygote=zygote, control=self._control)
        self._ending = Ending(parts.children, self._reaper, spec.uids)
        self._scrubber = Scrubber({})
        self._secret_names: Collection[str] = ()
        self._agent_runs = False
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
        try:
            with self._life:
                await self._start_and_wait(services)
        except AgentError as error:
            complain(str(error))
            code = error.exit_code if isinstance(error, UnconfinedError) else errors.EXIT_ENGINE
            self._ending.because(str(error), code)  # any lower code could be the agent's own
        finally:
            # Every cause that we know of has been named by now.
            self._ending.because("internal error", errors.EXIT_ENGINE)
            with trio.CancelScope(shield=True):
                await self._ending.take_apart(self._made)

    # -- start ---------------------------------------------------------------------------------------------------

    async def _start_and_wait(self, services: trio.Nursery) -> None:
        if self._control is None:
            raise ProcessError("a session needs --control-fd, over which its secrets come")
        granted = await self._control.receive_secrets()
        self._secret_names = granted.secrets.keys()
        log = self._open_log(granted)
        self._made.log = log
        services.start_soon(self._sign_regularly, log)
        uids = self._spec.uids
        log.append(self._started(await self._name_accounts()))
        services.start_soon(_tell_of_wrappers)
        engine_seccomp = kernel.status_fields().get("Seccomp", "0")
        self._made.dirs = dirs = rundirs.prepare(
            why_plain=self._parts.why_no_mounts,
            agent=(uids.agent, uids.agent),
            task=self._spec.task_owner or (uids.task, uids.task),
            session_dir=self._dir,
        )
        _install_shells(uids.agent)
        facts = Facts(
            is_pid1=processes.is_pid1(),
            mount_namespace=dirs.why_plain,
            run_dirs=dirs.seen,
            proc_hidden=self._parts.why_shown,
            yama=kernel.yama_ptrace_scope(),
            engine_seccomp=engine_seccomp,
            apparmor=rundirs.apparmor_label(),
            root=os.geteuid() == 0,
        )
        self._made.tasks = tasks = self._tasks(log, facts)
        services.start_soon(tasks.serve)
        # No checkpoint from the secrets' arrival to here: `_watch_launcher` finds everyone who must hear of new ones.
        self._start_helpers(services, log, granted)
        agent = self._agent
        switches = install_clients(
            self._spec, self._made.slots, places.CLIENTS, self._command, routed=agent.client, settings=agent.settings
        )
        self._made.managed = agent.managed
        way = agent.plan(self._made.accounts)
        self._command[1:1] = switches.arguments
        await trio.lowlevel.checkpoint()

        settings = TrapSettings(
            exec_spec=self._spec.exec,
            log=log,
            scrubber=self._scrubber,
            on_trouble=complain,
            routes=None if way is None else way.routes,
        )
        self._made.role = role = ConfinedRole(self._parts.stub, Role.AGENT, settings)
        rows = await role.confine(self._confinement(dirs, switches.environment, way), facts, self._spec.layers)
        dirs.drop_probe_file()
        log.append(LayerReport(role=Role.AGENT.value, layers=rows))
        self._say_what_is_routed(log, role, way)
        if missing := agent_plan.missing_layers(rows):
            raise UnconfinedError(missing)
        child = self._parts.stub.child
        command = self._scrubber.scrub_argv([os.fsencode(part) for part in self._command]).args
        log.append(AgentStarted(process_pid=child.pid, user_id=uids.agent, command=command))
        self._agent_runs = True
        if failed := await role.go():
            sentence = agent_plan.why_not_started(failed, self._spec, self._command[0])
            complain(sentence)
            self._ending.because(sentence, failed.code)
        else:
            tasks.want()  # now: the agent did not wait for it, and its first command will not have to
        ended = await self._reaper.wait(child)
        self._ending.because("the agent ended", ended.code)

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

    async def _name_accounts(self) -> str:
        if self._spec.engine == "local":
            return "numeric: the local engine makes no accounts"
        self._made.accounts = AccountFiles()
        return await trio.to_thread.run_sync(self._made.accounts.add, self._spec.uids, self._agent.account_shell)

    def _say_what_is_routed(self, log: EventLog, role: ConfinedRole, way: Routing | None) -> None:
        if way is None or role.held is None:
            log.append(NOT_ROUTED)
            return
        way = way.as_seen(role.mounted, denies=role.held.trapped or role.held.landlock)
        log.append(way.event())
        if way.enforced:
            complain(way.sentence())

    def _started(self, accounts: str) -> SessionStarted:
        uids = self._spec.uids
        return SessionStarted(
            agent=self._spec.agent,
            engine=self._spec.engine,
            servers=[remote.name for remote in self._spec.remotes],
            config_sha256=self._spec.config_sha256,
            exec_mode=self._spec.exec.mode,
            uids={Role.AGENT.value: uids.agent, Role.TASK.value: uids.task, **uids.servers},
            accounts=accounts,
            supervisor_version=VERSION,
        )

    def _start_helpers(self, services: trio.Nursery, log: EventLog, granted: SessionSecrets) -> None:
        zygote = self._made.zygote
        services.start_soon(zygote.run, log.record)
        self._made.slots += bind_slots(self._spec)
        self._scrubber.learn(granted.secrets)
        snapshots = Snapshots(complain)
        watch = ExpiryWatch(self._ends, log.record)
        control = self._control
        assert control is not None
        for slot in self._made.slots:
            self._scrubber.learn({f"local bearer of {slot.remote.name}": slot.bearer})
            keeper = HelperKeeper(
                slot,
                zygote=zygote,
                children=self._children,
                reaper=self._reaper,
                log=log,
                agent_uid=self._spec.uids.agent,
                secrets=granted.secrets,
                trust=KeptTrust(slot.remote, log, snapshots, answer=control.send, changed=watch.changed),
            )
            self._made.keepers.append(keeper)
            services.start_soon(keeper.run)
        services.start_soon(watch.run)
        report = HelperReport(self._spec.session, self._made.keepers)
        assert self._made.tasks is not None
        documents = {"/helpers": report.document, "/policy": self._policy, "/tasks": self._made.tasks.document}
        services.start_soon(operator_socket.serve, self._dir, documents, complain)

    def _tasks(self, log: EventLog, facts: Facts) -> TaskService:
        settings = TrapSettings(exec_spec=self._spec.exec, log=log, scrubber=self._scrubber, on_trouble=complain)
        return TaskService(
            self._spec,
            session_dir=self._dir,
            settings=settings,
            facts=facts,
            children=self._children,
            reaper=self._reaper,
            log=log,
            scrubber=self._scrubber,
        )

    async def _policy(self) -> bytes:
        confined = (self._made.role, self._made.tasks)
        roles = [each.held for each in confined if each is not None and each.held is not None]
        document = PolicyDocument(session=self._spec.session, exec=self._spec.exec, roles=roles)
        return msgspec.json.encode(document) + b"\n"

    def _ends(self) -> list[expiry.End]:
        return [end for keeper in self._made.keepers for end in keeper.trust.ends()]

    def _confinement(
        self, dirs: rundirs.RunDirs, client_environment: Mapping[str, str], way: Routing | None
    ) -> ConfineSpec:
        return agent_plan.agent_confinement(
            self._spec,
            self._command,
            client_environment=client_environment,
            real_trees=[os.path.realpath(tree) for tree in self._spec.exec.trees],
            routing=way,
            probe_file=dirs.probe_file,
            probe_nonce=randomness.token_hex(16),
            death_signal=not processes.is_pid1(),
        )

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
        if self._agent_runs and number == signal.SIGTERM:
            # The end passes it on, to all of the agent's tree; its exit code no longer matters to whoever stopped us.
            self._ending.because("SIGTERM", 128 + number)
            self._life.cancel()
        elif self._agent_runs:
            self._children.kill_group(self._parts.stub.child, number)
        elif number in _STOPS:
            self._ending.because(f"{signal.Signals(number).name} during start-up", 128 + number)
            self._life.cancel()

    async def _watch_launcher(self) -> None:
        if self._control is None:
            return
        # `receive_secrets` reads first; both never read at once.
        await self._control.secrets_came.wait()
        await renewals.pass_on(self._control, self._secret_names, self._scrubber, self._made.keepers, complain)
        self._ending.because("the launcher is gone", errors.EXIT_ENGINE)
        self._life.cancel()


async def _tell_of_wrappers() -> None:
    """Say which clients' programs are no longer wrapped as they were; a big one may have to be read for that."""
    for sentence in await trio.to_thread.run_sync(wrapping.changed_wrappers, abandon_on_cancel=True):
        complain(sentence)


def _install_shells(agent_uid: int) -> None:
    """Write the task shells. Without them a routed agent runs no command, and says so itself."""
    try:
        shells.install(agent_uid)
    except (ProcessError, OSError) as error:
        complain(f"there are no task shells: {error}")
