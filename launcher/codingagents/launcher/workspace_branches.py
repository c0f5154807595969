"""CORE: which branches of a session's clone go to its owner's repository, under which names. Pure.

What git said of the clone is a stranger's: the clone has been the agent's. Nothing here runs git or reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from codingagents.trust.errors import ProcessError

MAX_BRANCHES: Final = 1000
MAX_NAME_BYTES: Final = 200

_HEADS: Final = "refs/heads/"
_OBJECT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
# git-check-ref-format(1), and no part of a name that a command could take for an option.
_REFUSED: Final = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|(?:^|/)[.-]|(?:\.lock|\.)(?:/|$)|^/|/$|^@?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refs:
    """What a repository's references lead to: its branches by name, HEAD's commit, and everything."""

    branches: Mapping[str, str]
    head: str | None
    objects: frozenset[str]


def parse_refs(shown: bytes) -> Refs:
    """Return what `git show-ref --head` printed. Raises `ProcessError` for what git does not print."""
    branches: dict[str, str] = {}
    head: str | None = None
    objects: set[str] = set()
    for line in shown.decode("utf-8", "surrogateescape").split("\n")[:-1]:
        found, _, name = line.partition(" ")
        if not _OBJECT.fullmatch(found):
            raise ProcessError("git listed something else than references")
        objects.add(found)
        if name == "HEAD":
            head = found
        elif name.startswith(_HEADS):
            branches[name.removeprefix(_HEADS)] = found
    return Refs(branches=branches, head=head, objects=frozenset(objects))


def new_branches(refs: Refs, known: frozenset[str]) -> dict[str, str]:
    """Return the branches that lead elsewhere than anything `known` did, by name, and "HEAD" where it alone does.

    Raises `ProcessError` where a name is none that git lets a branch have, or there are too many.
    """
    if len(refs.branches) > MAX_BRANCHES:
        raise ProcessError(f"it has more than {MAX_BRANCHES} branches")
    new = {name: found for name, found in sorted(refs.branches.items()) if found not in known}
    if refs.head is not None and refs.head not in known and refs.head not in new.values():
        new.setdefault("HEAD", refs.head)  # commits on no branch
    for name in new:
        if not is_branch_name(name):
            raise ProcessError(f"it has a branch of the name {name!r}")
    return new


def is_branch_name(name: str) -> bool:
    """Return whether a branch may have that name, as git-check-ref-format(1) has it."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return False
    return size <= MAX_NAME_BYTES and not _REFUSED.search(name)


def prefix(session: str) -> str:
    """Return what the names of the session's branches begin with in its owner's repository."""
    return f"coding-agents/{session}/"


def wanted_objects(new: Mapping[str, str], known: frozenset[str]) -> bytes:
    """Return git-pack-objects(1)'s input, --revs: what `new` leads to without what `known` does."""
    return "".join([*(f"{each}\n" for each in new.values()), *(f"^{each}\n" for each in sorted(known))]).encode()


def creations(new: Mapping[str, str], session: str) -> bytes:
    """Return git-update-ref(1)'s input, --stdin: all of `new` below the session's prefix, or none."""
    return "".join(f"create {_HEADS}{prefix(session)}{name} {found}\n" for name, found in new.items()).encode()


def closing_sentence(top: str, session: str, new: Mapping[str, str]) -> str:
    """Return what to say of the branches that were taken over into the repository at `top`."""
    named = [prefix(session) + name for name in new]
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    noun = "branch" if len(named) == 1 else "branches"
    return (
        f"what the session committed is in {top}, {noun} {', '.join(named[:3])}{more}; look at it with: "
        f"git log -p HEAD..{named[0]}"
    )
