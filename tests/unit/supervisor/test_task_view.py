"""The list of tasks, as a person reads it and as a pipe gets it."""

import msgspec
import pytest

from codingagents.supervisor.task_listing import TaskList, TaskRow
from codingagents.supervisor.task_view import as_text

RUNNING = TaskRow(
    task=1,
    state="running",
    pid=77,
    user_id=52002,
    requester_pid=66,
    requester_user_id=52001,
    terminal=False,
    working_directory="/w\x1b",
    command=["sh", "-c", "echo '\x1b[2J'"],
    uptime_seconds=75.0,
    left=0,
)
LEFT = msgspec.structs.replace(RUNNING, task=2, state="left", left=3, terminal=True)


def listed(*rows: TaskRow) -> TaskList:
    return TaskList(session="s-1", taken_at="2026-11-24T00:00:00Z", state="ready", tasks=list(rows))


def test_a_pipe_gets_a_line_a_task() -> None:
    command = "sh -c 'echo '\"'\"'\\x1b[2J'\"'\"''"
    assert as_text(listed(RUNNING, LEFT), terminal=False).splitlines() == [
        f"1 running pid 77 uid 52002 up 1m for pid 66 uid 52001 pipes in /w\\x1b: {command}",
        f"2 left(3) pid 77 uid 52002 up 1m for pid 66 uid 52001 terminal in /w\\x1b: {command}",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_session_without_tasks_says_so(terminal: bool) -> None:
    assert as_text(listed(), terminal) == "session s-1 has no tasks; what makes them is ready\n"


def test_a_terminal_gets_a_table_that_cannot_steer_it() -> None:
    text = as_text(listed(RUNNING, LEFT), terminal=True)
    assert "left(3)" in text
    assert "\x1b[2J" not in text
