"""What holds of a server's secrets however renewals, answers and restarts follow one another."""

from hypothesis import given
from hypothesis import strategies as st

from codingagents.supervisor.helper_secrets import HelperSecrets
from codingagents.trust.errors import WireError
from codingagents.trust.vocabulary import Secret

ACTS = st.lists(st.sampled_from(["renew", "restart", "taken", "refused"]), max_size=40)


@given(ACTS)
def test_the_next_helper_gets_the_newest_value_that_was_not_refused(acts: list[str]) -> None:
    secrets = HelperSecrets({"TOKEN": Secret("0")})
    newest, held, offers, values = 0, 0, [], 0
    for act in acts:
        if act == "renew":
            values += 1
            newest = values
            secrets.renew({"TOKEN": Secret(str(values))})
            offers.append(newest)
            secrets.offered()
        elif act == "restart":
            held, offers = newest, []
            secrets.given()
        else:
            try:
                secrets.answered(taken=act == "taken")
            except WireError:
                assert offers == []
                continue
            answered = offers.pop(0)
            if act == "taken":
                held = answered
            elif answered == newest:
                newest = held
        assert secrets.current["TOKEN"].reveal() == str(newest)
