"""CORE: why a server was trusted when its helper last connected to it, as far as the helper said so. No I/O."""

from __future__ import annotations

from typing import Final

from codingagents.supervisor import expiry
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
