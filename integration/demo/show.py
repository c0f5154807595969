"""How the demo shows itself: for a person on a terminal, or as plain lines in a pipe.

SHELL: it prints, and decides nothing. What programs said is shown with its control characters escaped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from codingagents.supervisor import report_view
from codingagents.trust.events import Layer
from codingagents.trust.terminal import printable
from demo.judging import Claim


class Show:
    """Prints to standard output."""

    def __init__(self) -> None:
        """Look whether that is a terminal."""
        self._terminal = sys.stdout.isatty()
        self._console = Console(highlight=False)
        self._status = self._console.status("")
        self._step = ""  # what a terminal still shows as going on

    def title(self, text: str) -> None:
        """Print what all this is."""
        self._print(text, "bold")

    def section(self, text: str) -> None:
        """Begin a group of claims."""
        self.settle()
        self._print("")
        self._print(text, "bold cyan")

    def step(self, text: str) -> None:
        """Say what happens now."""
        self.settle()
        if self._terminal:
            self._step = printable(text)
            self._status.update(Text(self._step, "dim"))
            self._status.start()
        else:
            print(f"  {printable(text)}", flush=True)

    def settle(self) -> None:
        """End the last step; nothing moves on the terminal any more."""
        self._status.stop()
        if self._step:
            self._print(f"  {self._step}", "dim")
            self._step = ""

    def claim(self, claim: Claim) -> None:
        """Print a claim: one line in a pipe."""
        observed = printable(claim.observed)
        if not self._terminal:
            print(f"{'ok' if claim.holds else 'FAILED':7} {claim.says}: {observed}", flush=True)
            return
        mark = Text("✔", "bold green") if claim.holds else Text("✘ FAILED", "bold red")
        row = Table.grid(padding=(0, 1))
        row.add_row(mark, Text(claim.says))
        row.add_row("", Text(observed, "dim" if claim.holds else "red"))
        self._console.print(row)

    def layers(self, rows: Sequence[Layer]) -> None:
        """Print the layer report as `coding-agents doctor` does."""
        report = report_view.as_text(rows, self._terminal)
        if self._terminal:
            self._console.print(Text.from_ansi(report.rstrip()))
        else:
            print(report, end="", flush=True)

    def summary(self, failed: Sequence[Claim], total: int, seconds: float) -> None:
        """Print the last line."""
        self._print("")
        if failed:
            names = ", ".join(claim.name for claim in failed)
            self._print(f"{len(failed)} of {total} claims do not hold: {names}. {seconds:.1f} s", "bold red")
        else:
            self._print(f"All {total} claims hold. {seconds:.1f} s", "bold green")

    def _print(self, text: str, style: str = "") -> None:
        if self._terminal:
            self._console.print(Text(text, style))
        else:
            print(text, flush=True)
