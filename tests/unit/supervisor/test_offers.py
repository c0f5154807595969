"""Which value a server's next helper gets, whatever its live one answered to which offer, and however it started."""

import pytest

from codingagents.supervisor.offers import Offers
from codingagents.trust.errors import WireError


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([True, True], "b"),
        ([False, True], "b"),
        ([True, False], "a"),
        ([False, False], "old"),
        ([False], "b"),  # the answer to b may still come
        ([], "b"),
    ],
)
def test_a_refused_value_is_not_kept(answers: list[bool], expected: str) -> None:
    offers = Offers("old")
    for value in ("a", "b"):
        offers.current = value
        assert offers.offered() is offers.current
    for taken in answers:
        offers.answered(taken=taken)
    assert offers.current == expected
    assert len(offers) == 2 - len(answers)


def test_a_new_helper_was_offered_nothing() -> None:
    offers = Offers("old")
    offers.current = "new"
    offers.offered()
    assert offers.given() == "new"
    with pytest.raises(WireError, match="was not made"):
        offers.answered(taken=True)


def test_an_answer_to_no_offer_is_refused() -> None:
    with pytest.raises(WireError, match="was not made"):
        Offers("old").answered(taken=False)


def test_a_helper_that_cannot_start_with_a_new_value_is_followed_by_one_with_the_former() -> None:
    offers = Offers("old")
    offers.current = "new"
    assert offers.given() == "new"
    assert offers.failed()
    assert (offers.current, offers.held) == ("old", "old")
    assert offers.given() == "old"
    assert not offers.failed()  # there is no other


def test_what_came_with_the_session_has_nothing_before_it() -> None:
    offers = Offers("first")
    offers.given()
    assert not offers.failed()
    assert offers.current == "first"


def test_what_came_after_a_helper_was_made_is_not_refused_with_it() -> None:
    offers = Offers("old")
    offers.current = "bad"
    offers.given()
    offers.current = "newer"
    assert not offers.failed()
    assert offers.current == "newer"


def test_what_a_helper_held_survives_its_end() -> None:
    offers = Offers("old")
    offers.current = "new"
    offers.given()
    assert offers.started() == "new"
    offers.given()
    assert not offers.failed()
    assert (offers.current, offers.held) == ("new", "new")
