"""CORE: what the facts of one helper add up to: its counts, and whether its upstream works.

Passive: only requests that clients made anyway are looked at, so that watching costs the upstream nothing. Neither a
client that gives up nor a request that was refused here says anything about the upstream. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from codingagents.trust.answers import ANSWERS
from codingagents.trust.facts import AnyFact, Refused, Request, UpstreamHealth

FAILURES: Final = 3  # in a row, before the upstream counts as failing
_UPSTREAM_CODES: Final = frozenset(code for code, answer in ANSWERS.items() if answer.status in (502, 504))


class Health:
    """Counts since the start, and the state of the upstream; of nothing yet, it counts as working."""

    def __init__(self) -> None:
        """Start from zero."""
        self.requests = 0
        self.errors = 0
        self.refused = 0
        self._in_a_row = 0

    def take(self, facts: Iterable[AnyFact]) -> list[AnyFact]:
        """Add `facts`, in their order, and return the changes of the upstream's state that they made."""
        changes: list[AnyFact] = []
        for fact in facts:
            if isinstance(fact, Request):
                self.requests += 1
                code = fact.error_type
                if code is None:
                    if self._in_a_row >= FAILURES:
                        changes.append(UpstreamHealth(state="ok", error_type=None))
                    self._in_a_row = 0
                else:
                    self.errors += 1
                    if code in _UPSTREAM_CODES:
                        self._in_a_row += 1
                        if self._in_a_row == FAILURES:
                            changes.append(UpstreamHealth(state="failing", error_type=code))
            elif isinstance(fact, Refused):
                self.refused += 1
        return changes
