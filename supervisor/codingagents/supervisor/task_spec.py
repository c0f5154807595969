"""CORE: what the supervisor says to the processes that make and keep tasks, and hears from them. No I/O here.

`SandboxSpec` goes to the task parent, which answers `SandboxMade` and then speaks as a confine stub does
(`confine_spec`), up to its `Go`. After that each message to it is one byte, `MAKE`, with descriptors as SCM_RIGHTS: the
keeper's end of a new task's channel and either the task's 0, 1 and 2, or the client's connection, to which a task with
a terminal sends its master.

A task's channel is a stream of lines: `TaskSpec`, then any of `AnyTaskOrder`; its keeper answers with `AnyTaskReport`.
EOF from the supervisor means: kill all that belongs to the task.
"""

from __future__ import annotations

from typing import Literal

from codingagents.rewrite.specs import RoleLimits
from codingagents.supervisor.confine_spec import ConfineSpec
from codingagents.trust.wire import Message

MAKE = b"T"


class SandboxSpec(Message, frozen=True, kw_only=True):
    """How the sandbox of all tasks is made. `confine` is as for a stub; its `argv` and `environment` are empty."""

    version: Literal[1] = 1
    confine: ConfineSpec
    masks: list[str]  # directories that tasks must not see into
    namespaces: bool = True  # try to have mount, IPC and PID namespaces; False: controls of attack tests


class SandboxMade(Message, frozen=True, kw_only=True, tag_field="stub", tag="sandbox-made"):
    """The namespaces of all tasks are there, or `why` says why there are none.

    The process that makes tasks comes along, as a pidfd by SCM_RIGHTS: with namespaces it is another than was spawned,
    which ends, and a child of the supervisor, too (CLONE_PARENT).
    """

    why: str = ""


class TaskSpec(Message, frozen=True, kw_only=True):
    """One task. Byte strings are `trust.events.escape_bytes` text."""

    version: Literal[1] = 1
    task: int
    argv: list[str]
    environment: list[str]  # NAME=VALUE
    working_directory: str
    terminal: bool
    rows: int = 0
    columns: int = 0
    limits: RoleLimits = RoleLimits()


class TaskSignal(Message, frozen=True, kw_only=True, tag_field="order", tag="signal"):
    """Send `number` to the command's process group."""

    number: int


class TaskKill(Message, frozen=True, kw_only=True, tag_field="order", tag="kill"):
    """Kill everything that belongs to the task."""


AnyTaskOrder = TaskSignal | TaskKill


class TaskMade(Message, frozen=True, kw_only=True, tag_field="report", tag="made"):
    """The process that becomes the command is there, and says so itself: who sends this (SCM_CREDENTIALS) is its PID.

    A pidfd would not tell it any more of a command that ended at once.
    """


class TaskRuns(Message, frozen=True, kw_only=True, tag_field="report", tag="runs"):
    """The command was executed."""


class TaskFailed(Message, frozen=True, kw_only=True, tag_field="report", tag="failed"):
    """It could not be: `step` failed with `errno` (a name). `code` is 125, 126 or 127. EOF follows."""

    step: str
    errno: str
    code: int


class TaskExit(Message, frozen=True, kw_only=True, tag_field="report", tag="exit"):
    """The command ended with `status`, as waitpid(2) has it; `left` processes of the task run on."""

    status: int
    left: int


class TaskOver(Message, frozen=True, kw_only=True, tag_field="report", tag="over"):
    """No process of the task is left. EOF follows."""


AnyTaskReport = TaskMade | TaskRuns | TaskFailed | TaskExit | TaskOver
