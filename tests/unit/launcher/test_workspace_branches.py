"""Which branches of a hostile clone are taken, under which names: by hand-made lists, no git."""

from __future__ import annotations

import pytest

from codingagents.launcher.workspace_branches import (
    MAX_BRANCHES,
    MAX_NAME_BYTES,
    Refs,
    closing_sentence,
    creations,
    is_branch_name,
    new_branches,
    parse_refs,
    wanted_objects,
)
from codingagents.trust.errors import ProcessError

OLD, NEW, OTHER = "0" * 40, "1" * 40, "2" * 40


def refs(head: str | None = OLD, **branches: str) -> Refs:
    return Refs(branches=branches, head=head, objects=frozenset())


def test_what_git_lists_is_read() -> None:
    shown = f"{OLD} HEAD\n{NEW} refs/heads/feature/x\n{OTHER} refs/remotes/origin/main\n{'a' * 64} refs/tags/v1\n"
    found = parse_refs(shown.encode())
    assert (found.head, found.branches) == (OLD, {"feature/x": NEW})
    assert found.objects == {OLD, NEW, OTHER, "a" * 64}
    assert parse_refs(b"") == Refs(branches={}, head=None, objects=frozenset())


@pytest.mark.parametrize(
    "shown", [b"HEAD\n", b"\n", b"--all refs/heads/x\n", b"\xff refs/heads/x\n", b"0 refs/heads/x\n"]
)
def test_what_git_does_not_list_is_refused(shown: bytes) -> None:
    with pytest.raises(ProcessError, match="something else than references"):
        parse_refs(shown)


@pytest.mark.parametrize(
    ("found", "new"),
    [
        (refs(main=OLD), {}),
        (refs(main=NEW, old=OLD), {"main": NEW}),
        (refs(NEW, main=NEW), {"main": NEW}),
        (refs(NEW, main=OLD), {"HEAD": NEW}),
        (refs(NEW, main=OTHER, HEAD=OTHER), {"HEAD": OTHER, "main": OTHER}),
        (refs(None, main=NEW), {"main": NEW}),
    ],
)
def test_what_was_not_known_is_new(found: Refs, new: dict[str, str]) -> None:
    assert new_branches(found, frozenset({OLD})) == new


def test_too_many_branches_are_refused() -> None:
    with pytest.raises(ProcessError, match="more than 1000 branches"):
        new_branches(refs(**{f"b{n}": NEW for n in range(MAX_BRANCHES + 1)}), frozenset())
    assert len(new_branches(refs(**{f"b{n}": NEW for n in range(MAX_BRANCHES)}), frozenset({OLD}))) == MAX_BRANCHES


def test_one_name_that_no_branch_has_refuses_all() -> None:
    with pytest.raises(ProcessError, match=r"a branch of the name '\.\./main'"):
        new_branches(refs(**{"fine": NEW, "../main": NEW}), frozenset())


@pytest.mark.parametrize("name", ["main", "feature/x", "a.b", "ä", "a-b", "HEAD", "x" * MAX_NAME_BYTES, "a@b", "lock"])
def test_names_of_branches(name: str) -> None:
    assert is_branch_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "@", "-x", "a/-x", "--upload-pack=x", ".a", "a/.b", "a..b", "../a", "a/../b", "a.", "a./b", "a.lock"),
        *("a.lock/b", "/a", "a/", "a//b", "a b", "a\nb", "a\x00b", "a\x7fb", "a~b", "a^b", "a:b", "a?b", "a*b"),
        *("a[b", "a\\b", "a@{b", "x" * (MAX_NAME_BYTES + 1), "\udcff"),
    ],
)
def test_names_that_no_branch_has(name: str) -> None:
    assert not is_branch_name(name)


def test_what_git_is_given() -> None:
    assert wanted_objects({"main": NEW}, frozenset({OTHER, OLD})) == f"{NEW}\n^{OLD}\n^{OTHER}\n".encode()
    made = creations({"a/b": NEW, "c": OTHER}, "S")
    assert made.decode() == (
        f"create refs/heads/coding-agents/S/a/b {NEW}\ncreate refs/heads/coding-agents/S/c {OTHER}\n"
    )


def test_what_is_said_at_the_end() -> None:
    assert closing_sentence("/p", "S", {"main": NEW}) == (
        "what the session committed is in /p, branch coding-agents/S/main; look at it with: "
        "git log -p HEAD..coding-agents/S/main"
    )
    assert "branches coding-agents/S/a, coding-agents/S/b, coding-agents/S/c and 1 more; look" in closing_sentence(
        "/p", "S", dict.fromkeys("abcd", NEW)
    )
