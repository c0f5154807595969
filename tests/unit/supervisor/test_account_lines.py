"""The lines of a session's accounts in files of every state; tests/property has what holds for all of them."""

import pytest

from codingagents.supervisor.account_lines import Entry, add, conflict, missing, remove, shell_of

ENTRY = Entry("agentcli", 52000, b"agentcli:*:52000:")
OTHER = Entry("agentuser", 52001, b"agentuser:*:52001:")
BOTH = (ENTRY, OTHER)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b"agentcli:*:52000:\n"),
        (b"root:x:0:\n", b"root:x:0:\nagentcli:*:52000:\n"),
        (b"root:x:0:", b"root:x:0:\nagentcli:*:52000:"),  # the last line's end is as it was
        (b"root:x:0:\n+::\nlast:x:1:\n", b"root:x:0:\nagentcli:*:52000:\n+::\nlast:x:1:\n"),  # NIS, from there on
        (b"-bad\n", b"agentcli:*:52000:\n-bad\n"),
    ],
)
def test_a_line_comes_at_the_end_but_before_nis(before: bytes, after: bytes) -> None:
    data, piece = add(before, [ENTRY])
    assert data == after
    assert remove(data, piece) == before


def test_what_is_there_is_not_put_in_again() -> None:
    data, _ = add(b"root:x:0:\n", [ENTRY])
    assert missing(data, BOTH) == [OTHER]
    assert add(data, [ENTRY]) == (data, b"")
    assert remove(data, b"") == data


def test_lines_that_somebody_moved_apart_are_found_one_by_one() -> None:
    _, piece = add(b"", BOTH)
    assert remove(b"agentcli:*:52000:\nroot:x:0:\nagentuser:*:52001:\n", piece) == b"root:x:0:\n"
    assert remove(b"agentcli:*:52000:changed\n", piece) == b"agentcli:*:52000:changed\n"


def test_names_and_numbers_of_others_are_told() -> None:
    assert conflict(b"agentcli:x:7:\n", BOTH) == "agentcli is another's: it has the ID 7"
    assert conflict(b"node:x:52001:\n", BOTH) == "the ID 52001 is node's"
    assert conflict(b"# agentcli:x:7:\n\nagentcli:*:52000:\n", BOTH) == ""


@pytest.mark.parametrize(
    ("data", "shell"),
    [
        (b"a:x:7:7::/h:/bin/zsh\nb:x:7:7::/h:/bin/sh\n", "/bin/zsh"),  # the first counts, as to getpwuid(3)
        (b"a:x:7:7::/h:\n", ""),
        (b"a:x:70:7::/h:/bin/zsh\n", ""),
        (b"a:x:7:7::/h\n+a:x:7:7::/h:/bin/zsh\n#a:x:7:7::/h:/bin/zsh\n", ""),
        (b"", ""),
    ],
)
def test_the_shell_of_an_account_is_found_by_its_uid(data: bytes, shell: str) -> None:
    assert shell_of(data, 7) == shell
