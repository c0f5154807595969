"""CORE: what a benchmark found, and how it is judged: figures, ratios within rounds, budgets, tables. No I/O.

A figure is the median of the rounds with the least and the most beside it. Targets are compared *within* a round, since
what else the machine does falls on all targets of a round alike; the ratios' median is what a budget judges.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """The median of some rounds, with the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        """Return the figure of `values`, at least one."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 2) -> str:
        """Return `median (least to most)`."""
        return f"{self.median:.{digits}f} ({self.least:.{digits}f} to {self.most:.{digits}f})"


def ratios(above: Sequence[float], below: Sequence[float]) -> Figure:
    """Return `above` ÷ `below`, round by round; both are as long."""
    return Figure.of([one / other for one, other in zip(above, below, strict=True)])


def differences(of: Sequence[float], less: Sequence[float]) -> list[float]:
    """Return `of` less `less`, round by round; both are as long."""
    return [one - other for one, other in zip(of, less, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One promise: what must hold, and what is aimed for."""

    what: str
    must: float
    aim: float
    unit: str = ""
    more_is_better: bool = False
    digits: int = 2


@dataclass(frozen=True, slots=True)
class Judged:
    """A budget and what was found."""

    budget: Budget
    found: Figure

    def _holds(self, bound: float) -> bool:
        median = round(self.found.median, self.budget.digits)  # a figure is judged as it is shown
        return median >= bound if self.budget.more_is_better else median <= bound

    @property
    def met(self) -> bool:
        """Whether the must holds."""
        return self._holds(self.budget.must)

    @property
    def verdict(self) -> str:
        """What is printed."""
        if not self.met:
            return "MISSED"
        return "aim met" if self._holds(self.budget.aim) else "must met"

    def cells(self) -> list[str]:
        """Return the row of the table of budgets."""
        budget = self.budget
        sign = "≥" if budget.more_is_better else "≤"
        bounds = [f"{sign} {bound:g} {budget.unit}".rstrip() for bound in (budget.must, budget.aim)]
        return [budget.what, f"{self.found.text(budget.digits)} {budget.unit}".rstrip(), *bounds, self.verdict]


BUDGET_COLUMNS = ["what", "found", "must", "aim", "verdict"]


@dataclass(frozen=True, slots=True)
class Table:
    """Cells by row; the first column names the row."""

    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of the benchmark found."""

    title: str
    how: str  # it was measured, one or two sentences
    tables: list[Table]
    judged: list[Judged]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure."""

    rounds: int
    seconds: float  # of one load
    quick: bool = False
    targets: tuple[str, ...] = ()  # () is all


FULL = Plan(rounds=5, seconds=1.0)
QUICK = Plan(rounds=1, seconds=0.2, quick=True)
