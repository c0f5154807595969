"""What counts as the start of a fingerprint: sixteen of its digits or more, however they are written."""

from __future__ import annotations

import hashlib

import pytest

from codingagents.launcher.vouching import DIGITS, fingerprint_option, is_start_of
from codingagents.rewrite.certificates import describe
from codingagents.trust.errors import UsageError
from pki import make_root

ROOT = make_root("Root")
SHA256 = hashlib.sha256(ROOT.der).hexdigest()
GROUPS = describe(ROOT.der).fingerprint
COLONS = ":".join(SHA256[at : at + 2] for at in range(0, 64, 2)).upper()
OTHER_DIGIT = "1" if SHA256[DIGITS - 1] == "0" else "0"


def test_the_digits_are_sixty_four_bits() -> None:
    """What somebody on the way could make a certificate for is too few."""
    assert DIGITS * 4 == 64


def test_it_is_shown_in_groups_that_are_one_word() -> None:
    """Sixteen groups of four, of which a person types four; `--fingerprint` takes it as it is shown."""
    assert [len(group) for group in GROUPS.split(":")] == [4] * 16
    assert fingerprint_option(GROUPS) == SHA256


@pytest.mark.parametrize(
    "typed",
    [SHA256[:16], SHA256[:16].upper(), GROUPS[:19], GROUPS.replace(":", " ")[:19], COLONS[:23], COLONS, GROUPS, SHA256]
    + [SHA256[:count] for count in (17, 40, 63)],
)
def test_the_start_counts_however_it_is_written(typed: str) -> None:
    """As it is shown, as openssl writes it, with spaces, or bare; and any longer one, up to all of it."""
    assert is_start_of(SHA256, typed)
    assert is_start_of(SHA256, f" {typed} \n")


@pytest.mark.parametrize(
    "typed",
    ["", "y", "yes", "Root", SHA256[:8], SHA256[:15], COLONS[:22], SHA256[:15] + OTHER_DIGIT, SHA256 + "0", SHA256[1:]],
)
def test_nothing_else_does(typed: str) -> None:
    """Too few, other ones, too many, and what is typed quickly."""
    assert not is_start_of(SHA256, typed)


def test_what_is_not_counted_counts_for_no_digit() -> None:
    """Sixteen spaces or colons are none."""
    assert not any(is_start_of(SHA256, typed) for typed in (" " * 16, ":" * 16, f"{SHA256[:8]}{':' * 8}"))


@pytest.mark.parametrize("text", ["", "abc", SHA256[:16], SHA256 + "0", "g" * 64])
def test_a_fingerprint_on_the_command_line_is_whole(text: str) -> None:
    """Nobody has to type it, so no start of it counts."""
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        fingerprint_option(text)
