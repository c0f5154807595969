"""CORE: whether a helper is well: its answers to our probe, and what may degrade it. Counts, and knows no clock.

The probe costs the vendor nothing: a Ping over the helper's own channel once an interval, which its loop answers. One
interval without the answer is late, three are silence. Intervals are counted as they end instead of being measured: a
container that was frozen for an hour has missed none. What is to be done about it is `lifecycle`'s and its shell's.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Final, Literal

from codingagents.supervisor.lifecycle import Happened
from codingagents.trust.errors import WireError

INTERVAL_SECONDS: Final = 5.0
SILENT_INTERVALS: Final = 3

Cause = Literal["upstream", "probe"]


class Verdict(enum.Enum):
    """What an interval that ended shows."""

    WELL = "the answer came"
    LATE = "the answer is late"
    SILENT = "there is no answer any more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The pings of one helper process, numbered from 1."""

    sent: int = 0
    answered: int = 0
    due: int = 0  # the ping of the last interval, to be answered by the end of it
    missed: int = 0  # intervals that ended without

    def ask(self) -> Probe:
        """Return the probe after one more ping, whose number is `sent`; nothing is due for it."""
        return replace(self, sent=self.sent + 1)

    def interval_over(self) -> tuple[Probe, Verdict]:
        """Return the probe after the next regular ping, and what became of the one before."""
        missed = self.missed + 1 if self.answered < self.due else 0
        asked = replace(self.ask(), due=self.sent + 1, missed=missed)
        if missed >= SILENT_INTERVALS:
            return asked, Verdict.SILENT
        return asked, Verdict.LATE if missed else Verdict.WELL

    def answer(self, number: int) -> Probe:
        """Return the probe after the answer to ping `number`; `WireError` where it cannot be that."""
        if not self.answered < number <= self.sent:
            raise WireError(f"a ping {number} was answered that was not asked, or before")
        return replace(self, answered=number, missed=self.missed if number < self.due else 0)

    @property
    def is_well(self) -> bool:
        """Say that no answer is late."""
        return self.missed == 0


@dataclass(frozen=True, slots=True)
class Health:
    """Why a helper is degraded: each cause with its reason, and none in one that is well."""

    causes: tuple[tuple[Cause, str], ...] = ()

    def worse(self, cause: Cause, reason: str) -> tuple[Health, Happened | None]:
        """Add a cause, or give it another reason; return what happened to the helper by it, if anything."""
        others = tuple(each for each in self.causes if each[0] != cause)
        return Health((*others, (cause, reason))), None if self.causes else Happened.DEGRADED

    def better(self, cause: Cause) -> tuple[Health, Happened | None]:
        """Take a cause away, if it is there; likewise."""
        others = tuple(each for each in self.causes if each[0] != cause)
        return Health(others), Happened.RECOVERED if self.causes and not others else None

    def reason_of(self, cause: Cause) -> str:
        """Return the reason of a cause, "" where it is not there."""
        return dict(self.causes).get(cause, "")
