"""CORE: the life of one helper as a table: (state, event) -> (state, command). Pure; time is an argument.

What the table cannot say: an exit counts against the restart budget (five in a minute), so a helper that stayed up for
a minute has its budget back. A pair that is not in the table is a bug in the shell and raises `RuntimeError`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Final

RESTART_BUDGET: Final = 5
BUDGET_SECONDS: Final = 60.0
FIRST_BACKOFF_SECONDS: Final = 0.1
MAX_BACKOFF_SECONDS: Final = 5.0


class State(enum.Enum):
    """Where a helper is."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"  # serves, but see `health`
    RESTARTING = "restarting"  # waits for its backoff
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class Happened(enum.Enum):
    """What the shell saw."""

    READY = "ready"
    DEGRADED = "degraded"  # the first cause of it came
    RECOVERED = "recovered"  # the last cause of it went
    EXITED = "exited"  # or could not be made
    BACKOFF_OVER = "backoff over"
    STOP = "stop"


class Do(enum.Enum):
    """What the shell must do next."""

    NOTHING = "nothing"
    START = "start"
    WAIT = "wait for `backoff` seconds, then report BACKOFF_OVER"
    DRAIN = "signal the helper and wait for its exit"
    GIVE_UP = "report the helper as failed, and answer in its place"


_TABLE: Final[dict[tuple[State, Happened], tuple[State, Do]]] = {
    (State.STARTING, Happened.READY): (State.READY, Do.NOTHING),
    (State.STARTING, Happened.EXITED): (State.RESTARTING, Do.WAIT),
    (State.STARTING, Happened.STOP): (State.DRAINING, Do.DRAIN),
    (State.READY, Happened.DEGRADED): (State.DEGRADED, Do.NOTHING),
    (State.READY, Happened.EXITED): (State.RESTARTING, Do.WAIT),
    (State.READY, Happened.STOP): (State.DRAINING, Do.DRAIN),
    (State.DEGRADED, Happened.RECOVERED): (State.READY, Do.NOTHING),
    (State.DEGRADED, Happened.EXITED): (State.RESTARTING, Do.WAIT),
    (State.DEGRADED, Happened.STOP): (State.DRAINING, Do.DRAIN),
    (State.RESTARTING, Happened.BACKOFF_OVER): (State.STARTING, Do.START),
    (State.RESTARTING, Happened.STOP): (State.STOPPED, Do.NOTHING),
    (State.DRAINING, Happened.READY): (State.DRAINING, Do.NOTHING),
    (State.DRAINING, Happened.DEGRADED): (State.DRAINING, Do.NOTHING),
    (State.DRAINING, Happened.RECOVERED): (State.DRAINING, Do.NOTHING),
    (State.DRAINING, Happened.EXITED): (State.STOPPED, Do.NOTHING),
    (State.DRAINING, Happened.STOP): (State.DRAINING, Do.NOTHING),
    (State.FAILED, Happened.STOP): (State.STOPPED, Do.NOTHING),
    (State.STOPPED, Happened.STOP): (State.STOPPED, Do.NOTHING),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Helper:
    """The state of one helper, and the exits (seconds on the shell's clock) that count against its budget."""

    state: State = State.STARTING
    exits: tuple[float, ...] = ()
    backoff: float = 0.0  # seconds; meaningful in RESTARTING


def step(helper: Helper, happened: Happened, now: float) -> tuple[Helper, Do]:
    """Return the helper after `happened`, and what to do."""
    try:
        state, command = _TABLE[helper.state, happened]
    except KeyError:
        raise RuntimeError(f"a helper in state {helper.state.value} cannot have {happened.value}") from None
    if command is Do.WAIT:
        return _after_exit(helper, now)
    return replace(helper, state=state), command


def _after_exit(helper: Helper, now: float) -> tuple[Helper, Do]:
    exits = (*(at for at in helper.exits if now - at < BUDGET_SECONDS), now)
    if len(exits) > RESTART_BUDGET:
        return replace(helper, state=State.FAILED, exits=exits), Do.GIVE_UP
    backoff = min(FIRST_BACKOFF_SECONDS * 2 ** (len(exits) - 1), MAX_BACKOFF_SECONDS)
    return replace(helper, state=State.RESTARTING, exits=exits, backoff=backoff), Do.WAIT
