"""ACLs as bytes and values: round trips, arbitrary bytes, and who may do more or less after a change."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

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

AGENT, TASK, GROUP_ID = 52000, 52001, 52002
SESSION = (AGENT, TASK, GROUP_ID)

perms = st.integers(0, 7)
strangers = st.dictionaries(st.integers(0, 2000), perms, max_size=4)


@st.composite
def acls(draw: st.DrawFn) -> Acl:
    users, groups = draw(strangers), draw(strangers)
    entries = [
        Entry(USER_OBJ, NO_ID, draw(perms)),
        Entry(GROUP_OBJ, NO_ID, draw(perms)),
        Entry(OTHER, NO_ID, draw(perms)),
    ]
    entries += [Entry(USER, uid, perm) for uid, perm in users.items()]
    entries += [Entry(GROUP, gid, perm) for gid, perm in groups.items()]
    mask = draw(perms)
    if users or groups or mask % 2:  # so that there are lists with a mask and nobody named, and without one
        entries.append(Entry(MASK, NO_ID, mask))
    return tuple(sorted(entries))


def effective(acl: Acl) -> dict[tuple[int, int], int]:
    mask = next((entry.perm for entry in acl if entry.tag == MASK), 7)
    return {
        entry[:2]: entry.perm & (mask if entry.tag in (USER, GROUP_OBJ, GROUP) else 7)
        for entry in acl
        if entry.tag != MASK
    }


@given(acls())
def test_bytes_and_values_are_one(acl: Acl) -> None:
    assert parse(to_bytes(acl)) == acl


@given(
    st.binary(max_size=200)
    | acls()
    .map(to_bytes)
    .flatmap(
        lambda data: st.integers(0, len(data) - 1).flatmap(
            lambda place: st.integers(0, 255).map(lambda byte: data[:place] + bytes([byte]) + data[place + 1 :])
        )
    )
)
def test_any_bytes_are_a_list_or_refused(data: bytes) -> None:
    """What is accepted is written back as it came."""
    try:
        acl = parse(data)
    except WireError:
        return
    assert to_bytes(acl) == data


@given(acls())
def test_roles_get_the_owners_rights_and_nobody_else_gets_more(acl: Acl) -> None:
    before, after = effective(acl), effective(granted(acl, [AGENT, TASK], [GROUP_ID]))
    roles = {(USER, AGENT), (USER, TASK), (GROUP, GROUP_ID)}
    assert {after.pop(role) for role in roles} == {before[USER_OBJ, NO_ID]}
    assert after == before
    assert parse(to_bytes(granted(acl, [AGENT, TASK], [GROUP_ID])))


@given(acls())
def test_what_was_granted_is_taken_back(acl: Acl) -> None:
    """What remains lets everybody do what they could; the very same bytes come back from the record."""
    given_to = granted(acl, [AGENT, TASK], [GROUP_ID])
    assert names(given_to, SESSION)
    left = without(given_to, SESSION)
    assert not names(left, SESSION)
    assert effective(left) == effective(acl)
    assert without(acl, SESSION) is acl


@given(st.none() | acls(), acls())
def test_a_default_is_as_the_directory_or_as_it_was(default: Acl | None, access: Acl) -> None:
    made = default_granted(default, access, [AGENT, TASK, 1000], [GROUP_ID])
    parse(to_bytes(made))
    after = effective(made)
    base = effective(default or access)
    assert all(after[tag, NO_ID] == base[tag, NO_ID] for tag in (USER_OBJ, GROUP_OBJ, OTHER))
    left = default_without(made, {*SESSION, 1000})
    if default is None:
        assert left is None
    elif left is not None:
        assert effective(left) == {key: perm for key, perm in base.items() if key not in ((USER, 1000), (GROUP, 1000))}


@given(st.integers(0, 0o7777))
def test_a_mode_is_a_list(mode: int) -> None:
    assert [entry.perm for entry in of_mode(mode)] == [mode >> 6 & 7, mode >> 3 & 7, mode & 7]
