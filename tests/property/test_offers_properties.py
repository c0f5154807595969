"""What holds of offers however renewals, answers and restarts follow one another."""

from hypothesis import given
from hypothesis import strategies as st

from codingagents.supervisor.offers import Offers
from codingagents.trust.errors import WireError

ACTS = st.lists(st.sampled_from(["renew", "restart", "broken start", "taken", "refused"]), max_size=40)


@given(ACTS)
def test_the_next_helper_gets_the_newest_value_that_was_not_refused(acts: list[str]) -> None:
    """Judged by a list of refusals, without memory of who held what."""
    offers = Offers("0")
    values, sent, held = ["0"], list[str](), "0"
    for act in acts:
        match act:
            case "renew":
                values.append(f"{len(values)} after {values[-1]}")
                offers.current = values[-1]
                sent.append(offers.offered())
            case "restart":
                held, sent = offers.given(), []
                assert offers.started() == held
            case "broken start":
                tried, sent = offers.given(), []
                assert offers.failed() == (tried != held)
            case _ if sent:
                answered = sent.pop(0)
                held = answered if act == "taken" else held
                assert offers.answered(taken=act == "taken") == held
            case _:
                try:
                    offers.answered(taken=act == "taken")
                except WireError:
                    continue
                raise AssertionError("an answer to nothing was taken")
        assert offers.held == held
        # Either nobody has refused the newest, or what was held before it is in its place.
        assert offers.current == (held if offers.current != values[-1] else values[-1])
