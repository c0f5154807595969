"""ENTRY: `make bench`: takes every figure in turn, prints them, writes `docs/benchmarks.md`.

    run.py [--quick] [--targets NAME,NAME] [--no-document] [PART…]

The exit code is 1 where a budget's must is missed, 2 for wrong usage. `--quick` takes seconds and shows only that
everything can be measured: its figures mean nothing, and neither it nor a choice of parts or targets writes the
document.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE.parent), str(ROOT / "tests")]  # `python -I` does not look beside the script

import rich.table
from rich.console import Console

from bench import machine, report
from bench.layout import layout
from bench.results import FULL, QUICK, Part, Plan, Table
from bench.targets import ALL
from bench.upstream import upstream

PROXIES = ("rates", "streams", "bodies", "starts", "profile")  # need targets
OTHERS = ("trust", "exec", "confine", "task", "startup", "init")
DOCUMENT = ROOT / "docs" / "benchmarks.md"
REMARKS = HERE / "remarks.md"  # of whoever looked at the last document


def load(name: str) -> ModuleType:
    """Return the module of the part `name`."""
    return importlib.import_module(f"bench.{name}")


def measure(names: Sequence[str], plan: Plan, chosen: tuple[str, ...]) -> Iterator[Part]:
    """Yield what each part finds."""
    proxies = [name for name in PROXIES if name in names]
    if proxies:
        with (
            tempfile.TemporaryDirectory(prefix="bench-") as directory,
            upstream(Path(directory)) as server,
            layout(server, chosen) as made,
        ):
            for name in proxies:
                yield load(name).measure(plan, made)
    for name in OTHERS:
        if name in names:
            yield load(name).measure(plan)


def show(console: Console, table: Table) -> None:
    """Print `table`: drawn on a terminal, aligned columns elsewhere."""
    if not console.is_terminal:
        print(report.plain(table) + "\n", flush=True)
        return
    drawn = rich.table.Table(*table.columns)
    for row in table.rows:
        style = {"MISSED": "red", "aim met": "green"}.get(row[-1], "")
        drawn.add_row(*row, style=style)
    console.print(drawn)


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="bench", description="Takes the figures of docs/benchmarks.md.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PROXIES + OTHERS)}; default all")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes; figures that mean nothing")
    parser.add_argument("--targets", default="", help=f"of {', '.join(ALL)}; default all")
    options = parser.parse_args(arguments)
    chosen = tuple(filter(None, options.targets.split(",")))
    for given, known in ((options.parts, PROXIES + OTHERS), (chosen, tuple(ALL))):
        if unknown := set(given) - set(known):
            parser.error(f"{', '.join(sorted(unknown))}: not one of {', '.join(known)}")
    if chosen and not {"direct", "nginx", "helper"} <= set(chosen):
        parser.error("direct, nginx and helper are what the others are compared with: name them too")
    if os.geteuid() != 0:
        parser.error("a helper runs under a UID of its own: run this as root")
    console = Console()
    begun = time.monotonic()
    parts = []
    for part in measure(options.parts or PROXIES + OTHERS, QUICK if options.quick else FULL, chosen):
        parts.append(part)
        print(f"{part.title}\n{part.how}\n", flush=True)
        for table in part.tables:
            show(console, table)
    judged = [one for part in parts for one in part.judged]
    if judged:
        show(console, report.budget_table(judged))
    print(f"{time.monotonic() - begun:.0f} s")
    if not (options.quick or options.parts or chosen):
        remarks = ""
        with contextlib.suppress(FileNotFoundError):
            remarks = REMARKS.read_text()
        day = datetime.datetime.now(datetime.UTC).date().isoformat()
        DOCUMENT.write_text(report.document(parts, machine.facts(), day, remarks))
    return 0 if options.quick or all(one.met for one in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
