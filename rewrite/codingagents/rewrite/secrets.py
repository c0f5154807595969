"""SHELL: where a session's secrets come from: the command line, then `~/.config/coding-agents/mcp-secrets.env`.

The parsers are pure; `gather` reads. A value becomes a `Secret` at once and no error ever holds one. Does not decide
which secrets a session needs: the caller names them, and no other is taken along.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Collection, Iterable, MutableMapping
from pathlib import Path
from typing import Literal

from codingagents.rewrite.private_files import read_private
from codingagents.trust.errors import ConfigError, UsageError
from codingagents.trust.vocabulary import Secret, SecretName, parse_secret_name

FILE_NAME = "mcp-secrets.env"
MAX_FILE = 1024 * 1024  # bytes, of the file of secrets and of one `file:` secret

_ASSIGNMENT = re.compile(r"(?:export[ \t]+)?([^=\s]+)=(.*)")
_SINGLE_QUOTED = re.compile(r"'([^']*)'[ \t]*(?:#.*)?")
_DOUBLE_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"[ \t]*(?:#.*)?')
# A value without quotes has no character that some shell or dotenv reader would take for more than itself.
_BARE = re.compile(r"[^\s'\"\\#]+")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SecretSource:
    """One `--secret` option: a name, and the environment variable or file that holds the value."""

    name: SecretName
    kind: Literal["env", "file"]
    place: str


def parse_option(text: str) -> SecretSource:
    """Return what `NAME=env:VAR` or `NAME=file:PATH` says, or raise `UsageError`; never echoes what follows `=`.

    Someone who writes the value itself there must not find it in the terminal's scrollback as well.
    """
    name, _, source = text.partition("=")
    kind, _, place = source.partition(":")
    if not place or kind not in {"env", "file"}:
        raise UsageError(f"--secret {name}: write NAME=env:VARIABLE or NAME=file:PATH; the value is never an argument")
    try:
        return SecretSource(name=parse_secret_name(name), kind="env" if kind == "env" else "file", place=place)
    except ConfigError as error:
        raise UsageError(f"--secret: {error}") from None


def parse_env_file(text: str, file: str) -> dict[SecretName, Secret]:
    r"""Return the assignments of a file of `KEY=VALUE` lines; `ConfigError` names `file` and the line.

    `'…'` is literal; `"…"` knows `\n \r \t \" \\ \$`; a bare value has no space, quote, backslash or `#`. A line may
    start with `export`, a comment starts with `#`. No variable is ever expanded.
    """
    found: dict[SecretName, Secret] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        where = f"{file}, line {number}"
        assignment = _ASSIGNMENT.fullmatch(stripped)
        if assignment is None:
            raise ConfigError(f"{where}: expected KEY=VALUE")
        try:
            name = parse_secret_name(assignment[1])
        except ConfigError:
            raise ConfigError(f"{where}: the key must look like an environment variable's name") from None
        if name in found:
            raise ConfigError(f"{where}: {name} is set twice")
        value = _unquote(assignment[2], where)
        if not value:
            raise ConfigError(f"{where}: {name} is empty; remove the line or give it a value")
        found[name] = Secret(value)
    return found


def gather(
    needed: Collection[str],
    options: Iterable[SecretSource],
    *,
    environment: MutableMapping[str, str],
    env_file: Path,
) -> dict[str, Secret]:
    """Return the secrets that are `needed` and were given, the options first.

    Every `env:` variable is removed from `environment`, needed or not. A needed secret that nobody gave is left out:
    the plan refuses it with the server's name. Raises `UsageError` or `ConfigError`.
    """
    given: dict[SecretName, Secret] = {}
    sources = list(options)
    for source in sources:
        if source.name in given:
            raise UsageError(f"--secret {source.name} is given twice")
        given[source.name] = _read_source(source, environment)
    for source in sources:
        if source.kind == "env":
            environment.pop(source.place, None)
    if not set(needed) <= given.keys():
        try:
            content = read_private(env_file, limit=MAX_FILE)
        except FileNotFoundError:
            content = b""
        given = {**parse_env_file(_decode(content, str(env_file)), str(env_file)), **given}
    return {name: secret for name, secret in given.items() if name in needed}


def _read_source(source: SecretSource, environment: MutableMapping[str, str]) -> Secret:
    if source.kind == "env":
        value = environment.get(source.place)
        if value is None:
            raise UsageError(f"--secret {source.name}: the environment variable {source.place} is not set")
        if not value:
            raise UsageError(f"--secret {source.name}: the environment variable {source.place} is empty")
        _decode(os.fsencode(value), f"--secret {source.name}: the environment variable {source.place}")
        return Secret(value)
    path = Path(source.place)
    try:
        content = read_private(path, limit=MAX_FILE)
    except FileNotFoundError:
        raise UsageError(f"--secret {source.name}: there is no file {path}") from None
    value = _decode(content, str(path)).removesuffix("\n")
    if not value:
        raise UsageError(f"--secret {source.name}: the file {path} is empty")
    return Secret(value)


def _decode(content: bytes, file: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8 text") from None


def _unquote(raw: str, where: str) -> str:
    if match := _SINGLE_QUOTED.fullmatch(raw):
        return match[1]
    if match := _DOUBLE_QUOTED.fullmatch(raw):
        return re.sub(r"\\(.)", lambda escape: _unescape(escape[1], where), match[1])
    if not raw or _BARE.fullmatch(raw):
        return raw
    raise ConfigError(f"{where}: put the value in single quotes; without them it may hold no space, quote, \\ or #")


def _unescape(letter: str, where: str) -> str:
    if letter not in _ESCAPES:
        raise ConfigError(f'{where}: inside "…" a backslash may stand only before n r t " \\ or $')
    return _ESCAPES[letter]
