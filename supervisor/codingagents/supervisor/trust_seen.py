"""CORE: why a server was trusted when its helper last connected to it, as far as the helper said so. No I/O."""

from __future__ import annotations

import datetime
from typing import Final

from codingagents.rewrite.specs import RemoteSpec, TlsSpec
from codingagents.supervisor import expiry
from codingagents.supervisor.helper_listing import TrustRow
from codingagents.supervisor.helper_trust import credential_rule, overrides_pins, store_sha256
from codingagents.supervisor.quota import Quota
from codingagents.trust import facts

# Each new certificate has dates of its own to be told, and a helper that is taken over can make them up.
_LEAVES_PER_SECOND: Final = 1 / 60
_LEAVES_AT_ONCE: Final = 10.0


class TrustSeen:
    """Of one server. `newest` is what was said last, `leaf` when the certificate ends that is watched."""

    def __init__(self, server: str) -> None:
        """Know of no connection yet."""
        self.newest: facts.UpstreamTrusted | None = None
        self.leaf: expiry.End | None = None
        self._server = server
        self._quota = Quota(0.0, rate=_LEAVES_PER_SECOND, burst=_LEAVES_AT_ONCE)

    def note(self, seen: facts.UpstreamTrusted, now: float) -> bool:
        """Note a connection; say whether there is a new certificate to watch. `WireError` where that cannot be."""
        leaf = expiry.end_of_leaf(self._server, seen)
        self.newest = seen
        if leaf == self.leaf or not self._quota.take(now):
            return False
        self.leaf = leaf
        return True

    def row(self, remote: RemoteSpec, tls: TlsSpec, now: datetime.datetime) -> TrustRow:
        """Return what `helper list` shows of a server that is trusted by `tls`."""
        pins = None if tls.pin_mode == "off" else tls.pins_expire
        seen = self.newest
        leaf = None if seen is None else expiry.end_of_leaf(self._server, seen)
        return TrustRow(
            pin_mode=tls.pin_mode,
            pins_expire=pins,
            pins_days_left=None if pins is None else expiry.end_of_pins(self._server, pins).days_left(now),
            credential=credential_rule(remote, tls),
            store=tls.store,
            store_sha256=store_sha256(tls),
            overrides=[override.name for override in tls.overrides],
            overrides_pins=overrides_pins(tls),
            anchored_by=None if seen is None else seen.anchored_by,
            leaf_sha256=None if seen is None else seen.leaf_sha256,
            leaf_not_after=None if seen is None else seen.leaf_not_after,
            leaf_days_left=None if leaf is None else leaf.days_left(now),
        )
