"""SHELL: what the actions of `coding-agents trust` share: the store, who uses it, and how what they found is printed.

What certificates say is escaped here. Decides nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from codingagents.launcher.terminal import say
from codingagents.rewrite import places
from codingagents.rewrite.certificates import CertificateFacts
from codingagents.rewrite.config import RemoteServer
from codingagents.rewrite.override_store import OverrideStore
from codingagents.rewrite.reading import read_config
from codingagents.trust.commandline import Parser
from codingagents.trust.errors import AgentError, NotFoundError, UsageError
from codingagents.trust.terminal import printable

if TYPE_CHECKING:
    Actions = argparse._SubParsersAction[Parser]  # noqa: SLF001 -- argparse has no public name for it
else:
    Actions = object


class ParserText(TypedDict):
    """What `add_parser` is told of an action."""

    description: str
    help: str
    formatter_class: type[argparse.HelpFormatter]
    allow_abbrev: bool


def parser_text(text: str) -> ParserText:
    """Return what an action's parser shows: all of `text` as its help, the first line in its parent's."""
    return {
        "description": text,
        "help": text.splitlines()[0],
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "allow_abbrev": False,
    }


def base() -> Path:
    """Return `~/.config/coding-agents`; `UsageError` without a home directory."""
    try:
        return Path.home() / places.HOST_CONFIG
    except RuntimeError:
        raise UsageError("there is no home directory to keep trust overrides in; set HOME") from None


def store() -> OverrideStore:
    """Return this user's overrides."""
    return OverrideStore(base() / places.OVERRIDES)


class User(NamedTuple):
    """A server of a configuration, and the overrides that it names."""

    name: str
    host: str  # the name that is verified
    overrides: tuple[str, ...]


def users(config: Path | None) -> list[User]:
    """Return the https servers of a configuration, None for the usual one; [] and a warning where it cannot be read."""
    try:
        read, _ = read_config(config or base() / "config.toml", unpinned_credentials=True)
    except NotFoundError:
        if config is not None:
            raise
        return []
    except AgentError as error:
        say(f"warning: who uses an override is not known: {error}")
        return []
    remotes = (server for server in read.servers if isinstance(server, RemoteServer))
    return [User(each.name, each.anchors.server_name, each.anchors.overrides) for each in remotes if each.anchors]


def certificate_lines(facts: CertificateFacts, now: datetime.datetime) -> Iterator[str]:
    """Yield what a person should know of one certificate, a line each."""
    kind = "a certificate authority" if facts.is_ca else "no certificate authority"
    if facts.is_ca and facts.path_length is not None:
        kind += f", with at most {facts.path_length} below it"
    days = (facts.not_after - now).days
    rows = {
        "subject": facts.subject or "(none)",
        "issuer": "itself" if facts.self_signed else facts.issuer or "(none)",
        "kind": kind,
        "names": ", ".join(facts.sans),
        "only for": ", ".join(facts.permitted),
        "never for": ", ".join(facts.excluded),
        "uses": ", ".join(facts.extended_key_usage),
        "valid": f"{facts.not_before:%Y-%m-%d} to {facts.not_after:%Y-%m-%d}, {days} days left",
        "key": f"{facts.key_kind}, {facts.key_bits} bits",
        "sha256": facts.fingerprint,
        "spki": facts.spki,
    }
    for label, text in rows.items():
        if text:
            yield f"  {label:<10}{printable(text)}"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], loud: Collection[str]) -> None:
    """Print cells that are escaped: a table on a terminal, where those that are `loud` are red; else a line a row."""
    if sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415 -- slow to load, and for terminals only
        from rich.table import Table  # noqa: PLC0415 -- likewise
        from rich.text import Text  # noqa: PLC0415 -- likewise

        table = Table(*columns)
        for row in rows:
            table.add_row(*(Text(cell, "bold red" if cell in loud else "", overflow="fold") for cell in row))
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def print_json(value: object) -> None:
    """Print `value` for programs."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=True) + "\n")
