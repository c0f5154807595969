"""SHELL: one helper process from its first line to its end: hears its facts, probes it, ends it where it must end.

Decides nothing: `health` judges the answers to the probe, `helper_events` says what is recorded of a fact, `quota` how
much. Whether another process follows is for `helpers`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Final, Protocol

import trio

from codingagents.rewrite.specs import AnyHelperCommand, HelperSpec, Ping
from codingagents.supervisor import health, helper_rows
from codingagents.supervisor.health import Cause, Health, Probe, Verdict
from codingagents.supervisor.helper_channel import HelperChannel
from codingagents.supervisor.helper_events import Source, stamp
from codingagents.supervisor.kept_trust import KeptTrust
from codingagents.supervisor.lifecycle import Happened
from codingagents.supervisor.processes import Child, Children, Exit
from codingagents.supervisor.quota import Quota
from codingagents.supervisor.reaper import Reaper
from codingagents.trust import facts
from codingagents.trust.errors import WireError
from codingagents.trust.events import AnyEvent, FactsDropped, HelperDegraded, HelperRecovered, Layer, LayerReport
from codingagents.trust.vocabulary import Role

_BYTES_A_TOKEN: Final = 1024  # of a fact; few of the longest must not fill the disk that the quota is there to spare
_CHANGES_PER_SECOND: Final = 1.0  # of its health
_CHANGES_AT_ONCE: Final = 20.0
_READY_SECONDS: Final = 30.0  # from its specification; it takes some ten milliseconds
_LAST_WORDS_SECONDS: Final = 1.0  # for what a helper that ended had sent before
_CLOSED_SECONDS: Final = 5.0  # for a helper to end once its channel is closed

Look = Callable[[int], helper_rows.Seen | None]  # at the process of that number, which cannot have been reaped


class Keeper(Protocol):
    """Who has this life in its care."""

    trust: KeptTrust

    def record(self, event: AnyEvent) -> bool:
        """Append to the log; False where that cannot be."""

    def happened(self, what: Happened) -> object:
        """Change the helper's state."""

    def started(self, ready: facts.Ready) -> None:
        """Note that the helper holds what it was given at its start; `WireError` where it says otherwise."""

    def secrets_answered(self, *, taken: bool) -> None:
        """Note what became of a `NewSecrets`; `WireError` where none was sent."""


class HelperLife:
    """One process. `counts` is its newest answer to a ping, `born` and `health` are what they say."""

    def __init__(
        self,
        keeper: Keeper,
        source: Source,
        child: Child,
        channel: HelperChannel,
        *,
        children: Children,
        reaper: Reaper,
        look: Look,
    ) -> None:
        """Own `child` and `channel`."""
        self.born = trio.current_time()
        self.child = child
        self.health = Health()
        self.counts: facts.Pong | None = None
        self._keeper = keeper
        self._source = source
        self._channel = channel
        self._children = children
        self._reaper = reaper
        self._look = look
        self._probe = Probe()
        self._quota = Quota(self.born)
        # Of its own: a busy helper's requests must not hide that its upstream failed.
        self._changes = Quota(self.born, rate=_CHANGES_PER_SECOND, burst=_CHANGES_AT_ONCE)
        self._reason = ""
        self._is_ready = trio.Event()
        self._answered = trio.Event()

    async def run(self, spec: HelperSpec) -> tuple[Exit, str]:
        """Tell it its specification and return when it has ended: how, and the reason where somebody gave one."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._limit, nursery.cancel_scope)
            nursery.start_soon(self._watch)
            if why := await self._channel.converse(spec, self._take):
                # A helper that speaks nonsense may be an attacker's: it does not get to go on.
                self._kill(f"sent what is no fact: {why}")
            nursery.cancel_scope.cancel()
        self._tell_dropped()
        with trio.move_on_after(_CLOSED_SECONDS):  # one that lives on would serve without being heard
            return await self._reaper.wait(self.child), self._reason
        self._children.signal(self.child, signal.SIGKILL)
        return await self._reaper.wait(self.child), self._reason

    def offer(self, command: AnyHelperCommand) -> None:
        """Tell it new secrets or trust."""
        self._channel.tell(command)

    @property
    def was_ready(self) -> bool:
        """Whether it has been ready to serve."""
        return self._is_ready.is_set()

    async def count(self, seconds: float) -> None:
        """Have `counts` of now, if it answers within so many seconds."""
        if not self._is_ready.is_set():
            return
        self._probe = self._probe.ask()
        number = self._probe.sent
        self._channel.tell(Ping(number=number))
        with trio.move_on_after(seconds):
            while self._probe.answered < number:
                await self._answered.wait()

    # -- its end ---------------------------------------------------------------------------------------------------

    async def _limit(self, conversation: trio.CancelScope) -> None:
        """End the conversation soon after the helper: what it forked can keep the channel open for ever."""
        await self._reaper.wait(self.child)
        conversation.deadline = trio.current_time() + _LAST_WORDS_SECONDS

    def _kill(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._children.signal(self.child, signal.SIGKILL)

    # -- its health ------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        with trio.move_on_after(_READY_SECONDS):
            await self._is_ready.wait()
        await _hear_first()
        if not self._is_ready.is_set():
            self._kill(f"was not ready within {_READY_SECONDS:.0f} seconds")
            return
        while True:
            self._probe, verdict = self._probe.interval_over()
            if verdict is Verdict.SILENT:
                self._kill("did not answer its probe")
                return
            if verdict is Verdict.LATE:
                self._worse("probe", "it answers its probe late")
            self._channel.tell(Ping(number=self._probe.sent))
            await trio.sleep(health.INTERVAL_SECONDS)
            await _hear_first()

    def _hear_pong(self, pong: facts.Pong) -> None:
        self._probe = self._probe.answer(pong.number)
        self.counts = pong
        self._answered.set()
        self._answered = trio.Event()
        if self._probe.is_well:
            self._better("probe")

    def _hear_of_upstream(self, said: facts.UpstreamHealth) -> None:
        self._demand_ready()
        if said.state == "failing":
            self._worse("upstream", f"the upstream fails: {said.error_type}")
        else:
            self._better("upstream")

    def _worse(self, cause: Cause, reason: str) -> None:
        if self.health.reason_of(cause) == reason:
            return
        self.health, happened = self.health.worse(cause, reason)
        if happened is not None:
            self._keeper.happened(happened)
        self._record_change(HelperDegraded(server=self._source.server, reason=reason))

    def _better(self, cause: Cause) -> None:
        self.health, happened = self.health.better(cause)
        if happened is not None:
            self._keeper.happened(happened)
            self._record_change(HelperRecovered(server=self._source.server))

    def _record_change(self, event: AnyEvent) -> None:
        if self._changes.take(trio.current_time()):
            self._keeper.record(event)

    # -- its facts -------------------------------------------------------------------------------------------------

    def _take(self, fact: facts.AnyFact, size: int) -> None:
        """Act on a fact and record it; `WireError` where a helper that is ours would not have sent it now."""
        match fact:
            case facts.Failed():
                self._reason = self._reason or fact.reason
            case facts.Pong():
                self._hear_pong(fact)
            case facts.UpstreamHealth():
                self._hear_of_upstream(fact)
            case facts.Ready():
                self._hear_ready(fact)
            case facts.SecretsTaken():  # as many as were offered
                self._demand_ready()
                self._keeper.secrets_answered(taken=fact.problem is None)
                self._keeper.record(stamp(fact, self._source))
            case facts.TrustTaken():  # likewise
                self._demand_ready()
                self._keeper.trust.answered(fact)
                if fact.layers:
                    self._keeper.record(self._layers(helper_rows.told(fact.layers)))
            case _:
                if isinstance(fact, facts.UpstreamTrusted):
                    self._demand_ready()
                    self._keeper.trust.saw(fact, trio.current_time())
                if self._quota.take(trio.current_time(), 1 + size // _BYTES_A_TOKEN):
                    self._tell_dropped()
                    self._keeper.record(stamp(fact, self._source))

    def _hear_ready(self, ready: facts.Ready) -> None:
        if self._is_ready.is_set():
            raise WireError("ready twice")
        rows = helper_rows.report(ready, self._look(self._source.pid), self._source.uid)
        layers = self._layers(rows)
        if missing := helper_rows.contradicted(rows):
            self._keeper.record(layers)
            self._kill(f"was seen without what must confine it: {', '.join(missing)}")
            return
        self._keeper.started(ready)
        self._is_ready.set()
        self._keeper.happened(Happened.READY)
        self._keeper.record(stamp(ready, self._source))
        self._keeper.record(layers)

    def _layers(self, rows: list[Layer]) -> LayerReport:
        return LayerReport(role=Role.HELPER.value, layers=rows, server=self._source.server)

    def _demand_ready(self) -> None:
        if not self._is_ready.is_set():
            raise WireError("it was not ready, and did what comes after that")

    def _tell_dropped(self) -> None:
        if dropped := self._quota.forgive() + self._changes.forgive():
            self._keeper.record(FactsDropped(server=self._source.server, dropped=dropped))


async def _hear_first() -> None:
    """Let what helpers have sent be taken: after a stop of this process, its own time is over as well as theirs."""
    await trio.lowlevel.checkpoint()  # what can be read by now is taken before this returns
