"""CORE: what was found as text: Markdown for `docs/benchmarks.md`, plain lines for a pipe. No I/O.

The terminal's tables are rich's and are drawn by `run`.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.results import BUDGET_COLUMNS, Judged, Part, Table

_INTRODUCTION = """\
# Benchmarks

Written by `make bench`; do not edit. Absolute figures are those of one machine and do not carry over; ratios are taken
within each round, targets in turn, and roughly do. A figure is the median, with the least and the most of the rounds in
parentheses. All proxies take HTTP on 127.0.0.1, demand a local bearer, put the upstream's credential in its place and
verify the upstream's certificate, except that `mcp-proxy` demands no bearer. The helper is a real one: cloned by its
zygote, confined, pins checked, the caller's UID asked of the kernel, an event for each request read by another process;
peers log nothing.
"""


def budget_table(judged: Sequence[Judged]) -> Table:
    """Return all budgets as one table."""
    return Table(BUDGET_COLUMNS, [one.cells() for one in judged])


def plain(table: Table) -> str:
    """Return `table` as aligned columns."""
    cells = [table.columns, *table.rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def markdown(table: Table) -> str:
    """Return `table` as Markdown."""
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def document(parts: Sequence[Part], machine: list[list[str]], day: str, remarks: str) -> str:
    """Return `docs/benchmarks.md`; `remarks` are a person's, on what the figures say."""
    judged = [one for part in parts for one in part.judged]
    sections = [
        _INTRODUCTION,
        f"## Machine and versions, {day}\n\n{markdown(Table(['what', 'which'], machine))}\n",
        f"## Budgets\n\n{markdown(budget_table(judged))}\n",
    ]
    if remarks:
        sections.append(f"## What falls short, and why\n\n{remarks}")
    for part in parts:
        tables = "\n\n".join(map(markdown, part.tables))
        sections.append(f"## {part.title}\n\n{part.how}\n" + (f"\n{tables}\n" if tables else ""))
    return "\n".join(sections)
