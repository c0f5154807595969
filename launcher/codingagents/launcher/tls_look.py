"""SHELL: one look at a server as its helper would meet it: the same context, the same way there, and nothing sent.

A handshake that ends in trust or in a refusal; after a refusal a second look, for what there is to explain. The client
certificate is not shown in either. Decides nothing.
"""

from __future__ import annotations

import dataclasses
import ssl
from dataclasses import dataclass

import msgspec

from codingagents.launcher.dialing import Handshake, Route, connected, route_of
from codingagents.launcher.tls_probe import chain_sent
from codingagents.rewrite.pin_rules import rules_of
from codingagents.rewrite.specs import RemoteSpec, TlsSpec
from codingagents.rewrite.upstream_tls import upstream_context
from codingagents.trust.context import PeerTrust, peer_trust, verified_chain
from codingagents.trust.errors import AgentError, TrustError
from codingagents.trust.pem import parse_pem
from codingagents.trust.pins import PinMismatchError


@dataclass(frozen=True, slots=True)
class Trusted:
    """The path was verified, whatever the pins say to it; `chain` is it, as DER, leaf first."""

    trust: PeerTrust
    chain: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Untrusted:
    """OpenSSL's `verify_code` and its words, and what the server sends, as DER: none of it verified."""

    code: int
    message: str
    sent: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class NoTls:
    """There was no handshake: OpenSSL's reason."""

    reason: str


Sight = Trusted | Untrusted | NoTls


def look(remote: RemoteSpec, *, unpinned: bool = False) -> Sight:
    """Return what comes of a handshake with an https server, its anchors read; `unpinned`: whatever its pins.

    Where its pins refuse the server, or no anchor of its store fits them, it is looked at once more without regard to
    them. Takes no longer than its connect_seconds each time. Raises `AgentError` where it cannot be reached, or where
    its store cannot be used.
    """
    assert remote.tls is not None
    route, seconds = route_of(remote), remote.limits.connect_seconds
    if unpinned:
        return _without_regard_to_pins(remote.tls, route, seconds)
    try:
        return _handshake(_without_client_certificate(remote.tls), route, seconds)
    except TrustError:
        return _without_regard_to_pins(remote.tls, route, seconds)


def _without_client_certificate(tls: TlsSpec) -> TlsSpec:
    """Return `tls` for a context that has none to show, and speaks the versions of one that has."""
    if tls.client_certificate is None:
        return tls
    rules = rules_of(tls)
    closed = rules.closed_by(rules.narrow(parse_pem(tls.anchors_pem), pinned_only=tls.store == "pinned-only"))
    return msgspec.structs.replace(tls, client_certificate=None, min_version=tls.min_version if closed else "1.3")


def _without_regard_to_pins(tls: TlsSpec, route: Route, seconds: float) -> Sight:
    """Return who is there, by any authority of the store."""
    store = "custom" if tls.store == "pinned-only" else tls.store
    changed = msgspec.structs.replace(tls, pin_mode="report", store=store, client_certificate=None)
    sight = _handshake(changed, route, seconds)
    if isinstance(sight, Trusted) and store != tls.store:
        trust = dataclasses.replace(sight.trust, anchored_by=f"{tls.store}, its pins left aside")
        return Trusted(trust, sight.chain)
    return sight


def _handshake(tls: TlsSpec, route: Route, seconds: float) -> Sight:
    """Do one handshake; `PinMismatchError` where only pins are the reason of a refusal."""
    handshake = Handshake(upstream_context(tls, {}), tls.server_name)
    with connected(route, seconds) as wire:
        try:
            handshake.run(wire)
        except ssl.SSLCertVerificationError as error:
            if isinstance(error.__cause__, PinMismatchError):
                raise error.__cause__ from None
            refused = error
        except ssl.SSLError as error:
            return NoTls(error.reason or "the server closed the connection")
        else:
            return Trusted(peer_trust(handshake.tls), tuple(verified_chain(handshake.tls)))
    return Untrusted(refused.verify_code, refused.verify_message or str(refused), _sent(route, tls, seconds))


def _sent(route: Route, tls: TlsSpec, seconds: float) -> tuple[bytes, ...]:
    try:
        return tuple(chain_sent(route, tls.server_name, seconds))
    except AgentError:
        return ()  # the refusal stands without it
