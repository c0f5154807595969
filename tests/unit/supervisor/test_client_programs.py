"""What a client's program leads to, as installed: links, start scripts, interpreters, loaders, and who may write."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import msgspec
import pytest

from codingagents.rewrite import places
from codingagents.rewrite.clients.base import Need, Shelling
from codingagents.rewrite.specs import SessionSpec, UidPlan
from codingagents.supervisor import client_programs
from codingagents.supervisor.client_programs import Finder
from codingagents.supervisor.routing import Table

PYTHON = os.path.realpath(sys.executable)
SPEC = SessionSpec(
    session="s-1",
    agent="claude",
    engine="local",
    config_sha256="",
    uids=UidPlan(agent=52001, task=52002, workspace_gid=52003, servers={}),
    remotes=[],
    command=["claude"],
    working_directory="/",
    environment={},
    public_key="",
)


def script(path: Path, line: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{line}\n")
    path.chmod(0o755)
    return path


def finder(where: Path, *, path: str = "bin") -> Finder:
    spec = msgspec.structs.replace(SPEC, working_directory=str(where), environment={"PATH": f"/nowhere:{where / path}"})
    return Finder(spec)


def test_a_command_is_found_by_path_with_its_links_followed(tmp_path: Path) -> None:
    real = script(tmp_path / "lib/claude.js", f"#!{sys.executable} -I")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/claude").symlink_to("../lib/claude.js")
    (found,) = finder(tmp_path).command("claude")
    assert (found.path, found.real, found.interpreters) == (str(tmp_path / "bin/claude"), str(real), (PYTHON,))
    assert found.by_env is None
    assert all("ld" in os.path.basename(loader) for loader in found.loaders)
    assert found.loaders  # Python's


def test_a_relative_command_starts_at_the_working_directory(tmp_path: Path) -> None:
    real = script(tmp_path / "bin/claude", "#!/bin/sh")
    (found,) = finder(tmp_path).command("./bin/claude")
    assert (found.path, found.real) == ("./bin/claude", str(real))


@pytest.mark.parametrize("name", ["claude", "missing", "./bin/claude", "bin"])
def test_what_is_no_program_is_not_found(tmp_path: Path, name: str) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/claude").write_text("#!/bin/sh\n")  # not executable
    assert finder(tmp_path).command(name) == []


def test_what_env_looks_for_in_path_is_found_too(tmp_path: Path) -> None:
    script(tmp_path / "bin/claude", "#!/usr/bin/env node")
    shutil.copy(PYTHON, tmp_path / "bin/node")
    (found,) = finder(tmp_path).command("claude")
    assert found.by_env == ("node", str(tmp_path / "bin/node"))
    assert found.interpreters == (os.path.realpath("/usr/bin/env"),)
    assert found.loaders


@pytest.mark.parametrize(
    "line", ["#!/usr/bin/env -S node x", "#!/usr/bin/env A=1", "#!/usr/bin/env", "#!/usr/bin/env no-such"]
)
def test_other_uses_of_env_are_not_followed(tmp_path: Path, line: str) -> None:
    script(tmp_path / "bin/claude", line)
    (found,) = finder(tmp_path).command("claude")
    assert found.by_env is None


def test_a_path_that_no_rule_can_say_is_no_program(tmp_path: Path) -> None:
    script(tmp_path / "bin*/claude", "#!/bin/sh")
    assert finder(tmp_path, path="bin*").command("claude") == []


def test_needs_are_found_where_they_are_and_once(tmp_path: Path) -> None:
    program = script(tmp_path / "a/bin/claude", "#!/bin/sh")
    first = script(tmp_path / "a-linux/native", "#!/bin/sh")
    (tmp_path / "a-other").mkdir()
    (tmp_path / "a-other/native").symlink_to(first)
    host = script(tmp_path / "a/bin/host", "#!/bin/sh")
    needs = tuple(Need(path=path, why=path) for path in ("", "host", "missing", "../../a-*/native", "claude"))
    table = Table(client="claude", shelling=Shelling(
        measured="1.0.0", environment={}, account_shell=False, needs=needs, task_environment=()
    ))  # fmt: skip
    (itself,) = finder(tmp_path).command(str(program))
    found = [(each.real, need.why) for each, need in finder(tmp_path).needs(table, itself)]
    assert found == [(str(host), "host"), (str(first), "../../a-*/native")]


def replaceable(path: Path) -> bool:
    (found,) = finder(path.parent).all([str(path)])
    return found.replaceable


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize(
    ("owner", "group", "mode", "can"),
    [
        (0, 0, 0o755, False),
        (0, 0, 0o775, False),
        (52001, 0, 0o555, True),  # who owns it can change its mode
        (52002, 0, 0o755, True),  # so can a task
        (0, 52003, 0o775, True),
        (0, 0, 0o777, True),
    ],
)
def test_who_may_write_a_program_or_a_directory_above_can_replace_it(
    tmp_path: Path, owner: int, group: int, mode: int, can: bool
) -> None:
    tmp_path.chmod(0o755)
    program = script(tmp_path / "x/y/claude", "#!/bin/sh")
    assert not replaceable(program)  # the way to it is sticky, or root's alone
    for path in (program, program.parent, program.parent.parent):
        os.chown(path, owner, group)
        path.chmod(mode)
        assert replaceable(program) is can
        os.chown(path, 0, 0)
        path.chmod(0o755)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_in_a_sticky_directory_only_what_is_theirs_can_be_replaced(tmp_path: Path) -> None:
    program = script(tmp_path / "x/claude", "#!/bin/sh")
    program.parent.chmod(0o1777)
    assert not replaceable(program)
    os.chown(program.parent, 52001, 0)
    assert replaceable(program)


def test_the_task_shells_are_found_and_what_they_lie_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "SHELLS", str(tmp_path / "shells"))
    assert client_programs.task_shells() == []
    for name in ("bash", "sh", ".draft", "no-such-shell"):
        script(tmp_path / "shells" / name, f"#!{PYTHON}")
    (tmp_path / "shells/data").touch()
    shells = client_programs.task_shells()
    assert shells == [f"{tmp_path}/shells/{name}" for name in ("bash", "no-such-shell", "sh")]
    over = client_programs.shells_of_the_system(shells)
    assert over[os.path.realpath("/bin/sh")].startswith(f"{tmp_path}/shells/")
    assert f"{tmp_path}/shells/no-such-shell" not in over.values()


def test_this_machine_has_a_shell() -> None:
    assert "sh" in client_programs.shell_names()


def test_links_of_trees_are_followed() -> None:
    assert client_programs.links_resolved(["/bin", "/no-such"]) == [os.path.realpath("/bin"), "/no-such"]
