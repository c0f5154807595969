"""ACLs by examples: what a session's roles get, what is taken back, and bytes that are none."""

from __future__ import annotations

import struct

import pytest

from codingagents.launcher.workspace_acl import (
    GROUP,
    GROUP_OBJ,
    MASK,
    NO_ID,
    OTHER,
    USER,
    USER_OBJ,
    Acl,
    Entry,
    default_granted,
    default_without,
    granted,
    names,
    of_mode,
    parse,
    to_bytes,
    without,
)
from codingagents.trust.errors import WireError

AGENT, TASK, GROUP_ID, OWNER, OTHER_USER = 52000, 52001, 52002, 1000, 7
IDS = {AGENT, TASK, GROUP_ID}


def shown(acl: Acl | None) -> str:
    """Return the list as getfacl(1) has it, in one line."""
    letters = {USER_OBJ: "u", USER: "u", GROUP_OBJ: "g", GROUP: "g", MASK: "m", OTHER: "o"}
    return " ".join(
        f"{letters[entry.tag]}:{'' if entry.id == NO_ID else entry.id}:{entry.perm:o}" for entry in acl or ()
    )


MASKED = (
    Entry(USER_OBJ, NO_ID, 6),
    Entry(USER, OTHER_USER, 7),
    Entry(GROUP_OBJ, NO_ID, 6),
    Entry(MASK, NO_ID, 4),
    Entry(OTHER, NO_ID, 0),
)


@pytest.mark.parametrize(
    ("acl", "after", "taken_back"),
    [
        (of_mode(0o644), "u::6 u:52000:6 u:52001:6 g::4 g:52002:6 m::6 o::4", "u::6 g::4 o::4"),
        (of_mode(0o600), "u::6 u:52000:6 u:52001:6 g::0 g:52002:6 m::6 o::0", "u::6 g::0 o::0"),
        (of_mode(0o755), "u::7 u:52000:7 u:52001:7 g::5 g:52002:7 m::7 o::5", "u::7 g::5 o::5"),
        (of_mode(0o444), "u::4 u:52000:4 u:52001:4 g::4 g:52002:4 m::4 o::4", "u::4 g::4 o::4"),
        # What the mask kept from another user, who is named, that user does not get by the new mask.
        (MASKED, "u::6 u:7:4 u:52000:6 u:52001:6 g::4 g:52002:6 m::6 o::0", "u::6 u:7:4 g::4 m::4 o::0"),
    ],
)
def test_roles_get_what_the_owner_has(acl: Acl, after: str, taken_back: str) -> None:
    given = granted(acl, [TASK, AGENT], [GROUP_ID])
    assert shown(given) == after
    assert names(given, IDS)
    assert parse(to_bytes(given)) == given
    assert shown(without(given, IDS)) == taken_back
    assert without(acl, IDS) is acl


def test_a_file_that_the_session_closed_stays_closed() -> None:
    """Made with mode 0600 in a directory with entries, its mask is empty; group and others had nothing."""
    made = tuple(
        entry._replace(perm=0) if entry.tag in (MASK, OTHER) else entry
        for entry in granted(of_mode(0o755), [AGENT], [])
    )
    assert shown(without(made, IDS)) == "u::7 g::0 o::0"


def test_a_directory_passes_on_its_own_rights_where_it_had_no_default() -> None:
    access = granted(of_mode(0o750), [OTHER_USER], [])
    made = default_granted(None, access, [AGENT, OWNER], [GROUP_ID])
    assert shown(made) == "u::7 u:1000:7 u:52000:7 g::5 g:52002:7 m::7 o::0"
    assert default_without(made, {*IDS, OWNER}) is None


def test_a_default_that_was_there_is_kept() -> None:
    default = granted(of_mode(0o740), [OTHER_USER], [])
    made = default_granted(default, of_mode(0o777), [AGENT], [])
    assert shown(made) == "u::7 u:7:7 u:52000:7 g::4 m::7 o::0"
    assert default_without(made, IDS) == default
    minimal = of_mode(0o700)
    assert default_without(minimal, IDS) is minimal


OBJ = [(USER_OBJ, 7, NO_ID), (GROUP_OBJ, 5, NO_ID), (OTHER, 5, NO_ID)]


@pytest.mark.parametrize(
    ("version", "entries", "why"),
    [
        (1, OBJ, "version 2"),
        (2, [], "cannot have 4 bytes"),
        (2, OBJ[:2], "entries for owner, group and others"),
        (2, [*OBJ[:2], (OTHER, 5, 7)], "an ID where it must not"),
        (2, [(USER_OBJ, 8, NO_ID), *OBJ[1:]], "more than three bits"),
        (2, [OBJ[0], *OBJ], "in order"),
        (2, [OBJ[1], OBJ[0], OBJ[2]], "in order"),
        (2, [OBJ[0], (USER, 7, 5), *OBJ[1:]], "must have a mask"),
        (2, [OBJ[0], (USER, 7, NO_ID), OBJ[1], (MASK, 7, NO_ID), OBJ[2]], "an ID where it must not"),
        (2, [*OBJ, (0x40, 7, NO_ID)], "unknown tag"),
    ],
)
def test_malformed_bytes_are_refused(version: int, entries: list[tuple[int, int, int]], why: str) -> None:
    data = struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    with pytest.raises(WireError, match=why):
        parse(data)


def test_too_many_bytes_and_half_an_entry_are_refused() -> None:
    for data in (b"", b"\2\0\0", to_bytes(of_mode(0o755))[:-1], bytes(65540)):
        with pytest.raises(WireError, match="cannot have"):
            parse(data)
