"""Each pair of state and event, and the arithmetic of backoff and budget."""

import pytest

from codingagents.supervisor.lifecycle import (
    BUDGET_SECONDS,
    FIRST_BACKOFF_SECONDS,
    RESTART_BUDGET,
    Do,
    Happened,
    Helper,
    State,
    step,
)

POSSIBLE = {
    (State.STARTING, Happened.READY): (State.READY, Do.NOTHING),
    (State.STARTING, Happened.EXITED): (State.RESTARTING, Do.WAIT),
    (State.STARTING, Happened.STOP): (State.DRAINING, Do.DRAIN),
    (State.READY, Happened.EXITED): (State.RESTARTING, Do.WAIT),
    (State.READY, Happened.STOP): (State.DRAINING, Do.DRAIN),
    (State.READY, Happened.DEGRADED): (State.DEGRADED, Do.NOTHING),
    (State.DEGRADED, Happened.RECOVERED): (State.READY, Do.NOTHING),
    (State.DEGRADED, Happened.EXITED): (State.RESTARTING, Do.WAIT),
    (State.DEGRADED, Happened.STOP): (State.DRAINING, Do.DRAIN),
    (State.DRAINING, Happened.DEGRADED): (State.DRAINING, Do.NOTHING),
    (State.DRAINING, Happened.RECOVERED): (State.DRAINING, Do.NOTHING),
    (State.RESTARTING, Happened.BACKOFF_OVER): (State.STARTING, Do.START),
    (State.RESTARTING, Happened.STOP): (State.STOPPED, Do.NOTHING),
    (State.DRAINING, Happened.READY): (State.DRAINING, Do.NOTHING),
    (State.DRAINING, Happened.EXITED): (State.STOPPED, Do.NOTHING),
    (State.DRAINING, Happened.STOP): (State.DRAINING, Do.NOTHING),
    (State.FAILED, Happened.STOP): (State.STOPPED, Do.NOTHING),
    (State.STOPPED, Happened.STOP): (State.STOPPED, Do.NOTHING),
}


@pytest.mark.parametrize("happened", Happened)
@pytest.mark.parametrize("state", State)
def test_every_pair_of_state_and_event(state: State, happened: Happened) -> None:
    """A pair that the table lacks is a bug of the shell, and says which."""
    helper = Helper(state=state)
    expected = POSSIBLE.get((state, happened))
    if expected is None:
        with pytest.raises(RuntimeError, match=rf"{state.value} cannot have {happened.value}"):
            step(helper, happened, 0.0)
    else:
        after, command = step(helper, happened, 0.0)
        assert (after.state, command) == expected


def crash(helper: Helper, now: float) -> tuple[Helper, Do]:
    return step(helper, Happened.EXITED, now)


def restarted(helper: Helper, now: float) -> Helper:
    return step(helper, Happened.BACKOFF_OVER, now)[0]


def test_backoff_doubles_until_the_budget_is_used_up() -> None:
    helper, backoffs = Helper(), []
    for attempt in range(RESTART_BUDGET):
        helper, command = crash(helper, float(attempt))
        assert (helper.state, command) == (State.RESTARTING, Do.WAIT)
        backoffs.append(helper.backoff)
        helper = restarted(helper, float(attempt))
    assert backoffs == [FIRST_BACKOFF_SECONDS * 2**n for n in range(RESTART_BUDGET)]
    helper, command = crash(helper, float(RESTART_BUDGET))
    assert (helper.state, command) == (State.FAILED, Do.GIVE_UP)


def test_exits_of_long_ago_do_not_count() -> None:
    helper = Helper()
    for attempt in range(3 * RESTART_BUDGET):
        helper, command = crash(helper, attempt * BUDGET_SECONDS)
        assert command is Do.WAIT
        assert helper.backoff == FIRST_BACKOFF_SECONDS
        helper = restarted(helper, attempt * BUDGET_SECONDS)


def test_a_helper_that_stayed_up_for_a_minute_has_its_budget_back() -> None:
    crashed = Helper(state=State.READY, exits=(96.0, 97.0, 98.0, 99.0, 99.9))
    assert crash(crashed, 99.9 + BUDGET_SECONDS / 2)[1] is Do.GIVE_UP
    helper, command = crash(crashed, 99.9 + BUDGET_SECONDS)
    assert (command, helper.backoff) == (Do.WAIT, FIRST_BACKOFF_SECONDS)
