"""Whole sessions whose agent asks the task runner, for tests of what comes of it.

with runner_rig.start(mode, where) as session:
    assert runner_rig.run(session, "id", "-u").output == b"…"
"""

from __future__ import annotations

import base64
import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import session_rig as rig
from codingagents.supervisor import task_wire
from codingagents.supervisor.task_wire import Request
from session_rig import Place, Session

_AGENT_SOURCE = Path(__file__).with_name("task_agent.py")


@contextlib.contextmanager
def start(mode: str, where: Place, config: str = "", *, prefix: Sequence[str] = ()) -> Iterator[Session]:
    """Start a session with `task_agent` as its agent, which is up."""
    agent = where.open / _AGENT_SOURCE.name
    shutil.copy(_AGENT_SOURCE, agent)
    agent.chmod(0o644)
    command = ["/usr/bin/python3", "-I", str(agent)]
    with rig.start(mode, where, config, command, prefix=prefix) as session:
        assert session.answer() == "up"
        yield session


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def request(
    *argv: str | bytes, cwd: str = "/", environment: Mapping[str, str] | None = None, terminal: bool = False
) -> str:
    """Return a request as it is handed to the agent."""
    words = [word.encode() if isinstance(word, str) else word for word in argv]
    variables = [(name.encode(), value.encode()) for name, value in (environment or {}).items()]
    return encode(
        task_wire.encode_request(
            Request(argv=words, cwd=cwd.encode(), environment=variables, terminal=terminal, rows=24, columns=80)
        )
    )


@dataclass(frozen=True)
class Answer:
    """What came of a request."""

    lines: list[str]
    output: bytes

    @property
    def end(self) -> str:
        return self.lines[-1] if self.lines else ""


def run(session: Session, *argv: str | bytes, cwd: str = "/", environment: Mapping[str, str] | None = None) -> Answer:
    """Have the agent ask for a task, and wait for its end."""
    told = session.ask("answer", request(*argv, cwd=cwd, environment=environment))
    return Answer(lines=told["lines"], output=base64.b64decode(told["output"]))
