"""Secrets from the command line and from the file of secrets."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from codingagents.rewrite.secrets import gather, parse_env_file, parse_option
from codingagents.trust.errors import AgentError, ConfigError, UsageError
from codingagents.trust.vocabulary import Secret

VALUE = "hunter2-never-shown"


def env_file(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / "mcp-secrets.env"
    path.write_text(text)
    path.chmod(mode)
    return path


def revealed(secrets: Mapping[Any, Secret]) -> dict[str, str]:
    return {name: secret.reveal() for name, secret in secrets.items()}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("TOKEN=abc", "abc"),
        ("  export TOKEN=abc  ", "abc"),
        ("TOKEN=a=b$c${d}", "a=b$c${d}"),
        ("TOKEN='a b # \" \\ $x'", 'a b # " \\ $x'),
        ("TOKEN='abc'   # comment", "abc"),
        (r'TOKEN="a \"b\" \\ \$ \n\t#"', 'a "b" \\ $ \n\t#'),
        ("TOKEN=äöü", "äöü"),
    ],
)
def test_a_line_of_the_file_gives_a_value(line: str, value: str) -> None:
    """Quoting follows what shells and dotenv readers agree on."""
    assert revealed(parse_env_file(f"# head\n\n{line}\n", "F")) == {"TOKEN": value}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (VALUE, "F, line 2: expected KEY=VALUE"),
        (f"1X={VALUE}", "F, line 2: the key must look like an environment variable's name"),
        (f"A-B={VALUE}", "F, line 2: the key must look like an environment variable's name"),
        (
            f"TOKEN={VALUE} x",
            "F, line 2: put the value in single quotes; without them it may hold no space, quote, \\ or #",
        ),
        (
            f"TOKEN='{VALUE}",
            "F, line 2: put the value in single quotes; without them it may hold no space, quote, \\ or #",
        ),
        (
            f"TOKEN={VALUE}#x",
            "F, line 2: put the value in single quotes; without them it may hold no space, quote, \\ or #",
        ),
        (rf'TOKEN="\x{VALUE}"', 'F, line 2: inside "…" a backslash may stand only before n r t " \\ or $'),
        ("TOKEN=", "F, line 2: TOKEN is empty; remove the line or give it a value"),
        ("TOKEN=''", "F, line 2: TOKEN is empty; remove the line or give it a value"),
        ("FIRST=x", "F, line 2: FIRST is set twice"),
    ],
)
def test_a_bad_line_is_named_and_its_value_is_not(line: str, sentence: str) -> None:
    """The error helps to find the line and can be pasted into a ticket."""
    with pytest.raises(ConfigError) as caught:
        parse_env_file(f"FIRST=x\n{line}", "F")
    assert str(caught.value) == sentence
    assert VALUE not in str(caught.value)


@pytest.mark.parametrize(
    "option", [f"TOKEN={VALUE}", "TOKEN", "TOKEN=env:", f"TOKEN=literal:{VALUE}", f"=env:{VALUE}", f"A-B=env:{VALUE}"]
)
def test_a_bad_option_is_refused_without_echoing_what_may_be_the_value(option: str) -> None:
    """Someone who types the value itself does not find it in the error again."""
    with pytest.raises(UsageError) as caught:
        parse_option(option)
    assert VALUE not in str(caught.value)


def test_the_command_line_comes_first_and_only_what_is_needed_is_taken(tmp_path: Path) -> None:
    """Three sources of names, one result."""
    path = env_file(tmp_path, "A=file-a\nB=file-b\nUNNEEDED=x\n")
    other = tmp_path / "c"
    other.write_text("file-c\n")
    other.chmod(0o400)
    environment = {"VAR": "env-a", "OTHER": "env-d", "KEPT": "1"}
    options = [parse_option(text) for text in ("A=env:VAR", f"C=file:{other}", "D=env:OTHER")]
    secrets = gather(["A", "B", "C", "MISSING"], options, environment=environment, env_file=path)
    assert revealed(secrets) == {"A": "env-a", "B": "file-b", "C": "file-c"}
    assert environment == {"KEPT": "1"}


def test_one_variable_may_serve_two_secrets(tmp_path: Path) -> None:
    """Removal happens after all have read."""
    environment = {"VAR": "x"}
    options = [parse_option("A=env:VAR"), parse_option("B=env:VAR")]
    assert revealed(gather("AB", options, environment=environment, env_file=tmp_path / "none")) == {"A": "x", "B": "x"}
    assert environment == {}


def test_a_file_that_is_not_needed_is_not_read(tmp_path: Path) -> None:
    """A loose mode stops only those who depend on the file."""
    path = env_file(tmp_path, "B=x", mode=0o644)
    assert gather(["A"], [parse_option("A=env:V")], environment={"V": "x"}, env_file=path)
    with pytest.raises(ConfigError):
        gather(["B"], [], environment={}, env_file=path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644, 0o700])
def test_a_loose_mode_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    """0600 or stricter, nothing else."""
    path = env_file(tmp_path, f"A={VALUE}", mode)
    with pytest.raises(ConfigError) as caught:
        gather(["A"], [], environment={}, env_file=path)
    assert str(caught.value) == f"{path} has mode {mode:04o}; run: chmod 600 {path}"


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_what_is_not_a_regular_file_is_refused(tmp_path: Path, kind: str) -> None:
    """A FIFO in particular must not hang the launcher."""
    path = tmp_path / "mcp-secrets.env"
    if kind == "symlink":
        target = tmp_path / "target"
        target.mkdir()
        path.symlink_to(env_file(target, "A=1"))
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    else:
        path.mkdir(0o600)
    with pytest.raises(ConfigError, match="must be a regular file"):
        gather(["A"], [], environment={}, env_file=path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_foreign_owner_is_refused(tmp_path: Path) -> None:
    """Who owns the file decides what the secrets are."""
    path = env_file(tmp_path, "A=1")
    os.chown(path, 54321, 54321)
    with pytest.raises(ConfigError, match="belongs to UID 54321"):
        gather(["A"], [], environment={}, env_file=path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["A=env:V", "A=env:W"], "--secret A is given twice"),
        (["A=env:UNSET"], "--secret A: the environment variable UNSET is not set"),
        (["A=env:EMPTY"], "--secret A: the environment variable EMPTY is empty"),
        (["A=file:/nonexistent/x"], "--secret A: there is no file /nonexistent/x"),
    ],
)
def test_a_source_without_a_value_is_a_usage_error(options: list[str], sentence: str, tmp_path: Path) -> None:
    """One sentence each."""
    environment = {"V": "1", "W": "2", "EMPTY": ""}
    with pytest.raises(UsageError) as caught:
        gather(["A"], map(parse_option, options), environment=environment, env_file=tmp_path / "none")
    assert str(caught.value) == sentence


def test_a_file_that_is_not_text_or_too_large_is_refused(tmp_path: Path) -> None:
    """Bytes from a file have a bound and an encoding."""
    path = env_file(tmp_path, "")
    for content, words in ((b"A=\xff", "is not UTF-8 text"), (b"#" * (1024 * 1024 + 1), "is over the limit")):
        path.write_bytes(content)
        with pytest.raises(AgentError, match=words):
            gather(["A"], [], environment={}, env_file=path)


def test_a_variable_that_is_not_text_is_refused_by_name(tmp_path: Path) -> None:
    environment = {"VAR": os.fsdecode(b"hunter2\xff")}
    with pytest.raises(ConfigError, match=r"^--secret TOKEN: the environment variable VAR is not UTF-8 text$"):
        gather({"TOKEN"}, [parse_option("TOKEN=env:VAR")], environment=environment, env_file=tmp_path / "none")
