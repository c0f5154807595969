"""Templates: `${NAME}` only from secrets, `$$` a dollar, `$NAME` left alone, nothing else."""

import pytest

from codingagents.rewrite.placeholders import Placeholder, expand, expand_header, names, parse_template
from codingagents.trust.errors import ConfigError
from codingagents.trust.vocabulary import Secret, SecretName

SECRETS = {"TOKEN": Secret("s3cret"), "B": Secret("${TOKEN}")}


@pytest.mark.parametrize(
    ("template", "value"),
    {
        "plain": "plain",
        "Bearer ${TOKEN}": "Bearer s3cret",
        "${TOKEN}${TOKEN}": "s3crets3cret",
        "$TOKEN and $": "$TOKEN and $",
        "$$": "$",
        "$${TOKEN}": "${TOKEN}",
        "$$${TOKEN}": "$s3cret",
        "${B}": "${TOKEN}",  # a secret is never a template
        "": "",
    }.items(),
)
def test_expansion(template: str, value: str) -> None:
    assert expand(template, SECRETS) == value


def test_parts_and_names_are_in_the_template_only_as_placeholders() -> None:
    assert parse_template("a${B}$$$C") == ("a", Placeholder(SecretName("B")), "$", "$C")
    assert names("${B}$${NOT}${B}${TOKEN}") == {"B", "TOKEN"}


@pytest.mark.parametrize("template", ["${", "${A", "${}", "${A:-b}", "${ A}", "${1A}", "x${A${B}}", "${A}${"])
def test_what_only_looks_like_a_placeholder_is_refused(template: str) -> None:
    with pytest.raises(ConfigError, match=r"holds a \$\{ that is not \$\{NAME\}"):
        parse_template(template)


def test_a_missing_secret_is_named() -> None:
    with pytest.raises(ConfigError, match="there is no secret named OTHER"):
        expand("${OTHER}", SECRETS)


@pytest.mark.parametrize("secret", ["a\r\nX-Evil: 1", "a\nb", "a\0b", "a\x7f", "é", " ", "\u2028"])
def test_a_header_value_cannot_be_split_by_its_secret(secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        expand_header("X-Key", "${S}", {"S": Secret(secret)})
    assert "X-Key" in str(caught.value)
    assert secret.strip() == "" or secret not in str(caught.value)


def test_a_header_value_loses_the_space_around_it() -> None:
    assert expand_header("X-Key", " ${TOKEN}\t", SECRETS) == "s3cret"
