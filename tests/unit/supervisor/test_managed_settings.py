"""An administrator's settings file: ours come into it and go, and the rest of it stays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codingagents.rewrite.clients.base import Settings
from codingagents.supervisor.managed_settings import MAX_BYTES, ManagedSettings

BASH = "/run/agent-tasks/shells/bash"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "etc" / "managed-settings.json"


def ours(file: Path) -> Settings:
    return Settings(path=str(file), content={"env": {"SHELL": BASH, "LD_PRELOAD": ""}})


def test_a_file_that_was_not_there_goes_again_with_its_directory(file: Path) -> None:
    managed = ManagedSettings()
    assert managed.put(ours(file))
    assert json.loads(file.read_bytes()) == {"env": {"SHELL": BASH, "LD_PRELOAD": ""}}
    assert file.stat().st_mode & 0o777 == 0o644
    managed.restore()
    assert not file.parent.exists()
    managed.restore()


@pytest.mark.parametrize(
    "text", ['{"env":{"SHELL":"/bin/fish","A":"1"},"permissions":{"deny":["Bash(rm *)"]}}', '{ "env": {} }', "{}"]
)
def test_an_administrators_file_is_merged_with_and_put_back_to_the_byte(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    (file.parent / "other").touch()
    managed = ManagedSettings()
    assert managed.put(ours(file))
    merged, before = json.loads(file.read_bytes()), json.loads(text)
    assert merged == {**before, "env": {**before.get("env", {}), "SHELL": BASH, "LD_PRELOAD": ""}}
    managed.restore()
    assert file.read_text() == text


@pytest.mark.parametrize("text", ["[]", "{", '{"env": 1}', "\xff", "1" * (MAX_BYTES + 1)])
def test_what_cannot_be_merged_with_is_left_alone(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text, "latin-1")
    managed = ManagedSettings()
    assert not managed.put(ours(file))
    managed.restore()
    assert file.read_text("latin-1") == text


def test_what_a_killed_session_left_is_not_taken_for_an_administrators(file: Path) -> None:
    ManagedSettings().put(ours(file))
    managed = ManagedSettings()
    assert managed.put(ours(file))
    managed.restore()
    assert not file.exists()
    file.parent.mkdir()
    file.write_text(f'{{"model": "x", "env": {{"SHELL": "{BASH}", "LD_PRELOAD": "", "A": "1"}}}}')
    assert managed.put(ours(file))
    managed.restore()
    assert json.loads(file.read_bytes()) == {"model": "x", "env": {"A": "1"}}


def test_a_place_that_cannot_be_written_is_said(file: Path) -> None:
    file.parent.write_text("a file where a directory should be")
    assert not ManagedSettings().put(ours(file))


def test_a_link_is_not_followed(file: Path) -> None:
    file.parent.mkdir()
    (file.parent / "else").write_text("{}")
    file.symlink_to("else")
    assert not ManagedSettings().put(ours(file))
    assert (file.parent / "else").read_text() == "{}"
