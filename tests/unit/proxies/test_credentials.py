"""What is attached to each request, filled from secrets."""

import pytest

from codingagents.proxies.credentials import attach
from codingagents.rewrite.specs import HeaderTemplate
from codingagents.trust.errors import ConfigError
from codingagents.trust.vocabulary import Secret


def template(name: str, text: str) -> HeaderTemplate:
    return HeaderTemplate(name=name, template=text)


def test_headers_with_secrets_are_apart_from_those_without() -> None:
    """Only the former are the credential, which may be withheld; it is described by names alone."""
    headers = [template("Authorization", "Bearer ${A}"), template("X-Region", "eu$$"), template("X-Two", "${B}-${A}")]
    attached = attach(headers, {"A": Secret("aaa"), "B": Secret("bbb")})
    assert attached.plain == [b"X-Region: eu$"]
    assert attached.secret == [b"Authorization: Bearer aaa", b"X-Two: bbb-aaa"]
    assert attached.description == "Authorization from A, X-Two from A and B"


def test_without_headers_there_is_no_credential() -> None:
    """Then the upstream's 401 is the client's own affair."""
    assert attach([], {}) == ([], [], "")


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "é", "a\x00"])
def test_a_secret_that_would_break_the_head_is_refused_by_name(value: str) -> None:
    """The error names the header and never shows the value."""
    with pytest.raises(ConfigError, match="Authorization") as caught:
        attach([template("Authorization", "Bearer ${A}")], {"A": Secret(value)})
    assert value not in str(caught.value)


def test_a_missing_secret_is_named() -> None:
    """A literal placeholder never goes on the wire."""
    with pytest.raises(ConfigError, match="MISSING"):
        attach([template("Authorization", "Bearer ${MISSING}")], {})
