"""SHELL: lines for the person at the terminal, on standard error: standard output belongs to the session."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import NoReturn

from codingagents.trust.terminal import printable

PROGRAM = "coding-agents"
PATIENCE_SECONDS = 1.0
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


def say(text: str) -> None:
    """Print one line from us, marked as ours; bold mark on a terminal, plain text elsewhere."""
    mark = f"{_BOLD}{PROGRAM}:{_PLAIN}" if sys.stderr.isatty() else f"{PROGRAM}:"
    print(mark, printable(text), file=sys.stderr, flush=True)  # noqa: T201 -- the one place that prints for people


def say_briefly(text: str) -> None:
    """Print as `say` does, if somebody reads it within a second; after that nothing more is said to anybody.

    For lines beside a session: its signals are blocked, and a reader who stopped would keep us for ever.
    """
    former = signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_SECONDS)
    try:
        say(text)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except TimeoutError:
        # What Python still holds of the line would block it once more as it exits.
        with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stderr.fileno())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def _give_up(*_: object) -> NoReturn:
    raise TimeoutError
