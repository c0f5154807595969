"""Each mistake ends `coding-agents run` with one exact sentence and its code; no process, file or directory remains."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from codingagents.trust.errors import EXIT_ENGINE, EXIT_USAGE

_PIN = "sha256/" + "A" * 43 + "="
_BACKUP = "sha256/" + "B" * 42 + "A="
_SERVER = '[mcp_servers.github]\nurl = "https://api.example.com/mcp"\n'
_CREDENTIAL = _SERVER + 'bearer_token_env_var = "GITHUB_TOKEN"\n'
_PINS = f'pin = [{{ spki = "{_PIN}" }}, {{ spki = "{_BACKUP}", backup = true }}]\n'

# What is wrong -> config.toml, and the sentence; FILE stands for the file's path.
MISTAKES = {
    "not TOML": ("a = ", "FILE: is not valid TOML: Invalid value (at end of document)"),
    "not UTF-8": ("# \udcff", "FILE: is not UTF-8 text"),
    "too large": ("#" * (1024 * 1024 + 1), "FILE is over the limit of 1048576 bytes"),
    "an unknown table": ("[sesion]", 'FILE: has no key "sesion"; did you mean "session"?'),
    "an unknown key": (
        _SERVER + 'bearer_token = "ghp_secret"',
        'FILE: [mcp_servers.github] has no key "bearer_token"; did you mean "bearer_token_env_var"?',
    ),
    "a name that is none": (
        '[mcp_servers."a b"]\nurl = "https://a.example"',
        'FILE: [mcp_servers] server name "a b" must be 1 to 32 of A-Z a-z 0-9 _ -',
    ),
    "plain text to the world": (
        '[mcp_servers.x]\nurl = "http://a.example/"',
        "FILE: [mcp_servers.x] url must start with https://; http is for loopback addresses only",
    ),
    "a credential without pins": (
        _CREDENTIAL,
        (
            "FILE: [mcp_servers.github] sends a credential without enforced pins; write its pins with: coding-agents "
            "trust rotate github --config FILE (or, without any: tls.pins = "
            '{ mode = "off", credential_without_pin = true })'
        ),
    ),
    "one pin only": (
        f'{_SERVER}[mcp_servers.github.tls.pins]\nexpires = 2030-01-01\npin = [{{ spki = "{_PIN}" }}]',
        (
            "FILE: [mcp_servers.github.tls.pins] pin must list at least two different keys, one of them a backup that "
            "is not in use yet"
        ),
    ),
    "pins past their date": (
        f"{_SERVER}[mcp_servers.github.tls.pins]\nexpires = 2001-01-01\n{_PINS}",
        (
            "FILE: [mcp_servers.github.tls.pins] expires 2001-01-01 is past, so the server is refused; check that they "
            "are still the server's and set a new date"
        ),
    ),
    "a secret that nobody gave": (
        f"{_CREDENTIAL}[mcp_servers.github.tls.pins]\ncredential_without_pin = true\nmode = 'off'\n",
        (
            "FILE: [mcp_servers.github] needs the secret GITHUB_TOKEN; give it with --secret GITHUB_TOKEN=env:VARIABLE "
            "or in mcp-secrets.env"
        ),
    ),
    "a trust store that is not there": (
        _SERVER + '[mcp_servers.github.tls]\nca = "custom"\nca_file = "nowhere.pem"',
        "FILE: [mcp_servers.github.tls] ca_file is DIRECTORY/nowhere.pem, which does not exist",
    ),
    "a command server": (
        '[mcp_servers.play]\ncommand = "npx"',
        "FILE: [mcp_servers.play] command servers are not available yet; set enabled = false to leave it out",
    ),
    "a network that cannot be had yet": (
        '[session]\nnetwork = "helpers"',
        'FILE: [session] network = "helpers" is not available yet; use "host"',
    ),
    "a layer that is none": (
        '[session]\nlayers = { landlok_exec = "require" }',
        'FILE: [session.layers] has no key "landlok_exec"; did you mean "landlock_exec"?',
    ),
    "a wish that is none": (
        '[session]\nlayers = { exec_trap = "on" }',
        'FILE: [session.layers] exec_trap must be one of "require", "prefer", "off"',
    ),
    "a rule that is no path": (
        '[exec]\nrules = [ { deny = "etc/../nc" } ]',
        "FILE: [exec.rules[0]] deny must hold absolute paths without empty, . and .. parts",
    ),
}

# What is wrong -> options of `run`, and the sentence; DIRECTORY stands for where config.toml lies.
OPTIONS = {
    "an engine that is not available": (
        ["--engine", "podman"],
        "--engine podman is not available yet; use --engine local",
    ),
    "no file": (
        ["--config", "DIRECTORY/no.toml"],
        "there is no configuration file DIRECTORY/no.toml; write one, or name another",
    ),
    "a directory for a file": (["--config", "DIRECTORY"], "DIRECTORY must be a regular file"),
    "no workspace": (
        ["--workspace", "DIRECTORY/no"],
        "the workspace DIRECTORY/no is not a directory; name one with --workspace",
    ),
    "a secret on the command line": (
        ["--secret", "TOKEN=hunter2"],
        "--secret TOKEN: write NAME=env:VARIABLE or NAME=file:PATH; the value is never an argument",
    ),
    "a variable that is not set": (
        ["--secret", "TOKEN=env:NOWHERE"],
        "--secret TOKEN: the environment variable NOWHERE is not set",
    ),
    "identities of the system": (
        ["--uid-base", "0"],
        "the UID range 0 to 2 must lie within 1000 to 2147483645 without 65534; choose another start",
    ),
    "a session directory that others may read": (
        ["--session-dir", "/proc"],
        "/proc has mode 0555; run: chmod 700 /proc",
    ),
    "a session directory that would reach the keys": (
        ["--session-dir", "DIRECTORY"],
        (
            "--session-dir DIRECTORY must lie apart from DIRECTORY/.config/coding-agents/trusted, which a session must "
            "not reach"
        ),
    ),
    "an option that is none": (
        ["--frobnicate"],
        "'--frobnicate' is not understood here; the agent's command goes after --",
    ),
}


class Attempt:
    """A home directory, and `coding-agents run` with it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / "config.toml"
        self.config.write_text("")

    def run(self, *options: str, prefix: tuple[str, ...] = ()) -> tuple[int, list[str]]:
        """Return the exit code and what was printed on standard error; nothing is on the output."""
        argv = [*prefix, sys.executable, "-I", "-m", "codingagents.launcher", "run", "--config", str(self.config)]
        done = subprocess.run(
            [*argv, *options, "--", "/bin/echo", "the agent ran"],
            check=False, capture_output=True, text=True, timeout=20, env={"HOME": str(self.home)}, cwd="/",
        )  # fmt: skip
        self.output = done.stdout
        return done.returncode, done.stderr.splitlines()

    def assert_nothing_was_started_or_written(self) -> None:
        assert self.output == ""
        assert [path.name for path in self.home.iterdir()] == ["config.toml"]


@pytest.fixture
def attempt() -> Iterator[Attempt]:
    with tempfile.TemporaryDirectory(prefix="session-refused-") as home:
        yield Attempt(Path(home).resolve())


@pytest.mark.parametrize(("text", "sentence"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_in_the_configuration(attempt: Attempt, text: str, sentence: str) -> None:
    """Exit 2, one sentence that names file, table and key."""
    attempt.config.write_bytes(os.fsencode(text))
    wanted = sentence.replace("FILE", str(attempt.config)).replace("DIRECTORY", str(attempt.home))
    assert attempt.run() == (EXIT_USAGE, [f"coding-agents: {wanted}"])
    attempt.assert_nothing_was_started_or_written()


@pytest.mark.parametrize(("options", "sentence"), OPTIONS.values(), ids=list(OPTIONS))
def test_a_mistake_on_the_command_line(attempt: Attempt, options: list[str], sentence: str) -> None:
    """Exit 2, one sentence that says what to do; a value that should be secret is not repeated."""
    home = str(attempt.home)
    code, errors = attempt.run(*(word.replace("DIRECTORY", home) for word in options))
    assert (code, errors) == (EXIT_USAGE, [f"coding-agents: {sentence.replace('DIRECTORY', home)}"])
    attempt.assert_nothing_was_started_or_written()


def test_an_ordinary_user_is_told_so(attempt: Attempt) -> None:
    """Exit 2, before anything else is looked at."""
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    sentence = "run needs root to give each role a UID of its own; run it with sudo"
    assert attempt.run(prefix=nobody) == (EXIT_USAGE, [f"coding-agents: {sentence}"])
    attempt.assert_nothing_was_started_or_written()


def test_a_machine_without_the_right_to_make_a_namespace_is_told_so(attempt: Attempt) -> None:
    """Exit 125, as engines have it for themselves."""
    code, errors = attempt.run(prefix=("setpriv", "--bounding-set", "-sys_admin"))
    assert code == EXIT_ENGINE
    sentence = (
        "the local engine needs CAP_SYS_ADMIN to make a PID namespace (Operation not permitted); run it as root "
        "outside of containers, or in a container started with --cap-add SYS_ADMIN"
    )
    assert errors == [f"coding-agents: {sentence}"]
    attempt.assert_nothing_was_started_or_written()


def test_control_without_a_mistake_the_agent_runs_and_files_are_written(attempt: Attempt) -> None:
    """Without this nothing above could fail."""
    code, _ = attempt.run("--workspace", "/")
    assert (code, attempt.output) == (0, "the agent ran\n")
    with pytest.raises(AssertionError):
        attempt.assert_nothing_was_started_or_written()
    (log,) = attempt.home.glob(".config/coding-agents/sessions/*/events.jsonl")
    with contextlib.closing(log.open()) as lines:
        assert "session.ended" in lines.read()
