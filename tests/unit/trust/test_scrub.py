from __future__ import annotations

import base64
import hashlib
from urllib.parse import quote, quote_plus

import pytest

from codingagents.trust.events import escape_bytes
from codingagents.trust.scrub import MAX_ARG, MAX_ARGS, MAX_ARGV, Scrubber
from codingagents.trust.vocabulary import Secret

TOKEN = "ghp_x+/?Zz09~secret"
RAW = TOKEN.encode()
SCRUBBER = Scrubber({"TOKEN": Secret(TOKEN)})


@pytest.mark.parametrize(
    "spelled",
    [
        TOKEN,
        quote(TOKEN, safe=""),
        quote(TOKEN),
        quote_plus(TOKEN),
        quote(TOKEN, safe="").replace("%2B", "%2b").replace("%2F", "%2f").replace("%3F", "%3f"),
    ],
)
def test_a_secret_is_found_as_it_is_and_url_quoted(spelled: str) -> None:
    assert SCRUBBER.scrub_text(f"https://h/?token={spelled}&x") == "https://h/?token=[secret TOKEN]&x"


@pytest.mark.parametrize("before", [b"", b"u", b"us", b"user:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_secret_is_found_in_base64_at_every_alignment(before: bytes, encode: object) -> None:
    assert callable(encode)
    spelled = encode(before + RAW + b":more")
    scrubbed = SCRUBBER.scrub_bytes(b"Basic " + spelled)
    assert b"[secret TOKEN]" in scrubbed
    # At most the characters that the secret shares with its neighbours are left.
    left = scrubbed.removeprefix(b"Basic ").replace(b"[secret TOKEN]", b"")
    assert len(left) <= len(encode(before)) + len(encode(b":more")) + 2


def test_what_holds_no_secret_is_left_alone() -> None:
    assert SCRUBBER.scrub_bytes(b"\xffplain\0bytes") == b"\xffplain\0bytes"
    assert Scrubber({}).scrub_text("a \udcff") == "a \udcff"


def test_overlapping_secrets_leave_nothing_of_either() -> None:
    scrubber = Scrubber({"A": Secret("alphabet"), "B": Secret("betamax"), "C": Secret("hab")})
    assert scrubber.scrub_text("x alphabetamax y alphabet z") == "x [secret A,B] y [secret A] z"


def test_a_secret_that_overlaps_itself_is_replaced_whole() -> None:
    assert Scrubber({"P": Secret("abab")}).scrub_text("xababababy") == "x[secret P]y"


def test_a_very_short_secret_is_replaced_only_where_it_stands_alone() -> None:
    scrubber = Scrubber({"PIN": Secret("42")})
    assert scrubber.scrub_argv([b"--pin=42", b"42", b"4242", b"a42"]).args == [
        "--pin=[secret PIN]",
        "[secret PIN]",
        "4242",
        "a42",
    ]


def test_a_secret_is_found_in_text_that_is_already_escaped() -> None:
    value = "back\\slash"
    assert Scrubber({"S": Secret(value)}).scrub_text(escape_bytes(b"\xff" + value.encode())) == "\\xff[secret S]"


def test_argv_is_recorded_whole_where_it_is_small() -> None:
    argv = [b"/bin/echo", b"", "é".encode(), b"\xff\x1b"]
    scrubbed = SCRUBBER.scrub_argv(argv)
    assert scrubbed.args == ["/bin/echo", "", "é", "\\xff\x1b"]
    assert scrubbed.total_bytes == len(b"\0".join(argv))
    assert scrubbed.sha256 == hashlib.sha256(b"\0".join(argv)).hexdigest()
    assert not scrubbed.truncated


def test_an_empty_argv_has_no_arguments() -> None:
    assert SCRUBBER.scrub_argv([]).args == []
    assert SCRUBBER.scrub_argv([b""]).args == [""]


def test_the_hash_is_of_what_was_scrubbed_and_no_oracle_for_the_secret() -> None:
    assert SCRUBBER.scrub_argv([b"x", RAW]).sha256 == hashlib.sha256(b"x\0[secret TOKEN]").hexdigest()


@pytest.mark.parametrize(
    ("argv", "sizes", "truncated"),
    [
        ([b"x" * MAX_ARG], [MAX_ARG], False),
        ([b"x" * (MAX_ARG + 1), b"y"], [MAX_ARG, 1], True),
        ([b"x"] * MAX_ARGS, [1] * MAX_ARGS, False),
        ([b"x"] * (MAX_ARGS + 1), [1] * MAX_ARGS, True),
        ([b"x" * MAX_ARG] * (MAX_ARGV // MAX_ARG), [MAX_ARG] * (MAX_ARGV // MAX_ARG), False),
        ([b"x" * MAX_ARG] * (MAX_ARGV // MAX_ARG) + [b"y"], [MAX_ARG] * (MAX_ARGV // MAX_ARG) + [0], True),
    ],
)
def test_arguments_are_capped_one_by_one_and_together(argv: list[bytes], sizes: list[int], truncated: bool) -> None:
    scrubbed = SCRUBBER.scrub_argv(argv)
    assert [len(arg) for arg in scrubbed.args] == sizes
    assert scrubbed.truncated is truncated
    assert scrubbed.total_bytes == len(b"\0".join(argv))


@pytest.mark.parametrize("shift", range(len(RAW) + 1))
def test_a_secret_that_straddles_the_cap_leaves_no_beginning(shift: int) -> None:
    [arg] = SCRUBBER.scrub_argv([b"x" * (MAX_ARG - shift) + RAW]).args
    assert "g" not in arg


@pytest.mark.parametrize("cut", range(1, len(RAW) + 1))
def test_a_secret_that_the_reader_cut_leaves_no_beginning(cut: int) -> None:
    scrubbed = SCRUBBER.scrub_argv([b"run", b"--token=" + RAW[:cut]], truncated=True)
    assert scrubbed.args == ["run", "--token=[secret TOKEN]"]
    assert (scrubbed.truncated, scrubbed.total_bytes) == (True, 0)


def test_a_cut_that_cuts_no_secret_is_only_marked() -> None:
    scrubbed = SCRUBBER.scrub_argv([b"gh", b"other"], truncated=True)
    assert (scrubbed.args, scrubbed.truncated) == (["gh", "other"], True)


def test_values_that_are_learnt_later_are_secrets_beside_the_former_ones() -> None:
    """What was a secret stays one: an old token in a log is no better for having been renewed."""
    scrubber = Scrubber({"TOKEN": Secret("old-value"), "PIN": Secret("123")})
    scrubber.learn({"TOKEN": Secret("new-value"), "PIN": Secret("456")})
    scrubber.learn({})
    text = scrubber.scrub_text("old-value new-value 123 456 789")
    assert text == "[secret TOKEN] [secret TOKEN] [secret PIN] [secret PIN] 789"
