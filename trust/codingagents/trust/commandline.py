"""SHELL: what every command of ours has in common: argparse whose mistakes are sentences, and output that fails in one.

Knows no command. `--help` still prints and exits as argparse has it.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable
from typing import Final, NoReturn, TextIO

from codingagents.trust.errors import EXIT_REFUSED, AgentError, UsageError

_DISK_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are a `UsageError`."""

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError` with argparse's sentence and where to look."""
        raise UsageError(f"{message}; see: {self.prog} --help")


def printing(command: Callable[[], int]) -> int:
    """Run `command` and return its exit code, once what it printed is written.

    What goes to a stream that whoever started us closed is dropped: they want none; a closed input is empty. Where the
    reader of standard output has gone there is nobody to tell, and the code is `EXIT_REFUSED`; where there is no room,
    it is an `AgentError`.
    """
    _open_what_is_closed()
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _forget(sys.stdout)
        return EXIT_REFUSED
    except OSError as error:
        if error.errno not in _DISK_ERRORS or error.filename is not None:
            raise
        _forget(sys.stdout)
        why = f"standard output cannot be written: {error.strerror}; make room, or send it elsewhere"
        raise AgentError(why) from None


def complain(sentence: str) -> None:
    """Write a line to standard error; one that nobody can be told is dropped, and the exit code must say it alone."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(f"coding-agents: {sentence}\n")
        sys.stderr.flush()
    except OSError:
        _forget(sys.stderr)


def _open_what_is_closed() -> None:
    """Have 0, 1 and 2 lead nowhere rather than to what is opened next, here and in a program that replaces this one."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _forget(stream: TextIO) -> None:
    """Let what is still to be written go nowhere, or Python complains once more as it flushes on exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
