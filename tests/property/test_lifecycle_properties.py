"""What holds of a helper's life whatever happens, in whatever order the shell can see it."""

from hypothesis import given
from hypothesis import strategies as st

from codingagents.supervisor.lifecycle import (
    FIRST_BACKOFF_SECONDS,
    MAX_BACKOFF_SECONDS,
    RESTART_BUDGET,
    Do,
    Happened,
    Helper,
    State,
    step,
)

# Times in seconds, often so close that they use up the budget.
happenings = st.lists(st.tuples(st.sampled_from(Happened), st.sampled_from([0.0, 0.1, 1.0, 30.0, 61.0])), max_size=40)


def live(events: list[tuple[Happened, float]]) -> list[tuple[Helper, Do, float]]:
    """Follow a helper through those of `events` that can happen to it."""
    helper, now, life = Helper(), 0.0, []
    for happened, later in events:
        now += later
        try:
            helper, command = step(helper, happened, now)
        except RuntimeError:
            continue
        life.append((helper, command, now))
    return life


@given(happenings)
def test_from_wherever_it_is_a_stop_is_the_way_out(events: list[tuple[Happened, float]]) -> None:
    """STOP leads to DRAINING or STOPPED, from there never back, and an exit while DRAINING is the end."""
    for helper, _, now in [(Helper(), Do.START, 0.0), *live(events)]:
        after, _ = step(helper, Happened.STOP, now)
        assert after.state in (State.DRAINING, State.STOPPED)
        if after.state is State.DRAINING:
            after, _ = step(step(after, Happened.READY, now)[0], Happened.EXITED, now)
        assert after.state is State.STOPPED
        assert step(after, Happened.STOP, now)[0].state is State.STOPPED


@given(happenings)
def test_once_told_to_stop_it_is_never_started_again(events: list[tuple[Happened, float]]) -> None:
    stopping = False
    for helper, command, _ in live(events):
        stopping = stopping or helper.state in (State.DRAINING, State.STOPPED)
        assert not (stopping and command in (Do.START, Do.WAIT, Do.GIVE_UP))


@given(happenings)
def test_backoff_stays_within_its_bounds_and_grows_with_the_exits_that_count(
    events: list[tuple[Happened, float]],
) -> None:
    for helper, command, now in live(events):
        if command is Do.WAIT:
            assert FIRST_BACKOFF_SECONDS <= helper.backoff <= MAX_BACKOFF_SECONDS
            assert helper.backoff == min(FIRST_BACKOFF_SECONDS * 2 ** (len(helper.exits) - 1), MAX_BACKOFF_SECONDS)
            assert helper.exits[-1] == now


@given(happenings)
def test_it_gives_up_only_after_more_exits_in_a_minute_than_the_budget_has(
    events: list[tuple[Happened, float]],
) -> None:
    for helper, command, now in live(events):
        assert len(helper.exits) <= RESTART_BUDGET + 1
        if command is Do.GIVE_UP:
            assert helper.state is State.FAILED
            assert sum(now - at < 60.0 for at in helper.exits) == RESTART_BUDGET + 1
