"""Client files are written whole, with their modes, and nothing planted in the way is followed."""

import os
import pathlib
import stat

import pytest

from codingagents.rewrite.clients.base import ClientFile
from codingagents.rewrite.files import install_client_files
from codingagents.trust.errors import ConfigError

FILES = [ClientFile(path="claude/mcp.json", content=b"{}\n"), ClientFile(path="codex/config.toml", content=b"a = 1\n")]


def mode(path: pathlib.Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_files_and_directories_get_their_modes(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "clients"
    written = install_client_files(str(root), FILES, os.getgid())
    assert written == (f"{root}/claude/mcp.json", f"{root}/codex/config.toml")
    assert (root / "claude/mcp.json").read_bytes() == b"{}\n"
    assert (mode(root), mode(root / "claude"), mode(root / "claude/mcp.json")) == (0o750, 0o1770, 0o640)
    assert sorted(path.name for path in root.rglob("*")) == ["claude", "codex", "config.toml", "mcp.json"]


def test_writing_again_replaces_the_file_as_a_whole(tmp_path: pathlib.Path) -> None:
    root = str(tmp_path / "clients")
    install_client_files(root, FILES, os.getgid())
    with open(f"{root}/claude/mcp.json", "rb") as old:
        install_client_files(root, [ClientFile(path="claude/mcp.json", content=b"new")], os.getgid())
        assert old.read() == b"{}\n"
    assert pathlib.Path(root, "claude/mcp.json").read_bytes() == b"new"


@pytest.mark.parametrize("planted", ["clients", "clients/claude", "clients/claude/mcp.json"])
def test_a_planted_link_is_refused_and_its_target_untouched(tmp_path: pathlib.Path, planted: str) -> None:
    target = tmp_path / "target"
    link = tmp_path / planted
    link.parent.mkdir(parents=True, exist_ok=True)
    if planted.endswith(".json"):
        target.write_text("precious")
    else:
        target.mkdir()
    link.symlink_to(target)
    with pytest.raises(ConfigError, match=f"{link} is .*; remove it"):
        install_client_files(str(tmp_path / "clients"), FILES, os.getgid())
    assert link.is_symlink()
    assert target.read_text() == "precious" if target.is_file() else list(target.iterdir()) == []


def test_a_planted_directory_in_place_of_the_file_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "clients/claude/mcp.json").mkdir(parents=True)
    with pytest.raises(ConfigError, match="remove it"):
        install_client_files(str(tmp_path / "clients"), FILES, os.getgid())


def test_a_failed_write_leaves_nothing_behind(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "clients"
    name = "n" * 240  # valid as a name, too long with the temporary suffix
    with pytest.raises(ConfigError, match=r"cannot write client files below .*: File name too long"):
        install_client_files(str(root), [ClientFile(path=f"claude/{name}", content=b"")], os.getgid())
    assert list((root / "claude").iterdir()) == []


def test_a_missing_parent_is_one_sentence(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write client files below .*: No such file or directory"):
        install_client_files(str(tmp_path / "a/b"), FILES, os.getgid())


@pytest.mark.parametrize("path", ["mcp.json", "a/b/c", "../x", "a/..", "/etc/x"])
def test_a_file_lies_in_one_directory_of_its_own(tmp_path: pathlib.Path, path: str) -> None:
    with pytest.raises(ValueError, match="is not DIRECTORY/NAME"):
        install_client_files(str(tmp_path / "clients"), [ClientFile(path=path, content=b"")], os.getgid())


def test_no_descriptor_is_left_open(tmp_path: pathlib.Path) -> None:
    before = os.listdir("/proc/self/fd")
    (tmp_path / "clients").symlink_to(tmp_path)
    with pytest.raises(ConfigError):
        install_client_files(str(tmp_path / "clients"), FILES, os.getgid())
    install_client_files(str(tmp_path / "other"), FILES, os.getgid())
    assert os.listdir("/proc/self/fd") == before
