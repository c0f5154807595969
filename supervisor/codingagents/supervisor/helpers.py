"""SHELL: keeps a helper for each server: has it made, gives it its spec, records its facts, restarts it.

Decides nothing: `lifecycle` says when to restart, `helper_events` what is recorded. The listening socket outlives the
helper, so that a client that connects while a helper is coming back waits in the backlog instead of being refused.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Mapping
from typing import Final

import trio

from codingagents.rewrite.placeholders import names as placeholder_names
from codingagents.rewrite.specs import HelperSpec
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.helper_events import Source, stamp
from codingagents.supervisor.lifecycle import MAX_BACKOFF_SECONDS, Do, Happened, Helper, State, step
from codingagents.supervisor.processes import Child, Children, Exit
from codingagents.supervisor.quota import Quota
from codingagents.supervisor.reaper import Reaper
from codingagents.supervisor.slots import Slot
from codingagents.supervisor.zygote_client import Zygote
from codingagents.trust import facts, wire
from codingagents.trust.errors import AgentError, EventLogError, ProcessError, WireError
from codingagents.trust.events import AnyEvent, FactsDropped, HelperFailed, HelperStarting, HelperStopped
from codingagents.trust.vocabulary import Secret

MAX_FACT: Final = 64 * 1024  # bytes of one line
_BYTES_A_TOKEN: Final = 1024  # of a fact; few of the longest must not fill the disk that the quota is there to spare
_LAST_WORDS_SECONDS: Final = 1.0  # for what a helper that ended had sent before
_CLOSED_SECONDS: Final = 5.0  # for a helper to end once its channel is closed


class HelperKeeper:
    """Keeps one server's helper alive for the length of the session."""

    def __init__(
        self,
        slot: Slot,
        *,
        zygote: Zygote,
        children: Children,
        reaper: Reaper,
        log: EventLog,
        agent_uid: int,
        secrets: Mapping[str, Secret],
    ) -> None:
        """Give the helper only those of `secrets` that its headers name; one that is missing is a `ProcessError`."""
        self._slot = slot
        self._zygote = zygote
        self._children = children
        self._reaper = reaper
        self._log = log
        needed = {name for header in slot.remote.headers for name in placeholder_names(header.template)}
        if missing := sorted(needed - secrets.keys()):
            raise ProcessError(f"server {slot.remote.name} needs secrets that did not come: {', '.join(missing)}")
        self._spec = HelperSpec(
            remote=slot.remote,
            uid=slot.uid,
            gid=slot.uid,
            agent_uid=agent_uid,
            listen_port=slot.port,
            bearer=slot.bearer,
            secrets={name: secrets[name] for name in sorted(needed)},
        )
        self._machine = Helper()
        self._child: Child | None = None
        self._stopping = trio.Event()
        self.ended = trio.Event()  # nothing more is recorded of this helper

    @property
    def state(self) -> State:
        """Where the helper is now."""
        return self._machine.state

    async def run(self) -> None:
        """Start the helper and keep it, until `stop` or until its restart budget is used up."""
        try:
            await self._keep()
        finally:
            self.ended.set()

    async def _keep(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            attempt += 1
            pid, code, reason = await self._live_once(attempt)
            command = self._happened(Happened.EXITED)
            delay = round(self._machine.backoff * 1000) if command is Do.WAIT else None
            self._record(
                HelperStopped(
                    server=self._slot.remote.name,
                    user_id=self._slot.uid,
                    process_pid=pid,
                    exit_code=code,
                    reason=reason,
                    restart_in_ms=delay,
                )
            )
            if command is Do.GIVE_UP:
                # Refused at once is clearer than a backlog that nobody serves. The port stays taken: whoever got it
                # would be sent the agent's requests, and answer in the server's name.
                self._slot.listener.shutdown(socket.SHUT_RDWR)
                self._record(HelperFailed(server=self._slot.remote.name, reason=f"too many restarts; last: {reason}"))
                return
            if command is not Do.WAIT:
                return
            with trio.move_on_after(self._machine.backoff):
                await self._stopping.wait()
            if not self._stopping.is_set():
                self._happened(Happened.BACKOFF_OVER)

    async def stop(self, grace: float) -> None:
        """Drain: TERM, then KILL after `grace` seconds.

        `run` then ends by itself (`ended`); where the zygote was just making the helper, once the zygote is closed.
        """
        self._happened(Happened.STOP)
        self._stopping.set()
        child = self._child
        if child is None:
            return
        self._children.signal(child, signal.SIGTERM)
        with trio.move_on_after(grace):
            await self._reaper.wait(child)
            return
        self._children.signal(child, signal.SIGKILL)
        await self._reaper.wait(child)

    def _happened(self, what: Happened) -> Do:
        self._machine, command = step(self._machine, what, trio.current_time())
        return command

    async def _live_once(self, attempt: int) -> tuple[int, int, str]:
        """Make a helper and return (pid, exit code, reason) when it has ended."""
        name = self._slot.remote.name
        starting = HelperStarting(server=name, user_id=self._slot.uid, attempt=attempt)
        # A helper is a grant in action: what cannot be recorded is not made, until it can be.
        while not self._record(starting):
            with trio.move_on_after(MAX_BACKOFF_SECONDS):
                await self._stopping.wait()
                return 0, 1, "stopped while the event log could not be written"
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                child = await self._zygote.clone(name, theirs, self._slot.listener)
        except AgentError as error:
            ours.close()
            # At the end of a session the zygote is closed under whoever waits for it, and nothing went wrong.
            return 0, 1, "stopped before it was made" if self._stopping.is_set() else str(error)
        self._child = child
        if self._stopping.is_set():  # the stop came while the zygote worked, and there is nothing to drain
            self._children.signal(child, signal.SIGKILL)
        ours.setblocking(False)
        reason = ""
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(self._limit, nursery.cancel_scope, child)
            reason = await self._converse(stream, child)
            nursery.cancel_scope.cancel()
        ended = await self._end(child)
        # What it may have forked has the same secrets and the listening socket of the next one.
        self._children.signal_users({self._slot.uid}, signal.SIGKILL)
        self._child = None
        how = f"exited with {ended.code}" if ended.signal is None else f"killed by {_signal_name(ended.signal)}"
        return child.pid, ended.code, reason or how

    async def _limit(self, conversation: trio.CancelScope, child: Child) -> None:
        """End the conversation soon after the helper: what it forked can keep the channel open for ever."""
        await self._reaper.wait(child)
        conversation.deadline = trio.current_time() + _LAST_WORDS_SECONDS

    async def _end(self, child: Child) -> Exit:
        """Wait for a helper whose channel is closed: one that lives on would serve without being heard."""
        with trio.move_on_after(_CLOSED_SECONDS):
            return await self._reaper.wait(child)
        self._children.signal(child, signal.SIGKILL)
        return await self._reaper.wait(child)

    async def _converse(self, stream: trio.SocketStream, child: Child) -> str:
        """Send the spec, then record facts until EOF; return a reason where the helper was ended by us."""
        buffer = wire.LineBuffer(MAX_FACT)
        quota = Quota(trio.current_time())
        source = Source(server=self._slot.remote.name, uid=self._slot.uid, pid=child.pid, port=self._spec.listen_port)
        reason = ""
        try:
            await stream.send_all(wire.encode(self._spec, reveal_secrets=True))
            async for data in stream:
                for line in buffer.feed(bytes(data)):
                    fact: facts.AnyFact = wire.decode(facts.AnyFact, line)
                    reason = self._take(fact, source, quota, 1 + len(line) // _BYTES_A_TOKEN) or reason
        except trio.BrokenResourceError:
            return reason
        except WireError as error:
            # A helper that speaks nonsense may be an attacker's: it does not get to go on.
            self._children.signal(child, signal.SIGKILL)
            return f"sent what is no fact: {error}"
        finally:
            self._tell_dropped(quota)
        return reason

    def _take(self, fact: facts.AnyFact, source: Source, quota: Quota, price: int) -> str:
        if isinstance(fact, facts.Failed):
            return fact.reason
        if isinstance(fact, facts.Pong):
            return ""
        if isinstance(fact, facts.Ready):
            if self._machine.state not in (State.STARTING, State.DRAINING):
                raise WireError("ready twice")
            self._happened(Happened.READY)
        if not quota.take(trio.current_time(), price):
            return ""
        self._tell_dropped(quota)
        self._record(stamp(fact, source))
        return ""

    def _tell_dropped(self, quota: Quota) -> None:
        if dropped := quota.forgive():
            self._record(FactsDropped(server=self._slot.remote.name, dropped=dropped))

    def _record(self, event: AnyEvent) -> bool:
        try:
            self._log.append(event)
        except EventLogError:
            return False  # counted as lost by the log; a gap event will tell
        return True


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
