"""Which values a server's next helper gets, whatever its live one answered to which offer."""

import pytest

from codingagents.supervisor.helper_secrets import HelperSecrets
from codingagents.trust.errors import WireError
from codingagents.trust.vocabulary import Secret


def secret(value: str) -> dict[str, Secret]:
    return {"TOKEN": Secret(value)}


def value_of(secrets: HelperSecrets) -> str:
    return secrets.current["TOKEN"].reveal()


def test_only_what_the_server_has_is_renewed() -> None:
    secrets = HelperSecrets({**secret("old"), "OTHER": Secret("x")})
    assert not secrets.renew({"FOREIGN": Secret("new")})
    assert secrets.renew({"FOREIGN": Secret("new"), **secret("new")})
    assert {name: each.reveal() for name, each in secrets.current.items()} == {"TOKEN": "new", "OTHER": "x"}


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
    secrets = HelperSecrets(secret("old"))
    for value in ("a", "b"):
        assert secrets.renew(secret(value))
        assert secrets.offered() is secrets.current
    for taken in answers:
        secrets.answered(taken=taken)
    assert value_of(secrets) == expected


def test_a_new_helper_was_offered_nothing() -> None:
    secrets = HelperSecrets(secret("old"))
    secrets.renew(secret("new"))
    secrets.offered()
    assert secrets.given() == secret("new")
    with pytest.raises(WireError, match="were not sent"):
        secrets.answered(taken=True)


def test_an_answer_to_no_offer_is_refused() -> None:
    with pytest.raises(WireError, match="were not sent"):
        HelperSecrets(secret("old")).answered(taken=False)
