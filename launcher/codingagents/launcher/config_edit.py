"""CORE: new pins in the text of a config.toml, every byte outside of them kept.

The text is cut into statements (`[table]` and `key = value`), and only those that say something of one server's pins
are written anew, so that no comment, order or spelling elsewhere can change; an inline table is edited by tomlkit,
inside of its statement. What comes out is read again and must mean what was wanted, or it is refused: nothing that
this way of cutting could get wrong is ever written. Decides nothing about pins. No I/O.
"""

from __future__ import annotations

import datetime
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import tomlkit
from tomlkit.exceptions import TOMLKitError

from codingagents.rewrite.config import RemoteServer
from codingagents.rewrite.parse import parse_config
from codingagents.rewrite.specs import PinSpec
from codingagents.trust.errors import ConfigError

# Strings and comments, in which brackets and line ends mean nothing; a string over several lines ends in three to five
# quotes. After them what does mean something.
_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")'
    r"|'''.*?'{3,5}(?!')"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|[\[\]{}\n]",
    re.DOTALL,
)
_KEY = re.compile(r"""((?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[^="'])*)=\s*""")

_ENFORCE = '"enforce"'

_Path = tuple[str, ...]
_Values = Mapping[str, str]  # keys of the table of pins, and their values as TOML


@dataclass(frozen=True, slots=True)
class _Statement:
    """`text[start:end]`: a header, or a key and its value, without the comment after it."""

    start: int
    value: int  # where the value starts; of a header: `end`
    end: int
    line_end: int  # after the line's end
    table: _Path  # of the header above it, or its own
    key: _Path  # below that; empty for a header

    @property
    def path(self) -> _Path:
        return (*self.table, *self.key)


class _Edit(NamedTuple):
    start: int
    end: int
    text: str


def with_pins(text: str, file: str, server: str, pins: Sequence[PinSpec], expires: datetime.date) -> str:
    """Return `text`, the content of `file`, with these pins and this date for the remote `server`.

    All else that its table of pins says is kept; but a mode becomes enforce where the server has a credential that only
    this lets load. Raises `ConfigError` where `text` or the result does not load, other servers' pins left aside, or
    where the table is written in a way that cannot be edited safely.
    """
    new = {"expires": expires.isoformat(), "pin": _array(pins)}
    config = parse_config(text, file, unpinned_credentials=True)
    if any(
        each.name == server and isinstance(each, RemoteServer) and each.unpinned_credential for each in config.servers
    ):
        new = {"mode": _ENFORCE, **new}
    try:
        edited = _applied(text, _edits(text, ("mcp_servers", server, "tls", "pins"), new))
        meant = tomllib.loads(edited) == _wanted(text, server, new)
    except (tomllib.TOMLDecodeError, TOMLKitError, LookupError, TypeError, ValueError):
        meant = False
    if not meant:
        raise ConfigError(
            f"{file}: [mcp_servers.{server}.tls.pins] is written in a way that cannot be edited safely; "
            "write it as a table of its own, then try again"
        )
    parse_config(edited, file, unpinned_credentials=True)
    return edited


def pins_table(server: str, pins: Sequence[PinSpec], expires: datetime.date) -> str:
    """Return a whole table that enforces `pins`, as TOML."""
    return _table(server, {"expires": expires.isoformat(), "pin": _array(pins)})


def _table(server: str, new: _Values) -> str:
    return f"[mcp_servers.{server}.tls.pins]\n" + _lines({"mode": _ENFORCE, **new})


def _lines(new: _Values) -> str:
    return "".join(f"{key} = {value}\n" for key, value in new.items())


def _edits(text: str, target: _Path, new: _Values) -> list[_Edit]:
    statements = list(_statements(text))
    for each in statements:
        # An inline table is whole: nothing elsewhere may add to it.
        if each.key and each.path == target[: len(each.path)]:
            return [_Edit(each.start, each.end, _inline(text[each.start : each.end], each, target, new))]
    within = [each for each in statements if each.path[:4] == target and each.table[:5] != (*target, "pin")]
    there = {each.path[4]: each for each in within if len(each.path) == 5 and each.path[4] in new}
    edits = [_Edit(each.value, each.end, new[key]) for key, each in there.items()]
    # Each [[…pin]] is taken out; what stands after its last statement stays.
    edits += [
        _Edit(text.rfind("\n", 0, row[0].start) + 1, row[-1].line_end, "")
        for row in _sections(statements)
        if row[0].table == (*target, "pin")
    ]
    if within:
        at, below = within[-1].line_end, len(within[-1].table)
        added = _lines({".".join((*target, key)[below:]): value for key, value in new.items() if key not in there})
    else:
        about = [each for each in _sections(statements) if any(one.path[:2] == target[:2] for one in each)]
        at, added = about[-1][-1].line_end, "\n" + _table(target[1], new)
    return [*edits, _Edit(at, at, added if text[at - 1] == "\n" or not added else "\n" + added)]


def _inline(statement: str, found: _Statement, target: _Path, new: _Values) -> str:
    document = tomlkit.parse(statement)
    table: Any = document
    for key in found.key:
        table = table[key]
    for key in target[len(found.path) : 3]:
        table = table.setdefault(key, tomlkit.inline_table())
    if len(found.path) < 4:
        if "pins" not in table:
            whole = ", ".join(f"{key} = {value}" for key, value in {"mode": _ENFORCE, **new}.items())
            table["pins"] = tomlkit.parse(f"pins = {{ {whole} }}")["pins"]
            return tomlkit.dumps(document)
        table = table["pins"]
    for key, value in tomlkit.parse(_lines(new)).items():
        table[key] = value
    return tomlkit.dumps(document)


def _applied(text: str, edits: Iterable[_Edit]) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    parts, at = [], 0
    for start, end, new in sorted(edits, key=lambda edit: edit[:2]):
        parts += [text[at:start], new.replace("\n", newline)]
        at = end
    return "".join((*parts, text[at:]))


def _wanted(text: str, server: str, new: _Values) -> dict[str, Any]:
    values = tomllib.loads(text)
    table = values["mcp_servers"][server].setdefault("tls", {}).setdefault("pins", {"mode": "enforce"})
    table |= tomllib.loads(_lines(new))
    return values


def _array(pins: Sequence[PinSpec]) -> str:
    return "[\n" + "".join(f"    {_row(pin)},\n" for pin in pins) + "]"


def _row(pin: PinSpec) -> str:
    parts = [f"spki = {_text(pin.spki)}" if pin.spki else f"cert_sha256 = {_text(pin.cert_sha256)}"]
    if pin.at != "any":
        parts.append(f"at = {_text(pin.at)}")
    if pin.backup:
        parts.append("backup = true")
    if pin.note:
        parts.append(f"note = {_text(pin.note)}")
    return "{ " + ", ".join(parts) + " }"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # without control characters, a JSON string is a TOML one


def _sections(statements: Sequence[_Statement]) -> list[list[_Statement]]:
    """Return the statements by the header that they stand under; the first may have none."""
    sections: list[list[_Statement]] = []
    for each in statements:
        if not each.key or not sections:
            sections.append([])
        sections[-1].append(each)
    return sections


def _statements(text: str) -> Iterator[_Statement]:
    """Cut valid TOML into its statements; comments and empty lines belong to none."""
    table: _Path = ()
    start = depth = 0
    comment: int | None = None
    for match in _TOKEN.finditer(text + "\n"):
        mark = match[0]
        depth += (mark in "[{") - (mark in "]}")
        if depth == 0 and mark[0] == "#":
            comment = match.start()
        if depth or mark != "\n":
            continue
        raw = text[start : match.start() if comment is None else comment]
        if statement := raw.strip():
            first = start + len(raw) - len(raw.lstrip())
            end, line_end = first + len(statement), min(match.end(), len(text))
            if statement[0] == "[":
                table = _keys(statement)
                yield _Statement(first, end, end, line_end, table, ())
            elif found := _KEY.match(statement):
                yield _Statement(first, first + found.end(), end, line_end, table, _keys(f"{found[1]} = 0"))
        start, comment = match.end(), None


def _keys(statement: str) -> _Path:
    """Return the keys of a header, or of a key with a value that is no table."""
    keys: list[str] = []
    level: object = tomllib.loads(statement)
    while level and isinstance(level, (dict, list)):
        if isinstance(level, dict):
            keys += level
        (level,) = level.values() if isinstance(level, dict) else level
    return tuple(keys)
