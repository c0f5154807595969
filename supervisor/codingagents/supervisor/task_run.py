"""ENTRY: `coding-agents exec run`, `exec shell` and `exec health`: the task runner for people and scripts.

Parses and asks; `task_client` does the rest, as for a task shell. In an image `agent-task-runnerctl` is `coding-agents
exec`, so `exec exec` is `exec run` under the name that it had there.
"""

from __future__ import annotations

import argparse
import os
import re
from typing import Final, NoReturn

from codingagents.rewrite import places
from codingagents.supervisor import shells, task_client
from codingagents.supervisor.task_client import Runner, TaskError
from codingagents.supervisor.task_wire import Request
from codingagents.trust.commandline import Parser, complain
from codingagents.trust.errors import EXIT_ENGINE, EXIT_OK, UsageError

COMMANDS: Final = ("run", "exec", "shell", "health")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMMON: Final = """\
It may be called by the session's agent and by root, where the session's /run/agent-task-runner is seen: in its
container, or for --engine local in the session itself.

The task gets of your environment what says how and where one works (PATH, LANG, LC_*, TERM, TZ, EDITOR and the like,
and what [exec] task_environment names), and what --env names. It starts in the directory where you are, or in --cwd's.
Its standard input, output and error are yours, or, where all three are a terminal, a terminal of its own that is shown
on yours. Signals are passed on: TERM, INT, HUP, QUIT, USR1, USR2, CONT, and TSTP as a stop. It is killed, with all that
it started, when this command is.

exit codes:
  the command's own; where a signal ended it, this command ends by the same signal (128+N to a shell)
  125  the task could not be had, or the session ended before it did: a sentence says why
  126  the command is there and cannot be executed
  127  there is no such command
"""
_RUN: Final = f"""\
Run COMMAND as a task of the session: as the tasks' user, in their sandbox, recorded in the log.

{_COMMON}
examples:
  coding-agents exec run -- make test
  coding-agents exec run --cwd /workspace --env DEBUG=1 --env MAKEFLAGS -- sh -c 'make 2>&1 | tail'
  coding-agents exec run --tty -- htop
"""
_SHELL: Final = f"""\
Run a shell as a task of the session: bash where there is one, else sh. ARGUMENTs are the shell's.

{_COMMON}
examples:
  coding-agents exec shell
  coding-agents exec shell -- -lc 'echo $HOME'
"""
_HEALTH: Final = """\
Say whether a session takes tasks here: exit 0, or 125 with the reason.
"""


def main(argv: list[str]) -> int:
    """Run the command `argv[0]`, one of `COMMANDS`; returns only where it has no task's end to pass on."""
    try:
        name, rest = argv[0], argv[1:]
        return _health(rest) if name == "health" else _run(rest, is_shell=name == "shell")
    except (UsageError, TaskError) as error:  # any lower code could be the command's own
        complain(str(error))
        return error.code if isinstance(error, TaskError) else EXIT_ENGINE


def request_of(argv: list[str], *, is_shell: bool) -> Request:
    """Return what `exec run` or `exec shell` asks for with these arguments; `UsageError`, `TaskError`."""
    what = "shell" if is_shell else "run"
    words = "[ARGUMENT]…" if is_shell else "COMMAND [ARGUMENT]…"
    parser = Parser(
        prog=f"coding-agents exec {what}",
        usage=f"coding-agents exec {what} [OPTION]… [--] {words}",
        description=_SHELL if is_shell else _RUN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--tty", action="store_true", default=None, help="a terminal of its own; 0 and 1 must be one")
    kind.add_argument("--no-tty", dest="tty", action="store_false", help="your descriptors, also where they are one")
    parser.add_argument("--cwd", metavar="DIR", help="where it starts (here)")
    parser.add_argument(
        "--env",
        metavar="NAME[=VALUE]",
        action="append",
        default=[],
        help="a variable, or yours of that name; repeatable",
    )
    own, command = _split(argv)
    options = parser.parse_args(own)
    if is_shell:
        found = shells.standing_for()
        command = [found.get("bash") or found.get("sh") or "/bin/sh", *command]
    if not command:
        raise UsageError(f"exec {what} needs a command; see: coding-agents exec {what} --help")
    terminal = all(map(os.isatty, (0, 1, 2))) if options.tty is None else options.tty
    if terminal and not (os.isatty(0) and os.isatty(1)):
        raise UsageError("--tty needs a terminal on standard input and output")
    rows, columns = task_client.window() if terminal else (0, 0)
    here = task_client.working_directory() if options.cwd is None else b""
    return Request(
        argv=list(map(os.fsencode, command)),
        cwd=here or os.path.abspath(os.fsencode(options.cwd)),
        environment=task_client.environment(),
        named=list(map(_variable, options.env)),
        terminal=terminal,
        rows=rows,
        columns=columns,
    )


def _run(argv: list[str], *, is_shell: bool) -> NoReturn:
    request = request_of(argv, is_shell=is_shell)
    task_client.end_as(task_client.run(request, _socket()))


def _health(argv: list[str]) -> int:
    parser = Parser(
        prog="coding-agents exec health",
        description=_HEALTH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.parse_args(argv)
    path = _socket()
    Runner(path)
    os.write(1, f"a session takes tasks at {path}\n".encode())
    return EXIT_OK


def _socket() -> str:
    return os.environ.get("AGENT_TASK_RUNNER_SOCKET") or places.RUNNER_SOCKET


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Return our options, and the command: what follows `--`, or the first word that is neither option nor value."""
    at = 0
    while at < len(argv) and argv[at].startswith("-"):
        if argv[at] == "--":
            return argv[:at], argv[at + 1 :]
        at += 2 if argv[at] in {"--cwd", "--env"} else 1
    return argv[:at], argv[at:]


def _variable(text: str) -> tuple[bytes, bytes]:
    """Return the variable that `--env` asks for."""
    name, sign, value = text.partition("=")
    if not _NAME.fullmatch(name):
        raise UsageError(f"--env takes NAME or NAME=VALUE, and {name!r} is no name")
    if sign:
        return name.encode(), os.fsencode(value)
    if name not in os.environ:
        raise UsageError(f"--env {name}: there is no such variable here; give it a value by --env {name}=…")
    return name.encode(), os.environb[name.encode()]
