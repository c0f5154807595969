"""CORE: one server's upstream secrets as they are renewed: what the live helper holds, what the next one gets.

A helper says of each offer whether it took it (`facts.SecretsTaken`); one that it refused must not be what the next
helper starts with. No I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from codingagents.trust.errors import WireError
from codingagents.trust.vocabulary import Secret


class HelperSecrets:
    """The secrets of one server, whose names never change."""

    def __init__(self, secrets: Mapping[str, Secret]) -> None:
        """Start with those that came with the session."""
        self.current = dict(secrets)
        self._held = self.current  # by the live helper, as far as it said
        self._offers: deque[dict[str, Secret]] = deque()

    def renew(self, secrets: Mapping[str, Secret]) -> bool:
        """Take those of `secrets` that this server has; say whether there were any."""
        new = {name: secrets[name] for name in self.current if name in secrets}
        self.current = self.current | new
        return bool(new)

    def given(self) -> dict[str, Secret]:
        """Return what a new helper starts with."""
        self._held = self.current
        self._offers.clear()
        return self.current

    def offered(self) -> dict[str, Secret]:
        """Return what the live helper is to take from now on; `answered` follows."""
        self._offers.append(self.current)
        return self.current

    def answered(self, *, taken: bool) -> None:
        """Note the answer to the oldest offer; `WireError` where there is none."""
        if not self._offers:
            raise WireError("secrets were answered for that were not sent")
        offer = self._offers.popleft()
        if taken:
            self._held = offer
        elif offer is self.current:
            self.current = self._held
