"""What is written for task shells, and the interpreters that they cannot be written for; test_task_client runs them."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from codingagents.supervisor import shells
from codingagents.trust.errors import ProcessError
from task_stand_in import install


def test_each_shell_of_the_machine_has_a_script_that_names_it(tmp_path: Path) -> None:
    """Others can read and execute them, and only their owner can write."""
    install(tmp_path, 4711)
    for name, shell in shells.standing_for().items():
        script = tmp_path / "shells" / name
        assert script.stat().st_mode & 0o777 == 0o755
        assert f"stand_for('{shell}'" in script.read_text()
        assert "4711" in script.read_text()
    assert {"bash", "sh"} <= shells.standing_for().keys()


def test_what_is_loaded_is_loaded_whatever_became_of_its_source(tmp_path: Path) -> None:
    install(tmp_path, os.getuid())
    modules = sorted((tmp_path / "client").rglob("*.pyc"))
    assert [path.stem for path in modules] == ["task_client", "task_relay", "task_wire"]
    for path in modules:
        assert path.read_bytes()[:8] == importlib.util.MAGIC_NUMBER + b"\1\0\0\0"
        assert path.stat().st_size < 1 << 17  # which the script reads at once
        assert path.stat().st_mode & 0o777 == 0o644


def test_the_umask_does_not_close_them(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        (tmp_path / "below").mkdir(mode=0o755)
        bash = install(tmp_path / "below", os.getuid())
        closed = [path for path in (tmp_path / "below" / "client").rglob("*") if not path.stat().st_mode & 0o004]
    finally:
        os.umask(before)
    assert os.stat(bash).st_mode & 0o777 == 0o755
    assert closed == []


@pytest.mark.parametrize(
    ("path", "why"),
    [("x" * 130, "too long"), ("a python", "a space in it"), ("closed/python", "closed is closed to other users")],
)
def test_an_interpreter_that_no_script_can_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, why: str
) -> None:
    tmp_path.chmod(0o755)
    python = tmp_path / path
    python.parent.mkdir(exist_ok=True)
    python.touch(0o755)
    python.parent.chmod(0o700 if "closed" in path else 0o755)
    monkeypatch.setattr(shells, "interpreter", lambda: str(python))
    with pytest.raises(ProcessError, match=why):
        install(tmp_path, os.getuid())
