"""A helper's answers to its probe, late and never; and the causes that degrade it, one by one."""

import pytest

from codingagents.supervisor.health import Health, Probe, Verdict
from codingagents.supervisor.lifecycle import Happened
from codingagents.trust.errors import WireError


def over(probe: Probe, verdict: Verdict) -> Probe:
    after, found = probe.interval_over()
    assert found is verdict
    return after


def test_a_helper_that_answers_each_ping_is_well() -> None:
    probe = Probe()
    for number in range(1, 10):
        probe = over(probe, Verdict.WELL)
        assert probe.sent == number
        probe = probe.answer(number)


def test_one_interval_is_late_and_three_are_silence() -> None:
    probe = over(Probe(), Verdict.WELL)
    probe = over(probe, Verdict.LATE)
    assert not probe.is_well
    probe = over(probe, Verdict.LATE)
    over(probe, Verdict.SILENT)


def test_a_late_answer_counts_once_it_is_to_the_newest_regular_ping() -> None:
    """Answers come in order; a helper that always answers the ping before last is still late."""
    probe = over(over(Probe(), Verdict.WELL), Verdict.LATE).answer(1)
    assert not probe.is_well
    assert probe.answer(2).is_well
    late = over(probe, Verdict.LATE)
    assert not late.answer(2).is_well
    assert late.answer(3).is_well


def test_a_ping_between_the_regular_ones_is_never_late() -> None:
    """`helper list` asks when it is asked; an interval that ends just after it shows nothing."""
    probe = over(Probe(), Verdict.WELL).answer(1).ask()
    assert probe.sent == 2
    probe = over(probe, Verdict.WELL)
    assert probe.sent == 3
    over(probe, Verdict.LATE)


@pytest.mark.parametrize("number", [-1, 0, 1, 3, 10**20])
def test_an_answer_to_what_was_not_asked_is_refused(number: int) -> None:
    probe = Probe().ask().ask().answer(1)
    with pytest.raises(WireError, match="was not asked, or before"):
        probe.answer(number)
    assert probe.answer(2).answered == 2


def test_a_helper_is_degraded_by_its_first_cause_and_well_without_the_last() -> None:
    health, happened = Health().worse("upstream", "dns_failed")
    assert happened is Happened.DEGRADED
    health, happened = health.worse("probe", "late")
    assert happened is None
    health, happened = health.worse("upstream", "tls_failed")
    assert happened is None
    assert (health.reason_of("upstream"), health.reason_of("probe")) == ("tls_failed", "late")
    health, happened = health.better("probe")
    assert happened is None
    assert health.reason_of("probe") == ""
    health, happened = health.better("upstream")
    assert (health, happened) == (Health(), Happened.RECOVERED)


def test_what_is_well_does_not_recover() -> None:
    assert Health().better("probe") == (Health(), None)
