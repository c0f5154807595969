from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest

from codingagents.trust import errors
from codingagents.trust.errors import AgentError, ChainError, ConfigError
from codingagents.trust.vocabulary import Secret, parse_secret_name, parse_server_name, parse_session_id


@pytest.mark.parametrize(
    ("parse", "good", "bad"),
    [
        (parse_server_name, ["a", "A-b_9", "x" * 32], ["", "x" * 33, "a b", "a.b", "../a", "é", "a\n"]),
        (parse_session_id, ["a", "a-9", "x" * 64], ["", "x" * 65, "A", "a_b", "a/b", "é", "a\n"]),
        (parse_secret_name, ["A", "_a9", "x" * 128], ["", "9A", "A-B", "x" * 129, "É", "A\n", "A=B"]),
    ],
)
def test_names_have_a_closed_alphabet(parse: Callable[[str], str], good: list[str], bad: list[str]) -> None:
    for text in good:
        assert parse(text) == text
    for text in bad:
        with pytest.raises(ConfigError, match="must"):
            parse(text)


def test_a_secret_has_no_text_form() -> None:
    secret = Secret("hunter2")
    assert {repr(secret), str(secret), f"{secret}", f"{secret:>20}", "%s" % secret} == {"<Secret>"}  # noqa: UP031 -- all ways
    assert secret.reveal() == "hunter2"
    assert not hasattr(secret, "__dict__")


def test_a_secret_is_never_copied_out_of_the_process() -> None:
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(Secret("hunter2"))
    with pytest.raises(TypeError, match="never pickled"):
        copy.copy(Secret("hunter2"))


def test_secrets_compare_by_value() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


def test_an_empty_secret_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="empty"):
        Secret("")


def test_every_error_is_of_the_one_family_and_ends_with_a_known_code() -> None:
    family: list[type] = [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert all(issubclass(kind, AgentError) for kind in family)
    assert {kind.exit_code for kind in family if issubclass(kind, AgentError)} == {1, 2, 3, 124, 125}


def test_a_chain_error_names_its_line() -> None:
    error = ChainError(3, "it was changed")
    assert (str(error), error.line, error.reason) == ("line 3: it was changed", 3, "it was changed")
