"""ENTRY: commands of the container's half, reached as processes: this host program is replaced by them.

The launcher never imports the supervisor, so neither its event loop nor its authority is ever in this process. Of
`helper`, only `list` is one of them: `run` is of both sides.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from codingagents.trust.errors import ProcessError

COMMANDS = {
    "doctor": "Report which confinement layers hold here, each with how it was tried.",
    "events": "Read an event log as it grows, or prove it: tail, verify.",
    "exec": "Run a command as a task: run, shell. Say which rule decides about a program: explain. List tasks: list.",
    "init": "Run a command under a well-behaved init: reaping, signals, exit codes.",
    "wrap": "Guard the programs of clients in an image: install, remove, list.",
}

_TASK_OPTIONS = ("--tty", "--no-tty", "--cwd", "--env")
EXEC_OPTIONS = {  # of the commands of `exec`, to be completed
    "explain": ("--role", "--session", "--config", "--json"),
    "health": (),
    "list": ("--session", "--json"),
    "run": _TASK_OPTIONS,
    "shell": _TASK_OPTIONS,
}


def become(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by the supervisor's command line with `arguments`; `ProcessError` where that fails."""
    argv = [sys.executable, "-I", "-m", "codingagents.supervisor", *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(argv[0], argv)  # noqa: S606 -- no shell is the point
    except OSError as error:
        raise ProcessError(f"cannot execute {argv[0]}: {error.strerror}") from None
