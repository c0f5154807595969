"""What holds of a helper's probe and causes whatever comes in whatever order."""

from hypothesis import given
from hypothesis import strategies as st

from codingagents.supervisor.health import SILENT_INTERVALS, Cause, Health, Probe, Verdict
from codingagents.supervisor.lifecycle import Happened
from codingagents.trust.errors import WireError

CAUSES: list[Cause] = ["upstream", "probe"]


@given(st.lists(st.one_of(st.just("over"), st.just("ask"), st.integers(-1, 30)), max_size=60))
def test_silence_is_so_many_intervals_in_a_row_and_nothing_else(acts: list[str | int]) -> None:
    """Whatever a helper answers: it is silent only where its last so many regular pings went unanswered in time."""
    probe, in_a_row = Probe(), 0
    for act in acts:
        if act == "ask":
            probe = probe.ask()
        elif act == "over":
            in_a_row = in_a_row + 1 if probe.answered < probe.due else 0
            probe, verdict = probe.interval_over()
            assert (verdict is Verdict.SILENT) == (in_a_row >= SILENT_INTERVALS)
            assert (verdict is Verdict.WELL) == (in_a_row == 0)
        elif isinstance(act, int):
            try:
                probe = probe.answer(act)
            except WireError:
                continue
            in_a_row = in_a_row if act < probe.due else 0
        assert probe.answered <= probe.sent
        assert probe.is_well == (in_a_row == 0)


@given(st.lists(st.tuples(st.sampled_from(CAUSES), st.sampled_from(["", "a", "b"])), max_size=30))
def test_degraded_and_recovered_take_turns(acts: list[tuple[Cause, str]]) -> None:
    """So the shell can pass on each to the table of states."""
    health, degraded = Health(), False
    for cause, reason in acts:
        health, happened = health.worse(cause, reason) if reason else health.better(cause)
        assert happened is not (Happened.DEGRADED if degraded else Happened.RECOVERED)
        degraded = bool(health.causes)
