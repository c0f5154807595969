"""SHELL: how one helper trusts its upstream, from one change of anchors, pins or client certificate to the next.

A `Trust` is made whole or not at all; `upstream` makes connections by it, and judges by it those that stand already.
What is pinned, and what follows, `trust.pins` and `trust.context` decide; here it is put together, tried, and told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from codingagents.proxies.layer_rows import pins_row
from codingagents.rewrite.specs import TlsSpec
from codingagents.rewrite.upstream_tls import upstream_context
from codingagents.trust import facts
from codingagents.trust.context import PeerTrust, PinnedContext
from codingagents.trust.errors import TrustError
from codingagents.trust.events import Layer
from codingagents.trust.pins import PinMismatchError, Pinning, VerifiedPath
from codingagents.trust.vocabulary import Secret

# A path that no pin and no override can name: there is no certificate with this hash of itself.
_FOREIGN = VerifiedPath(keys=("sha256/",), certificates=("",), places=(("leaf", "root"),))


@dataclass(frozen=True, slots=True)
class Trust:
    """The trust of one epoch; make it with `trust_of`."""

    context: PinnedContext
    store_sha256: str  # of the anchors' PEM text, hexadecimal
    has_credential: bool  # one that is attached, or a client certificate
    # What it was made of. OpenSSL has the anchors by now: their text, 220 kB of the host's, is kept only where it will
    # be needed again, when a client certificate is renewed.
    spec: TlsSpec

    @property
    def pinning(self) -> Pinning:
        """The one predicate, for all that asks about pins."""
        return self.context.pinning

    def layer(self, server: str) -> Layer:
        """Return what the layer report says of the pins."""
        tried = "a handshake with a wrong pin, before the helper was cloned: refused"
        if self.pinning.refuses:
            tried += "; a path without these pins: refused"
        return pins_row(self.pinning, server, tried)

    def told(self, peer: PeerTrust, address: str) -> Iterator[facts.AnyFact]:
        """Yield what is to be recorded of a connection to `address` that is trusted for `peer`."""
        match = peer.match
        yield facts.UpstreamTrusted(
            address=address,
            tls_version=peer.tls_version,
            anchored_by=peer.anchored_by,
            anchor_sha256=peer.anchor_sha256,
            leaf_sha256=peer.leaf_sha256,
            leaf_not_after=peer.leaf_not_after,
            pins=[] if match is None else [str(pin) for pin in match.pins],
            credential=self.pinning.credential_rule(match) if self.has_credential else "none",
        )
        if match is not None and not match.pins and match.bypass is None:
            expected = list(self.pinning.expected)
            yield facts.PinMismatch(
                address=address, expected=expected, seen=list(self.pinning.seen(match.path)), refused=False
            )


def trust_of(tls: TlsSpec, secrets: Mapping[str, Secret], *, attaches: bool) -> Trust:
    """Return how `tls` says to trust; `attaches`: requests get a credential.

    Raises `ConfigError` or `TrustError` where pins, anchors or client certificate cannot do their job.
    """
    context = upstream_context(tls, secrets)
    _try(context.pinning)
    return Trust(
        context=context,
        store_sha256=hashlib.sha256(tls.anchors_pem.encode()).hexdigest(),
        has_credential=attaches or tls.client_certificate is not None,
        spec=tls if tls.client_certificate is not None else msgspec.structs.replace(tls, anchors_pem=""),
    )


def _try(pinning: Pinning) -> None:
    """Show these very pins a path that has none of them.

    That the handshake asks them, and that a refusal ends it, was tried before the helper was cloned (`trust.selftest`).
    """
    if not pinning.refuses:
        return
    try:
        pinning.check(_FOREIGN)
    except PinMismatchError:
        return
    raise TrustError("the pins of this server let a path through that carries none of them; nothing is served by them")
