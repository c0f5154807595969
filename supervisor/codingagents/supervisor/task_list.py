"""ENTRY: `coding-agents exec list`: asks a running session for its tasks, and prints them.

Shows what the session's supervisor says; looks at no process itself, and changes nothing.
"""

from __future__ import annotations

import sys

import msgspec

from codingagents.supervisor import operator_client, task_view
from codingagents.supervisor.task_listing import TaskList
from codingagents.trust import errors, wire
from codingagents.trust.commandline import Parser
from codingagents.trust.errors import AgentError, WireError


def main(argv: list[str]) -> int:
    """Print the tasks of a session; 0.

    Raises `UsageError`; `NotFoundError` where no session runs; `AgentError` where it does not answer.
    """
    parser = Parser(
        prog="coding-agents exec list",
        description="List the tasks of a running session: the commands that its task runner started and that run, and "
        "those that ended and left processes.",
        epilog="exit codes: 0 ok; 1 the session does not answer; 2 usage; 3 there is no such session",
        allow_abbrev=False,
    )
    parser.add_argument("--session", metavar="DIR", help="the session's directory (default: that of the one that runs)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    document = operator_client.ask(options.session or operator_client.the_one_that_runs(), "/tasks")
    try:
        listed: TaskList = wire.decode(TaskList, document)
    except WireError as error:
        raise AgentError(f"the session's answer cannot be read: {error}; it may be of another version") from None
    if options.json:
        sys.stdout.write(msgspec.json.format(document, indent=2).decode().rstrip() + "\n")
    else:
        sys.stdout.write(task_view.as_text(listed, sys.stdout.isatty()))
    return errors.EXIT_OK
