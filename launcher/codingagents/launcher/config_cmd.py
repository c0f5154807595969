"""SHELL: `coding-agents config check` and `config render`: what a configuration means, before any session.

Reads, asks `rewrite`, prints. Needs no secret and shows none: where a session makes a port and a local bearer,
the output says PORT and LOCAL-BEARER.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from codingagents.launcher.terminal import say
from codingagents.rewrite import places
from codingagents.rewrite.anchors import read_anchors
from codingagents.rewrite.check import Row, check_expiry, rows_of
from codingagents.rewrite.clients.base import Endpoint, loopback_url
from codingagents.rewrite.clients.codex import passed_through
from codingagents.rewrite.clients.known import CLIENTS, left_out
from codingagents.rewrite.override_store import OverrideStore
from codingagents.rewrite.plan import anchor_sources, not_available
from codingagents.rewrite.reading import read_config
from codingagents.trust.errors import EXIT_OK, EXIT_REFUSED
from codingagents.trust.terminal import printable
from codingagents.trust.vocabulary import Secret

_COLUMNS = ("server", "kind", "state", "target", "transport", "listen", "trust", "secrets", "client auth")


def check(path: Path, overrides: OverrideStore, *, as_json: bool) -> int:
    """Print one row for each server, and each warning to standard error; raises `AgentError` for the first mistake.

    Trust stores are read as a session would read them. `EXIT_REFUSED` where the file is right and a session would
    still refuse what it wishes for.
    """
    config, _ = read_config(path)
    anchors = read_anchors(anchor_sources(config), config.file, overrides)
    refusals = list(not_available(config))
    today = datetime.datetime.now(datetime.UTC).date()
    doubtful = (warning for each in anchors.values() for warning in each.warnings)
    warnings = [*config.warnings, *doubtful, *check_expiry(config, today), *left_out(config)]
    rows = rows_of(config)
    if as_json:
        _print_json(
            {
                "file": str(path),
                "servers": [dataclasses.asdict(row) for row in rows],
                "warnings": warnings,
                "refusals": refusals,
            }
        )
        return EXIT_REFUSED if refusals else EXIT_OK
    for warning in warnings:
        say(f"warning: {warning}")
    for refusal in refusals:
        say(f"a session would not start: {refusal}")
    _print_table([_COLUMNS, *map(_cells, rows)])
    return EXIT_REFUSED if refusals else EXIT_OK


def render(path: Path, *, client: str, as_json: bool) -> int:
    """Print the files that `client` would be given and the switches that make it use them. Raises `AgentError`."""
    config, _ = read_config(path)
    endpoints = [
        Endpoint(
            name=server.name,
            url=loopback_url(server.spec, "PORT"),
            bearer=Secret("LOCAL-BEARER"),
            transport=server.spec.transport,
        )
        for server in config.remotes
        if server.spec.listen != "unix"
    ]
    over_tls = any(server.spec.listen == "https" for server in config.remotes)
    files = [
        (f"{places.CLIENTS}/{file.path}", file.content.decode())
        for file in CLIENTS[client].render(endpoints, passed_through(config))
    ]
    switches = CLIENTS[client].switches(places.CLIENTS, places.SESSION_CA if over_tls else None)
    warnings = list(left_out(config, {client: CLIENTS[client]}))
    if as_json:
        _print_json(
            {
                "client": client,
                "files": [{"path": name, "content": content} for name, content in files],
                "arguments": switches.arguments,
                "environment": dict(switches.environment),
                "warnings": warnings,
            }
        )
        return 0
    for warning in warnings:
        say(f"warning: {warning}")
    lines = [f"# {name}\n{content.rstrip()}\n" for name, content in files]
    started = (*(f"{name}={value}" for name, value in switches.environment.items()), client, *switches.arguments)
    sys.stdout.write("\n".join([*lines, f"# started as\n{' '.join(started)}\n"]))
    return 0


def _cells(row: Row) -> tuple[str, ...]:
    state = "on" if row.enabled else "off"
    lists = (", ".join(row.secrets), ", ".join(row.client_auth))
    shown = (row.server, row.kind, state, row.target, row.reached, row.listen, row.trust, *lists)
    return tuple(printable(cell) or "-" for cell in shown)


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=True) + "\n")
