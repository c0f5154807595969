"""CORE: the name of an override in the `ca_overrides` of one server, in the text of a config.toml.

Each place where it could be written is tried, and the first text counts that means just what was wanted: a `[table]`
within a string, or a name in a comment, gives another meaning and is passed over. What stands elsewhere is kept as it
is. Decides nothing about trust. No I/O.
"""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Iterator

from codingagents.rewrite.parse import parse_config
from codingagents.trust.errors import ConfigError

_LIST = re.compile(r"ca_overrides[ \t]*=[ \t]*\[[^\]]*\]")
_INLINE = re.compile(r"tls[ \t]*=[ \t]*\{")
_HEADER = re.compile(r"^[ \t]*\[[^\n]*\][^\n]*\n", re.MULTILINE)


def with_override(text: str, file: str, server: str, name: str) -> str:
    """Return `text`, the content of `file`, with override `name` in the `ca_overrides` of https server `server`.

    Raises `ConfigError` where the text does not load, or is written in a way that none of the places fits.
    """
    parse_config(text, file, unpinned_credentials=True)
    wanted = copy.deepcopy(tomllib.loads(text))
    names = wanted["mcp_servers"][server].setdefault("tls", {}).setdefault("ca_overrides", [])
    if name in names:
        return text
    names.append(name)
    value = f"[{', '.join(map(json.dumps, names))}]"
    for edited in _attempts(text, server, value):
        try:
            if tomllib.loads(edited) == wanted:
                return edited
        except tomllib.TOMLDecodeError:
            continue
    raise ConfigError(f"{file}: write it there yourself: [mcp_servers.{server}.tls] ca_overrides = {value}")


def _attempts(text: str, server: str, value: str) -> Iterator[str]:
    """Yield texts with `value` in one place each, those that read best first."""
    newline = "\r\n" if "\r\n" in text else "\n"
    for found in _LIST.finditer(text):
        yield f"{text[: found.start()]}ca_overrides = {value}{text[found.end() :]}"
    headers = [found.end() for found in _HEADER.finditer(text)]
    yield from (f"{text[:at]}ca_overrides = {value}{newline}{text[at:]}" for at in headers)
    for found in _INLINE.finditer(text):
        more = "" if re.match(r"\s*\}", text[found.end() :]) else ","
        yield f"{text[: found.end()]} ca_overrides = {value}{more}{text[found.end() :]}"
    gap = newline if text.endswith("\n") else 2 * newline
    yield f"{text}{gap}[mcp_servers.{server}.tls]{newline}ca_overrides = {value}{newline}"
    yield from (f"{text[:at]}tls.ca_overrides = {value}{newline}{text[at:]}" for at in headers)
