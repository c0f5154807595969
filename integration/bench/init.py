"""SHELL: how long plain `init` takes from its exec to its child's exec, against the inits that images use.

The child tells the time itself, date(1), so its own start is in the figure: that of the same program without an init is
taken off, round by round. All in turn, on one CPU, as an ordinary process and as PID 1 of a new PID namespace.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Final

from bench.results import Budget, Figure, Judged, Part, Plan, Table, differences

ROUNDS = 20
_BUDGET = Budget(what="plain init from exec to the child's exec", must=120, aim=60, unit="ms", digits=0)
_DATE: Final = ("/bin/date", "+%s%N")
_OURS = "coding-agents init"
_INITS: Final[Mapping[str, tuple[str, ...]]] = {
    "none": (),
    "tini -s": ("/usr/bin/tini", "-s", "--"),
    "dumb-init": ("/usr/bin/dumb-init", "--"),
    "catatonit": ("/usr/bin/catatonit", "--"),
    "a Python that does nothing but the exec": (
        *(sys.executable, "-I", "-c"),
        "import os, sys; os.execv(sys.argv[1], sys.argv[1:])",
    ),
    _OURS: (sys.executable, "-I", "-m", "codingagents.supervisor", "init", "--"),
}
_WAYS: Final[Mapping[str, tuple[str, ...]]] = {
    "as an ordinary process": (),
    "as PID 1": ("/usr/bin/unshare", "--pid", "--fork", "--kill-child"),
}


def _took(command: tuple[str, ...]) -> float:
    """Return the ms from before the spawn to the time that the child said."""
    begun = time.time_ns()
    said = subprocess.run([*command, *_DATE], check=True, capture_output=True).stdout
    return (int(said) - begun) / 1e6


@contextlib.contextmanager
def _one_cpu() -> Iterator[None]:
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)


def _measured(rounds: int) -> dict[tuple[str, str], list[float]]:
    """Return the ms by init and way, taken in turn; the first round, which warms caches, is left out."""
    commands = {(init, way): _WAYS[way] + _INITS[init] for way in _WAYS for init in _INITS}
    found: dict[tuple[str, str], list[float]] = {key: [] for key in commands}
    with _one_cpu():
        for number in range(rounds + 1):
            for key, command in commands.items():
                took = _took(command)
                if number:
                    found[key].append(took)
    return found


def measure(plan: Plan) -> Part:
    """Return what each init adds."""
    rounds = 2 if plan.quick else ROUNDS
    found = _measured(rounds)
    added = {
        (init, way): Figure.of(differences(took, found["none", way]))
        for (init, way), took in found.items()
        if init != "none"
    }
    rows = [[init, *(added[init, way].text(1) for way in _WAYS)] for init in _INITS if init != "none"]
    how = (
        f"/bin/date as the command, which tells when it ran; what that took without an init is taken off. {rounds} "
        "rounds, all inits in turn, on one CPU."
    )
    table = Table(["init", *(f"added {way}, ms" for way in _WAYS)], rows)
    return Part("Plain init", how, [table], [Judged(_BUDGET, added[_OURS, "as an ordinary process"])])
