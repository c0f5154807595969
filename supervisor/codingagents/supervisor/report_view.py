"""SHELL: the layer report for people and for programs: text or JSON out of rows. Prints nothing itself."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from codingagents.trust.events import Layer
from codingagents.trust.vocabulary import Role

SCHEMA: Final = "coding-agents/layers/v1"
_MARKS: Final = {"enforced": "green", "partial": "yellow", "unavailable": "red", "disabled": "dim"}


def roles_as_json(reports: Mapping[Role, Sequence[Layer]], _terminal: bool = False) -> str:
    """Return the reports as one indented JSON object: `layers` of the first role, and `roles` with each one's."""
    rows = {role.value: [msgspec.to_builtins(row) for row in layers] for role, layers in reports.items()}
    document = {"schema": SCHEMA, "layers": next(iter(rows.values()), []), "roles": rows}
    return json.dumps(document, indent=2) + "\n"


def roles_as_text(reports: Mapping[Role, Sequence[Layer]], terminal: bool) -> str:
    """Return one table a role, under its name where there are several."""
    if len(reports) == 1:
        return "".join(as_text(rows, terminal) for rows in reports.values())
    return "\n".join(f"As the {role.value}:\n{as_text(rows, terminal)}" for role, rows in reports.items())


def as_text(rows: Sequence[Layer], terminal: bool) -> str:
    """Return a table on a terminal, and one plain line a layer with its remedy below it in a pipe."""
    if not terminal:
        return "".join(_plain(row) for row in rows)
    from rich.console import Console  # noqa: PLC0415 -- 20 ms that a pipe does without
    from rich.table import Table  # noqa: PLC0415 -- likewise
    from rich.text import Text  # noqa: PLC0415 -- likewise

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("layer", "state", "tried", "why, and what would change it"):
        table.add_column(column, overflow="fold")
    for row in rows:
        why = (
            row.why + (f"\n{row.consequence}" if row.consequence else "") + (f"\n→ {row.remedy}" if row.remedy else "")
        )
        table.add_row(row.layer, Text(row.state, _MARKS[row.state]), Text(row.probe), Text(why))
    out = io.StringIO()
    Console(file=out, force_terminal=True).print(table)
    return out.getvalue()


def _plain(row: Layer) -> str:
    text = f"{row.layer:15} {row.state:12} {row.probe}"
    for label, value in (("why", row.why), ("so", row.consequence), ("remedy", row.remedy)):
        if value:
            text += f"\n{'':15} {label}: {value}"
    return text + "\n"
