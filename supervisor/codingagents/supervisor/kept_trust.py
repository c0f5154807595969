"""SHELL: what one server's keeper does about trust: offers it, records and answers what became of it, keeps its copy.

Which set holds is decided by `helper_trust`, what ends by `expiry`. A server that is reached without TLS has no trust
to renew, and a helper of one has nothing to say of it.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence

import msgspec

from codingagents.rewrite.specs import ControlTrust, NewTrust, RemoteSpec, TlsSpec
from codingagents.supervisor import expiry
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.helper_listing import TrustRow
from codingagents.supervisor.helper_trust import HelperTrust, reloaded
from codingagents.supervisor.trust_seen import TrustSeen
from codingagents.supervisor.trust_snapshot import Snapshots, snapshot
from codingagents.trust import facts
from codingagents.trust.errors import WireError

Offer = Callable[[NewTrust], object]


class KeptTrust:
    """Of one server, for the length of the session."""

    def __init__(
        self,
        remote: RemoteSpec,
        log: EventLog,
        snapshots: Snapshots,
        *,
        answer: Callable[[ControlTrust], object],
        changed: Callable[[], object],
    ) -> None:
        """Start with what came with the session.

        `answer` gets one answer to each `renew`; `changed` is called where `ends` has something new.
        """
        self._remote = remote
        self._trust = None if remote.tls is None else HelperTrust(remote.name, remote.tls)
        self._seen = TrustSeen(remote.name)
        self._snapshots = snapshots
        self._answer = answer
        self._changed = changed
        self._log = log

    # -- for the keeper -------------------------------------------------------------------------------------------

    def given(self) -> RemoteSpec:
        """Return what a new helper is told of its server; it is recorded, and the copy is of this."""
        if self._trust is None:
            return self._remote
        tls = self._trust.given()
        self._log.record(snapshot(self._remote.name, tls, self._snapshots.write(self._remote.name, tls)))
        return msgspec.structs.replace(self._remote, tls=tls)

    def renew(self, tls: TlsSpec, offer: Offer | None, *, gone: str) -> None:
        """Have `tls` from now on, and the live helper, if there is one, told it by `offer`.

        Refused where nobody will be there to take it, which `gone` then says, and where that cannot be recorded.
        """
        if self._trust is None:
            self._answer(ControlTrust(server=self._remote.name, store_sha256="", problem="it is reached without TLS"))
        elif gone:
            self._answer(self._trust.refusal(gone))
        elif not self._log.record(snapshot(self._remote.name, tls, None)):
            self._answer(self._trust.refusal("the event log cannot be written, and nobody would know of it; make room"))
        else:
            self._trust.renew(tls)
            if offer is not None:
                offer(self._trust.offered())

    def catch_up(self, told: RemoteSpec, offer: Offer) -> None:
        """Offer what came after a new helper's `given`, if anything did."""
        if self._trust is not None and self._trust.tls is not told.tls:
            offer(self._trust.offered())

    def failed(self, reason: str) -> None:
        """Note that a helper ended before it was ready."""
        if self._trust is not None:
            self._tell(self._trust.failed(reason))

    def give_up(self, reason: str) -> None:
        """Note that no helper will come any more."""
        if self._trust is not None:
            self._tell(self._trust.give_up(reason))

    def ends(self) -> list[expiry.End]:
        """Return when the trust in this server ends: its pins, added CAs, and the certificate that was seen last."""
        of_trust = [] if self._trust is None else expiry.ends_of_trust(self._remote.name, self._trust.tls)
        return of_trust if self._seen.leaf is None else [*of_trust, self._seen.leaf]

    def row(self, now: datetime.datetime) -> TrustRow | None:
        """Return what `helper list` shows of it."""
        return None if self._trust is None else self._seen.row(self._remote, self._trust.held, now)

    # -- what a helper says -----------------------------------------------------------------------------------------

    def started(self, ready: facts.Ready) -> None:
        """Note that a helper holds what it was given; `WireError` where it says otherwise."""
        if self._trust is not None:
            self._tell(self._trust.started(ready.store_sha256))

    def answered(self, answer: facts.TrustTaken) -> None:
        """Note what became of the oldest offer; `WireError` where that cannot be."""
        if self._trust is None:
            raise WireError("it was asked nothing about trust, and answered")
        told = self._trust.answered(answer)
        if told.problem is None:
            self._snapshots.write(self._remote.name, self._trust.held)
        self._tell([told])

    def saw(self, seen: facts.UpstreamTrusted, now: float) -> None:
        """Note why the newest connection is trusted; `WireError` where that cannot be. `now` is of any steady clock."""
        if self._seen.note(seen, now):
            self._changed()

    def _tell(self, answers: Sequence[ControlTrust]) -> None:
        """Record and give the launcher what became of the trust that it sent."""
        for answer in answers:
            self._log.record(reloaded(answer))
            self._answer(answer)
        if answers:
            self._changed()
