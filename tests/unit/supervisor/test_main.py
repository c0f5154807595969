"""The container's entry, run as the image runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codingagents.supervisor import __main__ as entry

PROGRAM = (sys.executable, "-I", "-m", "codingagents.supervisor")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, check=False, timeout=10)


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"], ["init", "--help"], ["exec", "--help"]])
def test_help_is_printed_and_ends_well(arguments: list[str]) -> None:
    """Asking is no error, so it goes to standard output."""
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: coding-agents")


@pytest.mark.parametrize("arguments", [["--help"], ["init", "--help"], ["events", "--help"]])
@pytest.mark.parametrize(("output", "code"), [(">&-", 0), (">/dev/full", 1)])
def test_output_that_cannot_be_written_is_a_sentence(arguments: list[str], output: str, code: int) -> None:
    """Of every command; who closed standard output wants none."""
    argv = ["sh", "-c", f'exec "$@" {output}', "sh", *PROGRAM, *arguments]
    done = subprocess.run(argv, stderr=subprocess.PIPE, text=True, check=False, timeout=20)
    assert done.returncode == code
    assert done.stderr.startswith("coding-agents: standard output cannot be written: " if code else "")
    assert done.stderr.count("\n") == code


@pytest.mark.parametrize("arguments", [[], ["launch"], ["--init"]])
def test_an_unknown_command_is_one_sentence_and_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It names the commands that there are."""
    assert entry.main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("coding-agents: there is no command ")
    assert said.err.count("\n") == 1
    assert all(name in said.err for name in ("init", "doctor", "events"))


def test_a_session_that_cannot_begin_is_one_sentence_and_125(tmp_path: Path) -> None:
    """A lower code could be that of the command, which `init` passes on."""
    done = run("init", "--session", str(tmp_path), "--", "true")
    assert done.returncode == 125
    no_specification = f"{tmp_path}/session.json: No such file or directory; `coding-agents run` writes it"
    no_root = "a session must start as root, to give each role a UID of its own; run the container without --user"
    assert done.stderr == f"coding-agents: {no_root if os.geteuid() else no_specification}\n"


def test_plain_init_imports_nothing_heavy() -> None:
    """Its budget from exec to the child's exec is 60 ms; one of these would take a good part of it."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", "-c", _PLAIN_INIT],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
        env={"PORTIONS": ":".join(str(folder.parent.parent) for folder in _portions())},
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "codingagents.supervisor.plain_init" in imported
    assert not imported & {"typing", "re", "argparse", "subprocess", "trio", "msgspec", "cryptography", "asyncio"}


_PLAIN_INIT = """
import os, sys
sys.path += os.environ["PORTIONS"].split(":")
from codingagents.supervisor import __main__, processes
processes.set_subreaper = processes.die_with_parent = lambda: None  # as for PID 1, which needs no ctypes
raise SystemExit(__main__.main(["init", "--", "/bin/true"]))
"""


def _portions() -> list[Path]:
    import codingagents.supervisor  # noqa: PLC0415 -- for their paths only
    import codingagents.trust  # noqa: PLC0415 -- for their paths only

    return [Path(path) for path in (*codingagents.supervisor.__path__, *codingagents.trust.__path__)]


def test_a_planted_package_in_the_working_directory_is_not_run(tmp_path: Path) -> None:
    """The agent can write the directory that a command is started in."""
    planted = tmp_path / "codingagents" / "supervisor"
    planted.mkdir(parents=True)
    (planted / "__init__.py").touch()
    (planted / "__main__.py").write_text("print('planted')")
    done = subprocess.run(
        [*PROGRAM, "init", "--", "echo", "ours"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": "."},
        timeout=10,
    )
    assert done.stdout == "ours\n"
