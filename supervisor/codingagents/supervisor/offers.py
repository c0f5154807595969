"""CORE: what one server's helpers are to have and may refuse, secrets or trust: held, offered, answered, given anew.

A helper says of each offer whether it took it (`facts.SecretsTaken`, `facts.TrustTaken`); one that it refused must not
be what the next helper starts with. Judges no value. No I/O.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from codingagents.trust.errors import WireError

_T = TypeVar("_T")


class Offers(Generic[_T]):
    """`current` is what the next helper is given: the newest value that none refused; `held` what one had last.

    Values are told apart by identity.
    """

    def __init__(self, first: _T) -> None:
        """Start with what came with the session."""
        self.current = first
        self.held = first  # as far as a helper said so
        self._given = first  # to the newest helper, at its start
        self._offers: deque[_T] = deque()

    def __len__(self) -> int:
        """Return how many answers the live helper owes."""
        return len(self._offers)

    def given(self) -> _T:
        """Return what a new helper starts with; `started` or `failed` follows, unless it is all the same."""
        self._given = self.current
        self._offers.clear()
        return self.current

    def started(self) -> _T:
        """Note that the new helper holds what it was given, and return that."""
        self.held = self._given
        return self.held

    def failed(self) -> bool:
        """Note that the new helper did not come to hold what it was given; say whether the next gets another value."""
        if self.current is not self._given or self._given is self.held:
            return False
        self.current = self.held
        return True

    def offered(self) -> _T:
        """Return what the live helper is to take from now on; `answered` follows."""
        self._offers.append(self.current)
        return self.current

    def answered(self, *, taken: bool) -> _T:
        """Note the answer to the oldest offer, and return what the helper holds; `WireError` where there is none."""
        if not self._offers:
            raise WireError("an offer was answered that was not made")
        offer = self._offers.popleft()
        if taken:
            self.held = offer
        elif offer is self.current:
            self.current = self.held
        return self.held
