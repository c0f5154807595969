"""SHELL: argparse as every command of ours uses it: a mistake is one sentence with a remedy, an error like any other.

Knows no command. `--help` still prints and exits as argparse has it.
"""

from __future__ import annotations

import argparse
from typing import NoReturn

from codingagents.trust.errors import UsageError


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are a `UsageError`."""

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError` with argparse's sentence and where to look."""
        raise UsageError(f"{message}; see: {self.prog} --help")
