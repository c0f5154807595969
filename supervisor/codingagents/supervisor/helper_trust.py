"""CORE: one server's trust as it is renewed: what its helpers are given, which set holds, what the launcher hears.

A set that a helper refused, or could not start with, gives way to the last one that a helper held. Every renewal is
answered once, whatever became of the helper meanwhile. Judges no certificate: the launcher did, and the helper does.
No I/O.
"""

from __future__ import annotations

import hashlib

from codingagents.rewrite.placeholders import names
from codingagents.rewrite.specs import ControlTrust, NewTrust, RemoteSpec, TlsSpec
from codingagents.supervisor.offers import Offers
from codingagents.trust import facts
from codingagents.trust.errors import WireError
from codingagents.trust.events import CredentialRule, HelperStarting, TrustReloaded

# Of a reason that a helper gave: it goes up the control channel, whose lines the launcher bounds.
_MOST_OF_A_REASON = 500


class HelperTrust:
    """The trust of one server; `tls` is what its next helper is given, and what holds while no offer is open."""

    def __init__(self, server: str, tls: TlsSpec) -> None:
        """Start with what came with the session."""
        self._server = server
        self._sets = Offers(tls)
        self._owed = 0  # answers to the launcher

    @property
    def tls(self) -> TlsSpec:
        """What the next helper is given."""
        return self._sets.current

    @property
    def held(self) -> TlsSpec:
        """What a helper held last, as far as one said so."""
        return self._sets.held

    def renew(self, tls: TlsSpec) -> None:
        """Have this from now on; an answer to the launcher is owed until one of the next methods returns it."""
        self._sets.current = tls
        self._owed += 1

    def offered(self) -> NewTrust:
        """Return what to tell the live helper; `answered` follows."""
        return NewTrust(tls=self._sets.offered())

    def given(self) -> TlsSpec:
        """Return what a new helper starts with; `started` or `failed` follows."""
        return self._sets.given()

    def started(self, loaded: str | None) -> list[ControlTrust]:
        """Note that a new helper is ready, and return what is owed; `WireError` where it loaded another store."""
        held = store_sha256(self._sets.started())
        _demand_same(loaded, held)
        owed = self._owed - len(self._sets)
        self._owed -= owed
        return [ControlTrust(server=self._server, store_sha256=held)] * owed

    def answered(self, fact: facts.TrustTaken) -> ControlTrust:
        """Note the live helper's answer and return ours; `WireError` where it was asked nothing, or lies."""
        held = store_sha256(self._sets.answered(taken=fact.problem is None))
        _demand_same(fact.store_sha256, held)
        self._owed -= 1
        return ControlTrust(
            server=self._server,
            store_sha256=held,
            kept=fact.kept,
            closed=fact.closed,
            problem=None if fact.problem is None else fact.problem[:_MOST_OF_A_REASON] or "no reason",
        )

    def failed(self, reason: str) -> list[ControlTrust]:
        """Note that a new helper ended before it was ready; return what is owed where its trust was new to it."""
        return self.give_up(f"a helper could not start with it: {reason}") if self._sets.failed() else []

    def give_up(self, problem: str) -> list[ControlTrust]:
        """Return all that is owed, now that there is no helper who could say more."""
        owed, self._owed = self._owed, 0
        return [self.refusal(problem)] * owed

    def refusal(self, problem: str) -> ControlTrust:
        """Return the answer to a renewal that was not even tried."""
        return ControlTrust(
            server=self._server, store_sha256=store_sha256(self.tls), problem=problem[:_MOST_OF_A_REASON]
        )


def store_sha256(tls: TlsSpec) -> str:
    """Return what names a store: the SHA-256 of its PEM text, in hexadecimal."""
    return hashlib.sha256(tls.anchors_pem.encode()).hexdigest()


def reloaded(answer: ControlTrust) -> TrustReloaded:
    """Return the event that records an answer to the launcher."""
    return TrustReloaded(
        server=answer.server,
        store_sha256=answer.store_sha256,
        kept=answer.kept,
        closed=answer.closed,
        problem=answer.problem,
    )


def overrides_pins(tls: TlsSpec | None) -> list[str]:
    """Return the names of the CAs below which no pin is asked for."""
    return [] if tls is None else [override.name for override in tls.overrides if override.override_pins]


def credential_rule(remote: RemoteSpec, tls: TlsSpec | None) -> CredentialRule:
    """Return what the configuration, with `tls` for the server's trust, makes of the credential if all goes well."""
    if not any(names(header.template) for header in remote.headers):
        return "none"
    if tls is None:  # http to this machine, which has no certificate to ask for
        return "without-pin"
    if tls.pin_mode == "enforce":
        return "pinned"
    return "without-pin" if tls.credential_without_pin else "withheld"


def starting(remote: RemoteSpec, user_id: int, attempt: int) -> HelperStarting:
    """Return what is recorded of a helper that is about to be made."""
    return HelperStarting(
        server=remote.name,
        user_id=user_id,
        attempt=attempt,
        pin_mode="off" if remote.tls is None else remote.tls.pin_mode,
        credential=credential_rule(remote, remote.tls),
        overrides_pins=overrides_pins(remote.tls),
    )


def _demand_same(loaded: str | None, given: str) -> None:
    if loaded != given:
        raise WireError(f"it holds the trust anchors {loaded}, and was given {given}")
