"""A session whose agent is a known client by name, and does what the test says: a root-owned script called `claude`.

    with client_place() as where, routed(mode, where, "enforce") as session:
        assert attempt(session, "/bin/sh", "sh", "-c", "exit 7") == "EPERM"

The configuration allows every program to whom it does not name, so that what is refused is refused by routing alone.
Below `where.open / "mine"` is the agent's to write, and may be executed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from codingagents.trust.events import ExecAllowed, ExecDecided, ExecDenied
from session_rig import DOCKER_CAPABILITIES, Place, Session, place, start

UNROUTED = "unrouted"
_CONFIG = """
[exec]
mode = "{mode}"
trees = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "{open}"]
rules = [{{ allow = "/**" }}, {{ allow = "/**", role = "task" }}]
{more}
"""


@contextlib.contextmanager
def client_place(name: str = "claude") -> Iterator[Place]:
    """A place with a client's program, root's, and a directory that anybody may write."""
    with place() as where:
        client = program(where, name)
        client.write_text("#!/usr/bin/python3 -I\n" + (where.open / "session_agent.py").read_text())
        client.chmod(0o755)
        (where.open / "mine").mkdir()
        (where.open / "mine").chmod(0o777)
        yield where


def program(where: Place, name: str = "claude") -> Path:
    return where.open / name


@contextlib.contextmanager
def routed(
    mode: str,
    where: Place,
    exec_mode: Literal["observe", "enforce"],
    more: str = "",
    *,
    name: str = "claude",
    mounts: bool = True,
    container: Sequence[str] = (),
    arguments: Sequence[str] = (),
) -> Iterator[Session]:
    """A session of that client, whose agent is up; without `mounts` root may not make any, as in a container.

    `container` is a prefix that makes what an engine would; `arguments` are the client's own.
    """
    before = tuple(container) if mounts or container else DOCKER_CAPABILITIES
    engine: Literal["local", "docker"] = "docker" if container else "local"
    config = _CONFIG.format(mode=exec_mode, open=where.open, more=more)
    with start(
        mode, where, config, [str(program(where, name)), *arguments], agent=name, prefix=before, engine=engine
    ) as session:
        assert session.answer() == "up"
        yield session


def attempt(session: Session, path: str, *argv: str, by: str = "path", cwd: str = "/") -> str:
    """Have the agent execute `path`; return the errno's name, or "" where it ran."""
    done = session.ask("execute", path, list(argv) or [path], by, cwd)
    return done["errno"] or ""


def decision(session: Session, argv: list[str]) -> ExecDecided:
    """Return what was decided of the exec with this command line."""
    decided: list[ExecDecided] = [*session.events(ExecAllowed), *session.events(ExecDenied)]
    return next(event for event in decided if event.command_args == argv)


def mine(where: Place, name: str) -> str:
    return os.path.join(where.open, "mine", name)
