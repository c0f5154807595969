"""What is told of an end, whenever somebody looks: each threshold at most once, the nearest at once, none too early."""

import datetime
from datetime import UTC, timedelta

from hypothesis import given
from hypothesis import strategies as st

from codingagents.supervisor import expiry
from codingagents.supervisor.expiry import WARN_DAYS, End

START = datetime.datetime(2027, 3, 1, tzinfo=UTC)
MINUTES = 50 * 24 * 60
ENDS = st.lists(
    st.builds(
        lambda minutes, name: End(
            server="one", what="leaf", name=name, moment=START + timedelta(minutes=minutes), text="x"
        ),
        st.integers(-MINUTES, MINUTES),
        st.sampled_from("abc"),
    ),
    max_size=4,
    unique=True,
)


@given(ENDS, st.lists(st.integers(1, MINUTES), max_size=30))
def test_each_threshold_is_told_once_at_the_first_look_behind_it(ends: list[End], pauses: list[int]) -> None:
    told: expiry.Told = {}
    now = START
    levels: dict[End, int] = {}
    for pause in pauses:
        events, told = expiry.due(ends, told, now)
        expected = []
        for end in ends:
            passed = [warn for warn in WARN_DAYS if end.moment - now < (warn + 1) * timedelta(days=1)]
            if passed and passed[-1] != levels.get(end):
                levels[end] = passed[-1]
                expected.append((end.name, end.days_left(now)))
        assert [(event.name, event.days_left) for event in events] == expected
        now += timedelta(minutes=pause)


@given(ENDS, st.integers(0, MINUTES))
def test_who_sleeps_as_told_misses_nothing_and_is_early_for_nothing(ends: list[End], offset: int) -> None:
    now = START + timedelta(minutes=offset)
    _, told = expiry.due(ends, {}, now)
    pause = expiry.next_look(ends, now)
    assert timedelta() < pause <= timedelta(days=1)
    assert expiry.due(ends, told, now + pause - timedelta(microseconds=1))[0] == []
