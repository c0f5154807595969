"""SHELL: the list of tasks for a person: a table on a terminal, one plain line a task in a pipe. Prints nothing.

What a task chose (its command) is shown without anything that could steer the terminal.
"""

from __future__ import annotations

import io
import shlex
from typing import Final

from codingagents.supervisor.helper_view import duration
from codingagents.supervisor.task_listing import TaskList, TaskRow
from codingagents.trust.terminal import printable

_MARKS: Final = {"running": "green", "starting": "yellow", "left": "yellow"}


def as_text(listed: TaskList, terminal: bool) -> str:
    """Return all rows, a line each; a sentence where there is none."""
    if not listed.tasks:
        return f"session {printable(listed.session)} has no tasks; what makes them is {listed.state}\n"
    return _table(listed) if terminal else "".join(map(_plain, listed.tasks))


def _plain(row: TaskRow) -> str:
    return (
        f"{row.task} {_state(row)} pid {row.pid or '-'} uid {row.user_id} up {duration(row.uptime_seconds)}"
        f" for pid {row.requester_pid} uid {row.requester_user_id} {'terminal' if row.terminal else 'pipes'}"
        f" in {printable(row.working_directory)}: {_command(row)}\n"
    )


def _state(row: TaskRow) -> str:
    return f"left({row.left})" if row.state == "left" else row.state


def _command(row: TaskRow) -> str:
    return printable(shlex.join(row.command))


def _table(listed: TaskList) -> str:
    from rich.console import Console  # noqa: PLC0415 -- 20 ms that a pipe does without
    from rich.table import Table  # noqa: PLC0415 -- likewise
    from rich.text import Text  # noqa: PLC0415 -- likewise

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for column in ("pid", "up", "for"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("command", no_wrap=True, overflow="ellipsis")
    for row in listed.tasks:
        numbers = (str(row.pid or "-"), duration(row.uptime_seconds), str(row.requester_pid))
        table.add_row(str(row.task), Text(_state(row), _MARKS[row.state]), *numbers, Text(_command(row)))
    out = io.StringIO()
    Console(file=out, force_terminal=True).print(table)
    return out.getvalue()
