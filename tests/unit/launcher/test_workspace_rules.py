"""What of a tree is copied and with which modes: by hand-made stat results, no file."""

from __future__ import annotations

import os
import stat

import pytest

from codingagents.launcher.workspace_rules import (
    MAX_DEPTH,
    git_environment,
    place_name,
    returned_mode,
    shared_mode,
    why_left_out,
    without_privilege,
)

OWNER, STRANGER, DEVICE = 1000, 0, 7


def found(mode: int, uid: int = OWNER, device: int = DEVICE) -> os.stat_result:
    return os.stat_result((mode, 1, device, 1, uid, uid, 0, 0, 0, 0))


ROOT = found(stat.S_IFDIR | 0o755)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (found(stat.S_IFREG | 0o600), ""),
        (found(stat.S_IFDIR | 0o700), ""),
        (found(stat.S_IFLNK | 0o777, STRANGER), ""),
        (found(stat.S_IFREG | 0o644, STRANGER), ""),
        (found(stat.S_IFDIR | 0o755, STRANGER), ""),
        (found(stat.S_IFREG | 0o640, STRANGER), "another user's, and closed to others"),
        (found(stat.S_IFDIR | 0o754, STRANGER), "another user's, and closed to others"),
        (found(stat.S_IFIFO | 0o644), "neither file, directory nor symbolic link"),
        (found(stat.S_IFSOCK | 0o644), "neither file, directory nor symbolic link"),
        (found(stat.S_IFBLK | 0o644), "neither file, directory nor symbolic link"),
        (found(stat.S_IFCHR | 0o644), "neither file, directory nor symbolic link"),
        (found(stat.S_IFREG | 0o644, device=8), "on another file system"),
    ],
)
def test_what_is_left_out(entry: os.stat_result, why: str) -> None:
    assert why_left_out(entry, ROOT, 1) == why


def test_only_directories_can_be_too_deep() -> None:
    assert why_left_out(found(stat.S_IFREG | 0o644), ROOT, MAX_DEPTH) == ""
    assert why_left_out(found(stat.S_IFDIR | 0o755), ROOT, MAX_DEPTH - 1) == ""
    assert why_left_out(found(stat.S_IFDIR | 0o755), ROOT, MAX_DEPTH) == "more than 256 directories deep"


@pytest.mark.parametrize(
    ("mode", "shared"),
    [
        (stat.S_IFREG | 0o600, 0o660),
        (stat.S_IFREG | 0o400, 0o660),
        (stat.S_IFREG | 0o4755, 0o775),
        (stat.S_IFREG | 0o644, 0o664),
        (stat.S_IFDIR | 0o700, 0o2770),
        (stat.S_IFDIR | 0o1777, 0o2777),
        (stat.S_IFDIR | 0o500, 0o2770),
    ],
)
def test_the_group_works_with_what_is_shared(mode: int, shared: int) -> None:
    assert shared_mode(mode) == shared


@pytest.mark.parametrize(
    ("mode", "root", "returned"),
    [
        (stat.S_IFDIR | 0o2775, 0o755, 0o755),
        (stat.S_IFDIR | 0o2775, 0o775, 0o775),
        (stat.S_IFREG | 0o6775, 0o755, 0o755),
        (stat.S_IFREG | 0o664, 0o755, 0o644),
    ],
)
def test_what_is_returned_has_no_privilege_and_no_more_writers_than_the_tree(
    mode: int, root: int, returned: int
) -> None:
    assert returned_mode(mode, root) == returned


def test_a_file_that_changes_hands_has_no_privilege() -> None:
    assert without_privilege(stat.S_IFREG | 0o6755) == 0o755


@pytest.mark.parametrize(
    ("workspace", "name"),
    [
        ("/src/my-project.1", "my-project.1"),
        ("/src/..x", "x"),
        ("/src/-rf", "rf"),
        ("/", "workspace"),
        ("/a b\n", "a_b_"),
    ],
)
def test_a_place_has_a_plain_name(workspace: str, name: str) -> None:
    assert place_name(workspace) == name


def test_git_is_told_by_the_environment() -> None:
    assert git_environment("/w") == {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "/w",
    }
