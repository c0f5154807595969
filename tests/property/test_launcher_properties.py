"""The launcher's pure parts, over whatever they may be given."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codingagents.launcher.uids import END_BASE, FIRST_BASE, choose_base
from codingagents.rewrite.anchors import certificates
from codingagents.rewrite.foreground_plan import parse_listen
from codingagents.rewrite.secrets import parse_env_file, parse_option
from codingagents.trust.errors import ConfigError, TrustError, UsageError

lines = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
one_line = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=40)


@given(st.lists(lines | st.sampled_from(["A='", 'A="\\', "export A=", "A='x' #", "=x"])).map("\n".join))
def test_any_text_is_secrets_or_a_config_error(text: str) -> None:
    """The file is a person's: whatever they typed has one of two outcomes."""
    try:
        parse_env_file(text, "F")
    except ConfigError as error:
        assert str(error).startswith("F, line ")  # noqa: PT017 -- what the error says is the point


@given(one_line)
def test_a_quoted_value_comes_back_whole(value: str) -> None:
    """Both kinds of quotes hold everything that fits on a line."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    assert parse_env_file(f'A="{escaped}" # "', "F")["A"].reveal() == value  # type: ignore[index]  # a literal name
    if "'" not in value:
        assert parse_env_file(f"A='{value}'", "F")["A"].reveal() == value  # type: ignore[index]  # likewise


# A value that no sentence of ours holds by itself.
@given(st.text(max_size=20), st.text(max_size=20).map("hunter2-{}".format))
def test_an_option_never_echoes_what_may_be_a_value(name: str, value: str) -> None:
    """Whatever stands behind the first `=` is not in the error, unless the name has it too."""
    try:
        parse_option(f"{name}={value}")
    except UsageError as error:
        words = str(error).replace(name, "").replace("env:VARIABLE", "").replace("file:PATH", "")
        assert value not in words


@given(
    st.text(max_size=30)
    | st.binary(max_size=20).map(lambda raw: f"unix:/{os.fsdecode(raw)}")  # as the kernel hands over an argument
    | st.builds("{}:{}".format, st.sampled_from(["127.0.0.1", "localhost", "0.0.0.0", "::1", ""]), st.integers())
    | st.text(max_size=120).map("unix:/{}".format)
)
def test_a_helper_listens_on_this_machine_or_nowhere(text: str) -> None:
    """Any text is a loopback port, an absolute path that the kernel takes, or a sentence."""
    try:
        address = parse_listen(text)
    except UsageError as error:
        assert str(error).startswith("--listen")  # noqa: PT017 -- what the error says is the point
        return
    assert 0 <= address.port <= 65535
    assert (text.partition(":")[0] in {"127.0.0.1", "localhost"}) == (not address.path)
    assert not address.path or (address.path[0] == "/" and len(address.path.encode()) <= 107)


@given(
    st.integers(min_value=0),
    st.integers(min_value=3, max_value=40),
    st.sets(st.integers(min_value=FIRST_BASE, max_value=FIRST_BASE + 200)),
)
def test_a_base_is_free_and_within_the_range(start: int, width: int, taken: set[int]) -> None:
    """For any machine and any randomness."""
    base = choose_base(width, start=start, taken=taken.__contains__)
    assert FIRST_BASE <= base < END_BASE
    assert not taken & set(range(base, base + width))


@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from(["-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----", "AAAA", "\n"]))
    .map("".join)
    .map(str.encode)
)
def test_what_is_no_certificate_is_a_trust_error(content: bytes) -> None:
    """No bytes crash the reader, and none of these are a store."""
    with pytest.raises(TrustError):
        certificates(content, "F")
