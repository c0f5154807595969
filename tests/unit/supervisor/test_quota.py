"""A source may burst, then gets its rate; what is over it is counted."""

from codingagents.supervisor.quota import Quota


def test_a_burst_passes_and_the_rest_is_counted() -> None:
    quota = Quota(100.0, rate=10.0, burst=3.0)
    assert [quota.take(100.0) for _ in range(5)] == [True, True, True, False, False]
    assert quota.dropped == 2


def test_tokens_come_back_at_the_rate_and_no_more_than_the_burst() -> None:
    quota = Quota(0.0, rate=10.0, burst=3.0)
    for _ in range(3):
        quota.take(0.0)
    assert not quota.take(0.05)
    assert quota.take(0.1)
    assert not quota.take(0.1)
    assert [quota.take(1000.0) for _ in range(4)] == [True, True, True, False]


def test_drops_are_told_once() -> None:
    quota = Quota(0.0, rate=1.0, burst=1.0)
    assert quota.forgive() == 0
    quota.take(0.0)
    quota.take(0.0)
    assert (quota.forgive(), quota.forgive(), quota.dropped) == (1, 0, 0)


def test_over_a_long_time_the_rate_holds() -> None:
    quota = Quota(0.0, rate=5.0, burst=2.0)
    passed = sum(quota.take(moment / 100) for moment in range(1000))  # 100 a second for 10 seconds
    assert 5 * 10 <= passed <= 5 * 10 + 2
    assert quota.dropped == 1000 - passed
