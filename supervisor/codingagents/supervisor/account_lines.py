"""CORE: the session's accounts as lines of passwd(5) and group(5), put into such a file and taken out again. Pure.

What the file holds is bytes, in whatever state its image left it, and stays as it is, byte by byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from codingagents.rewrite import places
from codingagents.rewrite.specs import UidPlan

AGENT: Final = "agentcli"
TASK: Final = "agentuser"
WORKSPACE_GROUP: Final = "agentwork"
SHELL: Final = "/bin/sh"
_NO_SHELL: Final = "/usr/sbin/nologin"
_NO_HOME: Final = "/nonexistent"
# No password's hash, so none is the right one; and nothing that passwd(1) or usermod(8) would unlock, as "!" is. "x"
# would send readers on to shadow(5), where an account without a line is an error to some.
_NO_PASSWORD: Final = "*"  # noqa: S105 -- exactly not one


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: a name, its number (UID or GID), and the line's text without its end."""

    name: str
    number: int
    line: bytes


@dataclass(frozen=True, slots=True)
class Accounts:
    """All of a session, as lines of each file."""

    passwd: tuple[Entry, ...]
    group: tuple[Entry, ...]


def accounts_of(uids: UidPlan, agent_shell: str = SHELL) -> Accounts:
    """Return the accounts of a session; each has a group of its own number, for that is its GID."""
    users = [(AGENT, uids.agent, places.AGENT_HOME, agent_shell), (TASK, uids.task, _NO_HOME, SHELL)]
    users += [(f"mcp-{name}", uid, _NO_HOME, _NO_SHELL) for name, uid in uids.servers.items()]
    groups = [(name, uid, "") for name, uid, _, _ in users]
    groups.append((WORKSPACE_GROUP, uids.workspace_gid, f"{AGENT},{TASK}"))
    return Accounts(
        passwd=tuple(
            Entry(name, uid, f"{name}:{_NO_PASSWORD}:{uid}:{uid}:coding-agents:{home}:{shell}".encode())
            for name, uid, home, shell in users
        ),
        group=tuple(
            Entry(name, gid, f"{name}:{_NO_PASSWORD}:{gid}:{members}".encode()) for name, gid, members in groups
        ),
    )


def conflict(data: bytes, wanted: Sequence[Entry]) -> str:
    """Return why `wanted` cannot be in the file beside what is there: a name or a number is another's; "" if it can."""
    names, numbers = _known(data)
    for entry in wanted:
        if names.get(entry.name, entry.number) != entry.number:
            return f"{entry.name} is another's: it has the ID {names[entry.name]}"
        if numbers.get(entry.number, entry.name) != entry.name:
            return f"the ID {entry.number} is {numbers[entry.number]}'s"
    return ""


def missing(data: bytes, wanted: Sequence[Entry]) -> list[Entry]:
    """Return those whose names are not in the file."""
    names, _ = _known(data)
    return [entry for entry in wanted if entry.name not in names]


def shell_of(data: bytes, uid: int) -> str:
    """Return the shell of the first account in passwd(5) that has this UID; "" where there is none."""
    for line in data.split(b"\n"):
        fields = line.split(b":")
        if len(fields) == 7 and fields[2] == b"%d" % uid and not line.startswith((b"+", b"-", b"#")):
            return fields[6].decode(errors="surrogateescape")
    return ""


def add(data: bytes, wanted: Sequence[Entry]) -> tuple[bytes, bytes]:
    """Return the file with all that is missing of `wanted`, and the piece that was put in, for `remove`.

    It is put before the first NIS line (`+` or `-`), for those speak of all names after them; else at the end, and
    where that is no end of a line, behind one, so that neither the last line nor its end changes.
    """
    text = b"".join(entry.line + b"\n" for entry in missing(data, wanted))
    if not text:
        return data, b""
    at = _first_nis_line(data)
    if at == len(data) and data and not data.endswith(b"\n"):
        text = b"\n" + text[:-1]
    return data[:at] + text + data[at:], text


def remove(data: bytes, piece: bytes) -> bytes:
    """Return the file without the piece that `add` put in; without its lines one by one where it is not whole."""
    if not piece:
        return data
    around = b"\n" + data + b"\n"
    whole = b"\n" + piece.strip(b"\n") + b"\n"
    at = around.find(whole)
    if at >= 0:
        start, end = at, at + len(piece)  # in `data`, which begins one byte later
        if piece.startswith(b"\n"):
            start, end = at - 1, at - 1 + len(piece)
        if start >= 0 and data[start:end] == piece:
            return data[:start] + data[end:]
    ours = set(piece.strip(b"\n").split(b"\n"))
    return b"".join(line for line in _lines(data) if line.removesuffix(b"\n") not in ours)


def _lines(data: bytes) -> list[bytes]:
    """Return the lines with their ends; a carriage return is part of a line, as it is to the C library."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines


def _first_nis_line(data: bytes) -> int:
    offset = 0
    for line in _lines(data):
        if line.startswith((b"+", b"-")):
            return offset
        offset += len(line)
    return offset


def _known(data: bytes) -> tuple[dict[str, int], dict[int, str]]:
    """Return the ID of each name, -1 where its line has none, and the first name of each ID."""
    names: dict[str, int] = {}
    numbers: dict[int, str] = {}
    for line in data.split(b"\n"):
        fields = line.lstrip().split(b":")
        if not fields[0] or fields[0].startswith((b"#", b"+", b"-")):
            continue
        name = fields[0].decode(errors="backslashreplace")
        digits = fields[2] if len(fields) > 2 else b""
        number = int(digits) if len(digits) <= 10 and digits.isdigit() else -1
        names.setdefault(name, number)
        numbers.setdefault(number, name)
    return names, numbers
