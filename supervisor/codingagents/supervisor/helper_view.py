"""SHELL: the list of helpers for a person: a table on a terminal, one plain line a helper in a pipe. Prints nothing.

What a helper chose (the reasons) is shown without anything that could steer the terminal.
"""

from __future__ import annotations

import io
from typing import Final

from codingagents.supervisor.helper_listing import HelperList, HelperRow, TrustRow
from codingagents.trust.terminal import printable

_MARKS: Final = {"ready": "green", "degraded": "yellow", "restarting": "yellow", "failed": "red"}
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"))


def as_text(listed: HelperList, terminal: bool) -> str:
    """Return all rows, each as a line or more; a sentence where there is none."""
    if not listed.helpers:
        return f"session {listed.session} has no helpers\n"
    return _table(listed) if terminal else "".join(map(_plain, listed.helpers))


def duration(seconds: float | None) -> str:
    """Return `3s`, `12m`, `5h` or `2d`: whole units, rounded down; `-` for None."""
    if seconds is None:
        return "-"
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def size(row: HelperRow) -> str:
    """Return what a helper weighs in MB: its own memory where that is known, else all that is resident."""
    if row.memory is None:
        return "-"
    if row.memory.uss_bytes is not None:
        return f"{row.memory.uss_bytes / 1e6:.1f}"
    return f"<={row.memory.rss_bytes / 1e6:.1f}"


def _plain(row: HelperRow) -> str:
    text = (
        f"{row.server} {row.state} {row.listen} uid {row.uid} pid {row.pid or '-'} up {duration(row.uptime_seconds)}"
        f" restarts {row.restarts} requests {row.requests} errors {row.errors} refused {row.refused}"
        f" connections {row.connections} upstream {row.upstream_connections} {row.upstream} MB {size(row)}"
    )
    trust = "" if row.trust is None else f" {' '.join(_trust(row.trust))}"
    marks = "" if row.trust is None else "".join(f" [{mark}]" for mark in trust_marks(row.trust))
    return f"{text}{trust}{marks}{_reasons(row)}\n"


def trust_marks(trust: TrustRow) -> list[str]:
    """Return what nobody should overlook: that a pin is not asked for, or something has ended."""
    marks = []
    if trust.credential == "without-pin":
        marks.append("CREDENTIAL WITHOUT PIN")
    if trust.overrides_pins:
        marks.append(f"PINS OVERRIDDEN by {' '.join(trust.overrides_pins)}")
    if trust.pins_days_left is not None and trust.pins_days_left < 0:
        marks.append("PINS EXPIRED")
    if trust.leaf_days_left is not None and trust.leaf_days_left < 0:
        marks.append("CERTIFICATE EXPIRED")
    return marks


def _trust(trust: TrustRow) -> list[str]:
    """Return how a server is trusted: mode and days left of its pins, days left of its certificate, by what anchor."""
    return [
        f"pins {trust.pin_mode} {_days(trust.pins_days_left)}",
        f"leaf {_days(trust.leaf_days_left)}",
        f"by {printable(trust.anchored_by or '-')}",
        f"credential {trust.credential}",
    ]


def _days(left: int | None) -> str:
    return "-" if left is None else f"{left}d"


def _reasons(row: HelperRow) -> str:
    return f": {printable('; '.join(row.degraded))}" if row.degraded else ""


def _table(listed: HelperList) -> str:
    from rich.console import Console  # noqa: PLC0415 -- 20 ms that a pipe does without
    from rich.table import Table  # noqa: PLC0415 -- likewise
    from rich.text import Text  # noqa: PLC0415 -- likewise

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("server", overflow="fold")
    table.add_column("state", no_wrap=True)
    for column in ("pid", "up", "restarts", "requests", "errors", "refused", "open", "MB"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in listed.helpers:
        process = (str(row.pid or "-"), duration(row.uptime_seconds))
        counts = map(str, (row.restarts, row.requests, row.errors, row.refused))
        connections = f"{row.connections}+{row.upstream_connections}"
        state = Text(row.state, _MARKS.get(row.state, ""))
        table.add_row(row.server, state, *process, *counts, connections, size(row))
    out = io.StringIO()
    console = Console(file=out, force_terminal=True)
    console.print(table, Text("open: connections of clients, and to the server", "dim"))
    for row in listed.helpers:  # too long for a column
        trust = "" if row.trust is None else f", {', '.join(_trust(row.trust))}"
        console.print(Text(f"{row.server}: {row.listen}{trust}{_reasons(row)}"))
        for mark in () if row.trust is None else trust_marks(row.trust):
            console.print(Text(f"{row.server}: {mark}", "bold red"))
    return out.getvalue()
