"""CORE: a token bucket per source of facts, so that one helper cannot fill the event log. Pure; time is an argument."""

from __future__ import annotations

from typing import Final

FACTS_PER_SECOND: Final = 500.0
BURST: Final = 5000.0


class Quota:
    """Counts what is over the rate; `take` says whether one more may pass."""

    def __init__(self, now: float, *, rate: float = FACTS_PER_SECOND, burst: float = BURST) -> None:
        """Start full; `now` is seconds on the clock that `take` will be given."""
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now
        self.dropped = 0

    def take(self, now: float, price: int = 1) -> bool:
        """Take `price` tokens for one fact, or count one drop."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < price:
            self.dropped += 1
            return False
        self._tokens -= price
        return True

    def forgive(self) -> int:
        """Return and reset the number of drops, once a report of them is about to be written."""
        dropped, self.dropped = self.dropped, 0
        return dropped
