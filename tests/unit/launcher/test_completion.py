"""Completion scripts, run by the real shell where it is there."""

import shutil
import subprocess

import pytest

from codingagents.launcher import completion
from codingagents.launcher.cli import build_parser


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["r"], {"run"}),
        (["config", ""], {"--help", "check", "render"}),
        (["run", "--e"], {"--engine"}),
        (["run", "--engine", "po"], {"podman"}),
        (["config", "render", "--cl"], {"--client"}),
        (["completion", ""], {"--help", "bash", "zsh", "fish"}),
        (["no-such", "r"], {"run"}),
        (["helper", ""], {"--help", "list", "run"}),
        (["helper", "run", "--s"], {"--secret", "--server"}),
        (["helper", "list", "--s"], {"--session"}),
        (["exec", ""], {"explain", "health", "list", "run", "shell"}),
        (["exec", "run", "--"], {"--tty", "--no-tty", "--cwd", "--env"}),
        (["trust", ""], {"--help", "add", "list", "show", "remove", "check", "rotate", "reload"}),
        (["trust", "add", "--sc"], {"--scope"}),
    ],
)
def test_bash_completes_what_the_parser_knows(words: list[str], expected: set[str]) -> None:
    """The script is asked as bash itself would ask it."""
    script = completion.script(build_parser(), "bash")
    line = " ".join(f"'{word}'" for word in ["coding-agents", *words])
    ask = f'{script}\nCOMP_WORDS=({line}) COMP_CWORD={len(words)}; _coding_agents; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert (set(done.stdout.split()), done.stderr) == (expected, "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_accept_their_script(shell: str) -> None:
    """Syntax is checked by the shell where it is installed; the words are there in any case."""
    script = completion.script(build_parser(), shell)
    assert "render" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)
