"""SHELL: lines for the person at the terminal, on standard error: standard output belongs to the session."""

from __future__ import annotations

import sys

from codingagents.trust.terminal import printable

PROGRAM = "coding-agents"
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


def say(text: str) -> None:
    """Print one line from us, marked as ours; bold mark on a terminal, plain text elsewhere."""
    mark = f"{_BOLD}{PROGRAM}:{_PLAIN}" if sys.stderr.isatty() else f"{PROGRAM}:"
    print(mark, printable(text), file=sys.stderr, flush=True)  # noqa: T201 -- the one place that prints for people
