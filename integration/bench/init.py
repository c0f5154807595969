"""SHELL: how long plain `init` takes from its exec to its child's exec.

The child tells the time itself, date(1), so its own start is in the figure: that of the same program without an init is
taken off, pairwise.
"""

from __future__ import annotations

import subprocess
import sys
import time

from bench.results import Budget, Figure, Judged, Part, Plan, Table, differences

ROUNDS = 20
_BUDGET = Budget(what="plain init from exec to the child's exec", must=120, aim=60, unit="ms", digits=0)
_DATE = ["/bin/date", "+%s%N"]
_INIT = [sys.executable, "-I", "-m", "codingagents.supervisor", "init", "--"]


def _took(command: list[str]) -> float:
    begun = time.time_ns()
    said = subprocess.run(command, check=True, capture_output=True).stdout
    return (int(said) - begun) / 1e6


def measure(plan: Plan) -> Part:
    """Return the time with and without the init, and their difference."""
    _took([*_INIT, *_DATE])  # caches warm
    rounds = 2 if plan.quick else ROUNDS
    with_init, without = zip(*[(_took([*_INIT, *_DATE]), _took(_DATE)) for _ in range(rounds)], strict=True)
    added = Figure.of(differences(with_init, without))
    rows = [["with", Figure.of(with_init).text(1)], ["without", Figure.of(without).text(1)], ["added", added.text(1)]]
    how = f"/bin/date as the command, as a subreaper; {rounds} pairs."
    return Part(
        "Plain init", how, [Table(["init", "exec to the time that the child says, ms"], rows)], [Judged(_BUDGET, added)]
    )
