"""`coding-agents exec run` and its like as processes, at a runner that stands in, and what their arguments ask for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from codingagents.supervisor import task_run
from codingagents.trust.errors import UsageError
from task_stand_in import standing_in

COMMAND = (sys.executable, "-I", "-m", "codingagents.supervisor", "exec")
PATIENCE = 30


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[str]:
    with standing_in(tmp_path) as path:
        yield path


def call(runner: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "AGENT_TASK_RUNNER_SOCKET": runner, "A": "1"}
    return subprocess.run(
        [*COMMAND, *words], env=environment, text=True, capture_output=True, timeout=PATIENCE, check=False
    )


@pytest.mark.parametrize("words", [("run", "--"), ("run",), ("exec", "--no-tty"), ("exec", "--")])
def test_a_command_runs_and_its_code_is_ours(runner: str, words: tuple[str, ...]) -> None:
    done = call(runner, *words, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_options_behind_the_command_are_the_commands(runner: str) -> None:
    assert call(runner, "run", "--cwd", "/", "echo", "--cwd", "--", "x").stdout == "--cwd -- x\n"


def test_death_by_a_signal_is_passed_on(runner: str) -> None:
    assert call(runner, "run", "--", "sh", "-c", "kill -KILL $$").returncode == -signal.SIGKILL


def test_a_shell_takes_arguments(runner: str) -> None:
    assert call(runner, "shell", "--", "-c", "echo $0 $1", "a", "b").stdout == "a b\n"


def test_health_says_whether_somebody_listens(runner: str, tmp_path: Path) -> None:
    assert call(runner, "health").returncode == 0
    done = call(f"{tmp_path}/none", "health")
    assert (done.returncode, done.stdout) == (125, "")
    assert "no session takes tasks at" in done.stderr


@pytest.mark.parametrize("words", [("run", "--", "true"), ("shell",)])
def test_without_a_session_nothing_runs(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = call(f"{tmp_path}/none", *words)
    assert done.returncode == 125
    assert done.stderr == f"coding-agents: no session takes tasks at {tmp_path}/none: No such file or directory\n"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("run",), "needs a command"),
        (("run", "--tty", "true"), "needs a terminal"),
        (("run", "--tty", "--no-tty", "true"), "not allowed with"),
        (("run", "--such", "true"), "unrecognized"),
        (("run", "--env", "=1", "true"), "is no name"),
        (("run", "--env", "A-B=1", "true"), "is no name"),
        (("run", "--env", "NO_SUCH_VARIABLE", "true"), "there is no such variable here"),
        (("health", "x"), "unrecognized"),
    ],
)
def test_a_wrong_command_line_is_a_sentence_and_an_engines_code(runner: str, words: tuple[str, ...], why: str) -> None:
    done = call(runner, *words)
    assert (done.returncode, done.stdout) == (125, "")
    assert why in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["run", "shell", "health"])
def test_help_is_for_its_command(runner: str, command: str) -> None:
    done = call(runner, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"coding-agents exec {command}" in done.stdout


def test_variables_are_named_with_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "a=b\udcff")
    request = task_run.request_of(["--no-tty", "--env", "OURS", "--env", "ITS=", "--cwd", "x", "true"], is_shell=False)
    assert request.named == [(b"OURS", b"a=b\xff"), (b"ITS", b"")]
    assert request.cwd == os.getcwdb() + b"/x"
    with pytest.raises(UsageError):
        task_run.request_of([], is_shell=False)
