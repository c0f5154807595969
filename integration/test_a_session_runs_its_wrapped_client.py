"""A session whose client is wrapped: it starts as its own, and what the client starts by that name is the agent's."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

import routing_rig
from codingagents.supervisor import wrap_rules
from codingagents.supervisor.wrapping import Wrapping
from codingagents.trust.events import AgentStarted, ExecAllowed, ExecDenied, SessionStarted
from session_rig import MODES, Place

MODE = MODES[1]
every_policy = pytest.mark.parametrize("policy", ["observe", "enforce"])


@contextlib.contextmanager
def wrapped(path: Path) -> Iterator[str]:
    """Have `path` wrapped, in the machine's own record; yields the vendor's program."""
    wrapping = Wrapping()
    wrapping.install(str(path))
    try:
        yield wrap_rules.vendor_beside(str(path))
    finally:
        wrapping.remove(str(path))


@pytest.fixture(scope="module")
def where() -> Iterator[Place]:
    """A place with a client and, beside it, another program that says who runs it."""
    with routing_rig.client_place() as made:
        shutil.copy("/usr/bin/id", made.open / "whoruns")
        yield made


@pytest.mark.parametrize("mode", MODES)
@every_policy
def test_a_session_starts_with_its_client_wrapped(
    mode: str, policy: Literal["observe", "enforce"], where: Place
) -> None:
    """The client answers, and is recorded as what it is; nothing is said that would be noise."""
    client = routing_rig.program(where)
    with wrapped(client) as vendor, routing_rig.routed(mode, where, policy) as session:
        session.tell("leave", 0)
        assert session.wait() == 0
        allowed = [event.command_args for event in session.events(ExecAllowed)]
        assert any(vendor in args or str(client) in args for args in allowed)
        assert session.events(AgentStarted)
        assert not [line for line in session.sentences() if "wrap" in line]


def test_what_the_client_starts_by_its_name_is_the_agent_again(where: Place) -> None:
    """And root's own call of it, in the same moment, is refused."""
    program = where.open / "whoruns"
    with wrapped(program) as vendor, routing_rig.routed(MODE, where, "observe") as session:
        uid = session.ask("run", vendor, "-u")["output"]
        assert session.ask("run", str(program), "-u") == {"errno": None, "code": 0, "output": uid}
        assert int(uid) > 0
        done = subprocess.run([program, "-u"], capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout) == (126, "")
        assert "runs only as the agent of a session" in done.stderr


def test_a_wrapper_opens_no_way_past_the_policy(where: Place) -> None:
    """In enforce mode another wrapped program is as unrouted as it would be without its wrapper, and on record."""
    program = where.open / "whoruns"
    with wrapped(program) as vendor, routing_rig.routed(MODE, where, "enforce") as session:
        for path in (str(program), vendor):
            assert routing_rig.attempt(session, path, path) == "EPERM"
        denied = session.events(ExecDenied)
        assert {args[0] for event in denied if (args := event.command_args)} >= {str(program), vendor}


def test_a_session_says_that_an_update_put_its_program_in_the_wrappers_place(where: Place) -> None:
    program = where.open / "whoruns"
    with wrapped(program):
        new = where.open / "new"
        shutil.copy("/usr/bin/id", new)
        new.rename(program)
        with routing_rig.routed(MODE, where, "observe") as session:
            session.tell("leave", 0)
            assert session.wait() == 0
            (said,) = [line for line in session.sentences() if "wrap" in line]
            assert f"{program} was wrapped, and another program stands there now" in said


@pytest.mark.parametrize("policy", ["observe", "enforce"])
def test_what_is_meant_for_the_task_runner_runs_as_a_task(policy: Literal["observe", "enforce"], where: Place) -> None:
    """By the client's own name, which the session's agent may execute in either mode."""
    client = str(routing_rig.program(where))
    with wrapped(Path(client)), routing_rig.routed(MODE, where, policy) as session:
        (started,) = session.events(SessionStarted)
        assert session.ask("run", client, "exec", "--", "id", "-u")["output"] == f"{started.uids['task']}\n"
        assert session.ask("run", client, "run", "sh", "-c", "exit 9")["code"] == 9
        assert session.ask("run", client, "shell", "-c", "echo $0")["output"].endswith("sh\n")
        assert session.ask("run", client, "exec", "/nonexistent")["code"] == 127
        # A task is not the agent, so the client does not run in it.
        done = session.ask("run", client, "exec", client, "--version")
        assert done["code"] == 126
