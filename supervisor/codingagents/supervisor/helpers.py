"""SHELL: keeps a helper for each server: has it made, gives it its spec, restarts it, answers in its place at last.

Decides nothing: `lifecycle` says when to restart, `helper_life` has each process in its hands. The listening socket
outlives them all, so that a client that connects while a helper is coming back waits in the backlog.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Mapping
from typing import Final, Protocol

import trio

from codingagents.rewrite.placeholders import names as placeholder_names
from codingagents.rewrite.specs import HelperSpec, NewSecrets, RemoteSpec, TlsSpec
from codingagents.supervisor import helper_layers, unavailable
from codingagents.supervisor.event_log import EventLog, utc_now
from codingagents.supervisor.helper_channel import HelperChannel
from codingagents.supervisor.helper_events import Source
from codingagents.supervisor.helper_life import HelperLife, Look
from codingagents.supervisor.helper_listing import HelperRow, Totals
from codingagents.supervisor.helper_trust import starting
from codingagents.supervisor.kept_trust import KeptTrust
from codingagents.supervisor.lifecycle import MAX_BACKOFF_SECONDS, Do, Happened, Helper, State, step
from codingagents.supervisor.offers import Offers
from codingagents.supervisor.processes import Child, Children
from codingagents.supervisor.reaper import Reaper
from codingagents.supervisor.slots import Slot
from codingagents.trust import facts
from codingagents.trust.errors import AgentError, ProcessError
from codingagents.trust.events import AnyEvent, HelperDraining, HelperFailed, HelperStopped
from codingagents.trust.vocabulary import Secret

_COUNT_SECONDS: Final = 0.5  # for a helper to say how much it has done


class Maker(Protocol):
    """What makes helper processes."""

    async def clone(self, server: str, channel: socket.socket, listener: socket.socket) -> Child:
        """Return a new helper; `ProcessError` where none could be made."""


class HelperKeeper:
    """Keeps one server's helper alive for the length of the session."""

    def __init__(
        self,
        slot: Slot,
        *,
        zygote: Maker,
        children: Children,
        reaper: Reaper,
        log: EventLog,
        agent_uid: int,
        secrets: Mapping[str, Secret],
        trust: KeptTrust,
        look: Look = helper_layers.look,
    ) -> None:
        """Give the helper only those of `secrets` that it needs; one that is missing is a `ProcessError`."""
        self.slot = slot
        self._zygote = zygote
        self._children = children
        self._reaper = reaper
        self._log = log
        self._agent_uid = agent_uid
        self._look = look
        needed = needed_secrets(slot.remote)
        if missing := sorted(needed - secrets.keys()):
            raise ProcessError(f"server {slot.remote.name} needs secrets that did not come: {', '.join(missing)}")
        self._secrets = Offers({name: secrets[name] for name in sorted(needed)})
        self.trust = trust
        self._machine = Helper()
        self._life: HelperLife | None = None
        self._attempts = 0
        self._totals = Totals()  # of the processes that ended
        self._stopping = trio.Event()
        self.ended = trio.Event()  # nothing more is recorded of this helper

    @property
    def server(self) -> str:
        """The server's name."""
        return self.slot.remote.name

    @property
    def state(self) -> State:
        """Where the helper is now."""
        return self._machine.state

    async def run(self) -> None:
        """Start the helper and keep it, until `stop`; answer in its place once its restart budget is used up."""
        try:
            await self._keep()
        finally:
            self.ended.set()

    def renew(self, secrets: Mapping[str, Secret]) -> None:
        """Take the new values of what this server needs, and have the live helper attach them from now on."""
        new = {name: secrets[name] for name in self._secrets.current if name in secrets}
        if not new:
            return
        self._secrets.current = self._secrets.current | new
        if self._life is not None:
            self._life.offer(NewSecrets(secrets=self._secrets.offered()))

    def renew_trust(self, tls: TlsSpec) -> None:
        """Have the server trusted by this from now on, if its helper can; the launcher is answered in any case."""
        over = self.state in {State.FAILED, State.STOPPED, State.DRAINING}
        gone = f"its helper is {self.state.value}, and serves no more in this session" if over else ""
        self.trust.renew(tls, None if self._life is None else self._life.offer, gone=gone)

    async def stop(self, grace: float) -> None:
        """Drain: TERM, then KILL after `grace` seconds.

        `run` then ends by itself (`ended`); where the zygote was just making the helper, once the zygote is closed.
        """
        self.happened(Happened.STOP)
        self._stopping.set()
        if self._life is None:
            return
        child = self._life.child
        if self._children.signal(child, signal.SIGTERM):
            self.record(HelperDraining(server=self.server, deadline_ms=round(grace * 1000)))
        with trio.move_on_after(grace):
            await self._reaper.wait(child)
            return
        self._children.signal(child, signal.SIGKILL)
        await self._reaper.wait(child)

    async def row(self) -> HelperRow:
        """Return what `helper list` shows of it, without its memory; a live helper is asked for its counts of now."""
        life = self._life
        if life is not None:
            await life.count(_COUNT_SECONDS)
        counts = None if life is None else life.counts
        totals = self._totals.plus(counts)
        return HelperRow(
            server=self.server,
            state=self.state.value,
            uid=self.slot.uid,
            pid=None if life is None else life.child.pid,
            listen=self.slot.origin,
            uptime_seconds=None if life is None else round(trio.current_time() - life.born, 1),
            restarts=max(self._attempts - 1, 0),
            requests=totals.requests,
            errors=totals.errors,
            refused=totals.refused,
            connections=0 if counts is None else counts.connections,
            upstream_connections=0 if counts is None else counts.upstream_connections,
            upstream="failing" if life is not None and life.health.reason_of("upstream") else "ok",
            degraded=[] if life is None else [reason for _, reason in life.health.causes],
            trust=self.trust.row(utc_now()),
        )

    # -- of one process after the other ----------------------------------------------------------------------------

    async def _keep(self) -> None:
        while not self._stopping.is_set():
            self._attempts += 1
            pid, code, reason = await self._live_once()
            command = self.happened(Happened.EXITED)
            delay = round(self._machine.backoff * 1000) if command is Do.WAIT else None
            self.record(
                HelperStopped(
                    server=self.server,
                    user_id=self.slot.uid,
                    process_pid=pid,
                    exit_code=code,
                    reason=reason,
                    restart_in_ms=delay,
                )
            )
            if command is Do.GIVE_UP:
                self.record(HelperFailed(server=self.server, reason=f"too many restarts; last: {reason}"))
                self.trust.give_up("its helper is failed, and serves no more in this session")
                await self._answer_in_its_place()
                return
            if command is not Do.WAIT:
                return
            with trio.move_on_after(self._machine.backoff):
                await self._stopping.wait()
            if not self._stopping.is_set():
                self.happened(Happened.BACKOFF_OVER)

    async def _answer_in_its_place(self) -> None:
        """Say 503 until the session ends: clearer than a backlog that nobody serves.

        The socket stays taken, too: whoever got it would be sent the agent's requests, and answer in the server's name.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(unavailable.answer, self.slot)
            await self._stopping.wait()
            nursery.cancel_scope.cancel()

    async def _live_once(self) -> tuple[int, int, str]:
        """Make a helper and return (pid, exit code, reason) when it has ended."""
        name = self.server
        remote = self.trust.given()
        # A helper is a grant in action: what cannot be recorded is not made, until it can be.
        while not self.record(starting(remote, self.slot.uid, self._attempts)):
            with trio.move_on_after(MAX_BACKOFF_SECONDS):
                await self._stopping.wait()
                return 0, 1, "stopped while the event log could not be written"
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                child = await self._zygote.clone(name, theirs, self.slot.listener)
        except AgentError as error:
            ours.close()
            # At the end of a session the zygote is closed under whoever waits for it, and nothing went wrong.
            return 0, 1, "stopped before it was made" if self._stopping.is_set() else str(error)
        if self._stopping.is_set():  # the stop came while the zygote worked, and there is nothing to drain
            self._children.signal(child, signal.SIGKILL)
        self._life = life = HelperLife(
            self,
            Source(server=name, uid=self.slot.uid, pid=child.pid, listen=self.slot.origin),
            child,
            HelperChannel(ours),
            children=self._children,
            reaper=self._reaper,
            look=self._look,
        )
        self.trust.catch_up(remote, life.offer)  # with what was renewed while the zygote worked
        ended, reason = await life.run(self._spec(remote))
        # What it may have forked has the same secrets and the listening socket of the next one.
        self._children.signal_users({self.slot.uid}, signal.SIGKILL)
        self._life = None
        self._totals = self._totals.plus(life.counts)
        if not life.was_ready:
            self.trust.failed(reason or ended.how)
        return child.pid, ended.code, reason or ended.how

    def _spec(self, remote: RemoteSpec) -> HelperSpec:
        return HelperSpec(
            remote=remote,
            uid=self.slot.uid,
            gid=self.slot.uid,
            agent_uid=self._agent_uid,
            listen_port=self.slot.port,
            certificate=self.slot.certificate,
            bearer=self.slot.bearer,
            secrets=self._secrets.given(),
        )

    # -- what a life tells its keeper ------------------------------------------------------------------------------

    def happened(self, what: Happened) -> Do:
        """Change the state as the table has it; return what to do."""
        self._machine, command = step(self._machine, what, trio.current_time())
        return command

    def started(self, ready: facts.Ready) -> None:
        """Note that the helper holds what it was given at its start; `WireError` where it says otherwise."""
        self._secrets.started()
        self.trust.started(ready)

    def secrets_answered(self, *, taken: bool) -> None:
        """Note whether the helper took what it was offered last; `WireError` where that was nothing."""
        self._secrets.answered(taken=taken)

    def record(self, event: AnyEvent) -> bool:
        """Append to the log; False where that cannot be."""
        return self._log.record(event)


def needed_secrets(remote: RemoteSpec) -> frozenset[str]:
    """Return the names of the secrets that a helper of `remote` needs: its headers' and its client certificate's."""
    needed = frozenset().union(*(placeholder_names(header.template) for header in remote.headers))
    certificate = None if remote.tls is None else remote.tls.client_certificate
    return needed if certificate is None else needed | {certificate.chain, certificate.key}
