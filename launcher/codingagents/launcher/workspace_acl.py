"""CORE: POSIX access control lists (acl(5)) as bytes and values, and what a session's roles get in one. Pure.

Reads and sets none: `workspace_rights` does. The bytes are those of the extended attributes `system.posix_acl_access`
and `system.posix_acl_default` (linux/posix_acl_xattr.h): version 2, then 8 bytes for each entry, little endian.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from codingagents.trust.errors import WireError

USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20  # in the order the kernel wants
NO_ID: Final = 0xFFFFFFFF  # of an entry that is not for a named user or group
MAX_BYTES: Final = 65536  # XATTR_SIZE_MAX: no longer one exists

_VERSION: Final = 2
_HEADER: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_NAMED: Final = (USER, GROUP)
_GROUP_CLASS: Final = (USER, GROUP_OBJ, GROUP)  # what the mask bounds
_ALL: Final = 0o7


class Entry(NamedTuple):
    """Who (`tag`, and `id` of a named user or group) may do what (`perm`, three bits)."""

    tag: int
    id: int
    perm: int


Acl = tuple[Entry, ...]  # sorted; always with USER_OBJ, GROUP_OBJ and OTHER, and with MASK where anybody is named


def parse(data: bytes) -> Acl:
    """Return the list that the attribute's bytes hold; `WireError` for what the kernel would not hold either."""
    if not _HEADER.size < len(data) <= MAX_BYTES or (len(data) - _HEADER.size) % _ENTRY.size:
        raise WireError(f"an ACL cannot have {len(data)} bytes")
    if _HEADER.unpack_from(data)[0] != _VERSION:
        raise WireError("an ACL must be of version 2")
    acl = tuple(Entry(tag, number, perm) for tag, perm, number in _ENTRY.iter_unpack(data[_HEADER.size :]))
    _check(acl)
    return acl


def to_bytes(acl: Acl) -> bytes:
    """Return the attribute's bytes."""
    return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(entry.tag, entry.perm, entry.id) for entry in acl)


def of_mode(mode: int) -> Acl:
    """Return what a file has that has no ACL: its nine permission bits."""
    return (
        Entry(USER_OBJ, NO_ID, mode >> 6 & _ALL),
        Entry(GROUP_OBJ, NO_ID, mode >> 3 & _ALL),
        Entry(OTHER, NO_ID, mode & _ALL),
    )


def granted(acl: Acl, users: Collection[int], groups: Collection[int]) -> Acl:
    """Return `acl` with an entry for each of `users` and `groups`: they may do what the owner may.

    The mask is computed as setfacl(1) does, from all that it bounds; but what the former mask kept from others, their
    entries lose, so that nobody else may do more than before.
    """
    rights = next(entry.perm for entry in acl if entry.tag == USER_OBJ)
    added = [Entry(USER, uid, rights) for uid in sorted(users)] + [Entry(GROUP, gid, rights) for gid in sorted(groups)]
    theirs = {entry[:2] for entry in added}
    return _masked([*(entry for entry in _unmasked(acl) if entry[:2] not in theirs), *added])


def default_granted(default: Acl | None, access: Acl, users: Collection[int], groups: Collection[int]) -> Acl:
    """Return the default ACL of a directory whose default and access ACLs are given, with entries as in `granted`.

    Where there is none, what is made there keeps the rights of the directory itself, as with setfacl(1).
    """
    base = default or tuple(entry for entry in _unmasked(access) if entry.tag not in _NAMED)
    return granted(base, users, groups)


def without(acl: Acl, ids: Collection[int]) -> Acl:
    """Return `acl` without entries for any of `ids`; `acl` itself where there is none, with its mask as it is.

    A mask that is left with nobody named goes, and what it kept from the group stays kept.
    """
    if not names(acl, ids):
        return acl
    return _masked([entry for entry in _unmasked(acl) if entry.tag not in _NAMED or entry.id not in ids])


def default_without(default: Acl, ids: Collection[int]) -> Acl | None:
    """Return a default ACL likewise; None where nobody named is left, which is then the session's own."""
    left = without(default, ids)
    return left if left is default or any(entry.tag in _NAMED for entry in left) else None


def names(acl: Acl, ids: Collection[int]) -> bool:
    """Return whether there is an entry for any of `ids`."""
    return any(entry.tag in _NAMED and entry.id in ids for entry in acl)


def _unmasked(acl: Acl) -> list[Entry]:
    """Return the entries but for the mask, each with what the mask let through."""
    mask = next((entry.perm for entry in acl if entry.tag == MASK), _ALL)
    bounded = (entry._replace(perm=entry.perm & mask) if entry.tag in _GROUP_CLASS else entry for entry in acl)
    return [entry for entry in bounded if entry.tag != MASK]


def _masked(entries: Iterable[Entry]) -> Acl:
    """Return the list of `entries`, with a mask where it needs one."""
    found = sorted(entries)
    if any(entry.tag in _NAMED for entry in found):
        mask = 0
        for entry in found:
            mask |= entry.perm if entry.tag in _GROUP_CLASS else 0
        found = sorted([*found, Entry(MASK, NO_ID, mask)])
    return tuple(found)


def _check(acl: Acl) -> None:
    keys = [entry[:2] for entry in acl]
    if keys != sorted(set(keys)):
        raise WireError("an ACL's entries must be in order and of different tags or IDs")
    for tag, number, perm in acl:
        if perm > _ALL or (tag in _NAMED) == (number == NO_ID):
            raise WireError("an ACL's entry has more than three bits, or an ID where it must not have one")
    tags = [entry.tag for entry in acl]
    if not {USER_OBJ, GROUP_OBJ, OTHER} <= set(tags) <= {USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER}:
        raise WireError("an ACL must have entries for owner, group and others, and none of an unknown tag")
    if MASK not in tags and any(tag in _NAMED for tag in tags):
        raise WireError("an ACL that names anybody must have a mask")
