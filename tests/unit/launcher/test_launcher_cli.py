"""Command lines of the host's command, run as real processes: the exact sentence and the exit code."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from codingagents.launcher.run import agent_environment

COMMAND = [sys.executable, "-I", "-m", "codingagents.launcher"]
PINS = "pins = { mode = 'off', credential_without_pin = true }"
NO_CONFIG = "there is no configuration file {}; write one, or name another"
NO_SECRET = (
    "config.toml: [mcp_servers.github] needs the secret GITHUB_TOKEN; "
    "give it with --secret GITHUB_TOKEN=env:VARIABLE or in mcp-secrets.env"
)
CONFIG = f"""\
[mcp_servers.github]
url = "https://api.example.com/mcp"
bearer_token_env_var = "GITHUB_TOKEN"
[mcp_servers.github.tls]
ca = "certifi"
{PINS}
[mcp_servers.local-notes]
url = "http://127.0.0.1:9000/mcp?x=1"
allow_plaintext = true
allow_private = true
"""
ordinary: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text(CONFIG)
    (tmp_path / "bad.toml").write_text('[mcp_servers.github]\nurl = "https://x"\ntransprot = "sse"\n')
    (tmp_path / "latin.toml").write_bytes(b'x = "\xfc"\n')
    (tmp_path / "command.toml").write_text('[mcp_servers.x]\ncommand = "npx"\n')
    return tmp_path


def run(home: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **options.pop("environment", {})}
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        **options,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "the following arguments are required: COMMAND; see: coding-agents --help"),
        (["config"], 2, "the following arguments are required: ACTION; see: coding-agents config --help"),
        (["run", "ls"], 2, "'ls' is not understood here; the agent's command goes after --"),
        (["run", "--confi", "x"], 2, "'--confi' is not understood here; the agent's command goes after --"),
        (["config", "check", "x", "--y"], 2, "'--y' is not understood here; see: coding-agents --help"),
        (["run", "--uid-base", "x"], 2, "argument --uid-base: invalid int value: 'x'; see: coding-agents run --help"),
        (
            ["run", "--secret", "A=hunter2"],
            2,
            "--secret A: write NAME=env:VARIABLE or NAME=file:PATH; the value is never an argument",
        ),
        (["run", "--agent", "Claude Code"], 2, "--agent: agent must be 1 to 32 of a-z 0-9 -"),
        (["run", "--engine", "podman"], 2, "--engine podman is not available yet; use --engine local"),
        (["run", "--engine", "docker"], 2, "--engine docker is not available yet; use --engine local"),
        (
            ["config", "check", "none.toml"],
            3,
            NO_CONFIG.format("none.toml"),
        ),
        (["config", "check", "latin.toml"], 2, "latin.toml: is not UTF-8 text"),
        (
            ["config", "check", "bad.toml"],
            2,
            'bad.toml: [mcp_servers.github] has no key "transprot"; did you mean "transport"?',
        ),
        (
            ["config", "check", "a\x1b[2J\nb"],
            3,
            NO_CONFIG.format(r"a\x1b[2J\nb"),
        ),
    ],
)
def test_a_wrong_command_line_is_one_sentence(home: Path, arguments: list[str], code: int, sentence: str) -> None:
    """No traceback, nothing on standard output, nothing written."""
    before = sorted(home.rglob("*"))
    done = run(home, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"coding-agents: {sentence}\n")
    assert sorted(home.rglob("*")) == before


ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="the sentences that root gets")


@ROOT_ONLY
@pytest.mark.parametrize(
    ("arguments", "environment", "code", "sentence"),
    [
        (
            [],
            {},
            2,
            NO_CONFIG.format("{home}/.config/coding-agents/config.toml"),
        ),
        (
            ["--config", "config.toml"],
            {},
            2,
            NO_SECRET,
        ),
        (
            ["--config", "config.toml", "--secret", "GITHUB_TOKEN=env:NO"],
            {},
            2,
            "--secret GITHUB_TOKEN: the environment variable NO is not set",
        ),
        (
            ["--config", "config.toml", "--secret", "GITHUB_TOKEN=env:T", "--workspace", "none"],
            {"T": "x"},
            2,
            "the workspace none is not a directory; name one with --workspace",
        ),
        (
            ["--config", "config.toml", "--secret", "GITHUB_TOKEN=env:T", "--uid-base", "65530"],
            {"T": "x"},
            2,
            "the UID range 65530 to 65534 must lie within 1000 to 2147483645 without 65534; choose another start",
        ),
        (
            [
                "--config",
                "config.toml",
                "--secret",
                "GITHUB_TOKEN=env:T",
                "--workspace",
                "/",
                "--session-dir",
                "config.toml",
            ],
            {"T": "x"},
            2,
            "{home}/config.toml must be a directory, not a symbolic link or a file",
        ),
        (
            ["--config", "config.toml", "--secret", "GITHUB_TOKEN=env:T"],
            {"T": "one\ntwo"},
            2,
            "the value of header Authorization is empty, not ASCII, or holds a control character or line break",
        ),
        (
            ["--config", "command.toml"],
            {},
            2,
            "command.toml: [mcp_servers.x] command servers are not available yet; set enabled = false to leave it out",
        ),
    ],
)
def test_a_session_that_cannot_be_leaves_nothing(
    home: Path, arguments: list[str], environment: dict[str, str], code: int, sentence: str
) -> None:
    """All that bad input can break is found before the first file is written."""
    before = sorted(home.rglob("*"))
    done = run(home, "run", *arguments, environment=environment)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == f"coding-agents: {sentence.format(home=home)}\n"
    assert sorted(home.rglob("*")) == before


def test_check_refuses_what_a_session_would_refuse(home: Path) -> None:
    """The file is right; its wish cannot be met yet."""
    done = run(home, "config", "check", "command.toml")
    assert done.returncode == 1
    assert done.stderr == (
        "coding-agents: a session would not start: command.toml: [mcp_servers.x] command servers are not available "
        "yet; set enabled = false to leave it out\n"
    )
    assert "x" in done.stdout


WAYS = """\
[mcp_servers.old]
url = "https://mcp.example.com/sse"
transport = "sse"
listen = "https"
proxy = "http://squid:3128"
tls = { ca = "certifi" }
[mcp_servers.sock]
url = "https://mcp.example.com/mcp"
listen = "unix"
tls = { ca = "certifi" }
"""


def test_check_shows_how_a_server_is_reached_and_who_is_not_told(home: Path) -> None:
    """In the table, in the JSON, and as warnings that do not fail the check."""
    (home / "ways.toml").write_text(WAYS)
    done = run(home, "config", "check", "ways.toml")
    assert done.returncode == 0
    header, old, sock = done.stdout.splitlines()
    assert header.split()[:6] == ["server", "kind", "state", "target", "transport", "listen"]
    assert "sse via squid:3128  https" in old
    assert sock.split()[4:6] == ["http", "unix"]
    assert [line.split(": ", 2)[1] for line in done.stderr.splitlines()] == ["warning", "warning"]
    document = json.loads(run(home, "config", "check", "--json", "ways.toml").stdout)
    assert [(row["reached"], row["listen"]) for row in document["servers"]] == [
        ("sse via squid:3128", "https"),
        ("http", "unix"),
    ]
    assert len(document["warnings"]) == 2


@pytest.mark.parametrize(("client", "warnings", "servers"), [("claude", 1, {"old"}), ("codex", 2, set())])
def test_render_says_what_its_client_is_not_told(home: Path, client: str, warnings: int, servers: set[str]) -> None:
    """And names the session's authority, since a server listens on https."""
    (home / "ways.toml").write_text(WAYS)
    done = run(home, "config", "render", "--client", client, "--json", "ways.toml")
    document = json.loads(done.stdout)
    assert len(document["warnings"]) == warnings
    assert "/run/coding-agents/session-ca.pem" in document["environment"].values()
    content = document["files"][0]["content"]
    told = json.loads(content) if client == "claude" else tomllib.loads(content)
    assert set(told["mcpServers" if client == "claude" else "mcp_servers"]) == servers
    plain = run(home, "config", "render", "--client", client, "ways.toml")
    assert plain.stderr.count("warning: ") == warnings


@ROOT_ONLY
def test_an_engine_that_cannot_work_here_exits_125_and_leaves_nothing(home: Path) -> None:
    """Without CAP_SYS_ADMIN there is no PID namespace, and the sentence says what to do."""
    before = sorted(home.rglob("*"))
    command = [
        "setpriv",
        "--bounding-set=-sys_admin",
        "--inh-caps=-sys_admin",
        *COMMAND,
        "run",
        "--config",
        "config.toml",
    ]
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "T": "x"}
    done = subprocess.run(
        [*command, "--secret", "GITHUB_TOKEN=env:T", "--workspace", "/"],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == (
        "coding-agents: the local engine needs CAP_SYS_ADMIN to make a PID namespace (Operation not permitted); "
        "run it as root outside of containers, or in a container started with --cap-add SYS_ADMIN\n"
    )
    assert sorted(home.rglob("*")) == before


def test_an_ordinary_user_is_told_so(home: Path) -> None:
    """One sentence, exit 2."""
    done = subprocess.run(
        [sys.executable, "-I", "-m", "codingagents.launcher", "run"],
        env={"HOME": "/nonexistent"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        **ordinary,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "coding-agents: run needs root to give each role a UID of its own; run it with sudo\n"


def test_config_check_lists_what_a_session_would_have(home: Path) -> None:
    """A table for people, JSON for programs, from the same rows."""
    done = run(home, "config", "check", "config.toml")
    assert (done.returncode, done.stdout.splitlines()[1].split()[:4]) == (
        0,
        ["github", "remote", "on", "https://api.example.com/mcp"],
    )
    assert "GITHUB_TOKEN" in done.stdout
    assert all(line.startswith("coding-agents: warning: ") for line in done.stderr.splitlines())
    rows = json.loads(run(home, "config", "check", "--json", "config.toml").stdout)
    assert [row["server"] for row in rows["servers"]] == ["github", "local-notes"]
    assert rows["servers"][0]["secrets"] == ["GITHUB_TOKEN"]


@pytest.mark.parametrize("client", ["claude", "codex", "copilot"])
def test_config_render_shows_each_clients_files(home: Path, client: str) -> None:
    """The helper's URL and a placeholder, never the upstream's or a secret."""
    done = run(home, "config", "render", "--client", client, "config.toml")
    assert (done.returncode, done.stderr) == (0, "")
    assert "http://127.0.0.1:PORT/mcp?x=1" in done.stdout
    assert "Bearer LOCAL-BEARER" in done.stdout
    assert "api.example.com" not in done.stdout
    shown = json.loads(run(home, "config", "render", "--client", client, "--json", "config.toml").stdout)
    assert shown["client"] == client
    assert all(file["content"].strip() in done.stdout for file in shown["files"])


def test_a_reader_that_goes_away_is_no_traceback(home: Path) -> None:
    """`config render … | head -0`."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [*COMMAND, "config", "check", "--json", "config.toml"],
        cwd=home,
        stdout=write_end,
        stderr=subprocess.PIPE,
        timeout=20,
        check=False,
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize(("output", "code"), [(">/dev/full", 1), (">&-", 0)])
def test_output_that_cannot_be_written_is_a_sentence(home: Path, output: str, code: int) -> None:
    """A full disk is told; who closed standard output wants none."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {output}', "sh", *COMMAND, "config", "check", "--json", "config.toml"],
        cwd=home,
        stderr=subprocess.PIPE,
        timeout=20,
        check=False,
        text=True,
    )
    assert done.returncode == code
    sentence = (
        "coding-agents: standard output cannot be written: No space left on device; make room, or send it elsewhere"
    )
    assert done.stderr == (f"{sentence}\n" if code else "")


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["config", "check", "--help"], ["--version"]])
def test_help_goes_to_standard_output(home: Path, arguments: list[str]) -> None:
    """Asked for, it is no error."""
    done = run(home, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_the_agents_environment_is_an_allow_list() -> None:
    """Nothing that is not named reaches the agent, and PATH is ours."""
    given = {
        "TERM": "xterm",
        "LANG": "C.UTF-8",
        "LC_ALL": "C",
        "TZ": "UTC",
        "COLORTERM": "truecolor",
        "NO_COLOR": "1",
        "PATH": "/tmp/evil",
        "HOME": "/root",
        "LD_PRELOAD": "/tmp/x.so",
        "GITHUB_TOKEN": "x",
        "LCX": "x",
    }
    assert agent_environment(given) == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        **{name: given[name] for name in ("TERM", "LANG", "LC_ALL", "TZ", "COLORTERM", "NO_COLOR")},
    }
