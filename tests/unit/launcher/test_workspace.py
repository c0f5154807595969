"""Which directory is the agent's, and who can enter it; modes are real, identities are numbers that nobody has."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from codingagents.launcher.workspace import check_reachable, choose_workspace
from codingagents.rewrite.parse import parse_config
from codingagents.rewrite.specs import UidPlan
from codingagents.trust.errors import UsageError

STRANGER = UidPlan(agent=58801, task=58802, workspace_gid=58803, servers={})


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an open directory; pytest's own are closed to others."""
    place = tmp_path_factory.mktemp("workspace")
    for directory in (place, place.parent, place.parent.parent):
        directory.chmod(0o755)
    return place


def test_the_command_line_wins_over_the_configuration_over_the_current_directory(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (place / name).mkdir()
    monkeypatch.chdir(place / "c")
    named = parse_config('[session]\nworkspace = "b"\n', str(place / "config.toml"))
    assert choose_workspace(str(place / "a"), named) == str(place / "a")
    assert choose_workspace(None, named) == str(place / "b")
    assert choose_workspace(None, parse_config("", str(place / "config.toml"))) == str(place / "c")


def test_an_open_path_can_be_entered(place: Path) -> None:
    check_reachable(str(place), STRANGER)


def test_a_closed_directory_on_the_way_is_named(place: Path) -> None:
    inner = place / "closed" / "project"
    inner.mkdir(parents=True)
    (place / "closed").chmod(0o700)
    with pytest.raises(UsageError) as caught:
        check_reachable(str(inner), STRANGER)
    assert str(caught.value) == (
        f"the agent's user cannot enter {place}/closed, and so not the workspace {inner}; "
        "give it a copy that others can reach, with --workspace"
    )


@pytest.mark.parametrize(("mode", "enters"), [(0o100, True), (0o011, False)])
def test_an_owner_is_judged_by_the_owners_bits(place: Path, mode: int, enters: bool) -> None:
    """Whoever owns a directory does not get what others get."""
    (place / "own").mkdir()
    (place / "own").chmod(mode)
    owner = UidPlan(agent=os.getuid(), task=58802, workspace_gid=58803, servers={})
    if enters:
        check_reachable(str(place / "own"), owner)
    else:
        with pytest.raises(UsageError, match="cannot enter"):
            check_reachable(str(place / "own"), owner)


def test_the_workspace_group_is_judged_by_the_groups_bits(place: Path) -> None:
    (place / "shared").mkdir()
    (place / "shared").chmod(0o710)
    check_reachable(str(place / "shared"), UidPlan(agent=58801, task=58802, workspace_gid=os.getgid(), servers={}))
    with pytest.raises(UsageError, match="cannot enter"):
        check_reachable(str(place / "shared"), STRANGER)


def test_a_file_system_without_attributes_is_judged_by_its_modes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As /sys/kernel/debug is, where there is one."""

    def unsupported(_path: str) -> list[str]:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    (place / "closed").mkdir(mode=0o700)
    monkeypatch.setattr(os, "listxattr", unsupported)
    with pytest.raises(UsageError, match="cannot enter"):
        check_reachable(str(place / "closed"), STRANGER)
