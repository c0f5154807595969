"""Lines for the person at the terminal. Standard output belongs to the session, so all of it goes to standard error."""

from __future__ import annotations

import sys

PROGRAM = "coding-agents"
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


def printable(text: str) -> str:
    r"""Return `text` on one line, with everything that could steer a terminal written as `\xNN` or `\uNNNN`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def say(text: str) -> None:
    """Print one line from us, marked as ours; bold mark on a terminal, plain text elsewhere."""
    mark = f"{_BOLD}{PROGRAM}:{_PLAIN}" if sys.stderr.isatty() else f"{PROGRAM}:"
    print(mark, printable(text), file=sys.stderr, flush=True)  # noqa: T201 -- the one place that prints for people
