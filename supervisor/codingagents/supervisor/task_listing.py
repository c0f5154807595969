"""CORE: what `exec list` says of each task, as the operator socket answers it. No I/O; asks nobody.

The shapes are public: fields are added, and never renamed, while `schema` stays.
"""

from __future__ import annotations

from typing import Final, Literal

from codingagents.trust.wire import Message

SCHEMA: Final = "coding-agents/tasks/v1"


# Of the process that makes tasks; idle: nobody wanted it yet.
HostState = Literal["idle", "starting", "ready", "failed"]


class TaskRow(Message, frozen=True, kw_only=True):
    """One task. Its command is recorded, scrubbed and capped as in the log; texts are `escape_bytes` text."""

    task: int
    state: Literal["starting", "running", "left"]  # left: the command ended, and processes of it run on
    pid: int | None  # of the command, once it runs
    user_id: int
    requester_pid: int  # 0 where it was gone already
    requester_user_id: int
    terminal: bool
    working_directory: str
    command: list[str]
    uptime_seconds: float
    left: int  # processes that ran on when the command ended


class TaskList(Message, frozen=True, kw_only=True):
    """The answer to `GET /tasks`."""

    schema: Literal["coding-agents/tasks/v1"] = SCHEMA
    session: str
    taken_at: str
    state: HostState
    tasks: list[TaskRow]
