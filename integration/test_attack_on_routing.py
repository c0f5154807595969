"""What a routed client must not get is an exec of its own: not by another name or place, nor by other means.

Every attack is tried in observe mode as well, where it works: that is the control. Each is an event in both. Where
mounts are allowed the shells of the system are task shells, and what names one gets a task.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator
from typing import Literal

import pytest

from codingagents.rewrite.places import SHELLS
from codingagents.trust.events import SessionRouting, TaskStarted
from routing_rig import UNROUTED, attempt, client_place, decision, mine, program, routed
from session_rig import Place, Session

PYTHON = os.path.realpath(sys.executable)
LOADER = os.path.realpath("/lib64/ld-linux-x86-64.so.2")
DASH = os.path.realpath("/bin/sh")


@dataclasses.dataclass(frozen=True)
class Attack:
    """One way to an exec: `path` and `argv`, after `before` were done; `{open}` and `{mine}` are the place's."""

    path: str
    argv: tuple[str, ...] = ()
    before: tuple[tuple[str, ...], ...] = ()
    by: str = "path"
    cwd: str = "/"
    names_a_shell: bool = False


ATTACKS = {
    "a shell": Attack("/bin/sh", ("sh", "-c", ":"), names_a_shell=True),
    "a shell by its real name": Attack(DASH, ("sh", "-c", ": real"), names_a_shell=True),
    "a shell by dots after the task shells": Attack(
        f"{SHELLS}/../../../bin/sh", ("sh", "-c", ": dots"), names_a_shell=True
    ),
    "a shell by a relative path": Attack("../bin/sh", ("sh", "-c", ": relative"), cwd="/usr", names_a_shell=True),
    "a shell by a descriptor": Attack("/bin/sh", ("sh", "-c", ": descriptor"), by="descriptor"),
    "any other program": Attack("/bin/true", ("true", "other")),
    "env": Attack("/usr/bin/env", ("env", "-i", "/bin/true")),
    "the interpreter of client and task shell": Attack(PYTHON, ("python3", "-I", "-c", "0")),
    "that interpreter as the task shell's": Attack(PYTHON, ("python3", "-IS", f"{SHELLS}/sh", "-c", ":")),
    "that interpreter as this process's own": Attack("/proc/self/exe", ("python3", "-I", "-c", "1")),
    "the dynamic loader": Attack(LOADER, (LOADER, "/bin/true")),
    "a copy of a shell": Attack("{mine}/dash", ("dash", "-c", ":"), (("copy", DASH, "{mine}/dash"),)),
    "a copy of a shell, called like the client": Attack(
        "{mine}/claude", ("claude", "-c", ":"), (("copy", DASH, "{mine}/claude"),)
    ),
    "a copy of a shell, called like the task shell": Attack(
        "{mine}/bash", ("bash", "-c", ":"), (("copy", DASH, "{mine}/bash"),)
    ),
    "a link to a shell, called like the client": Attack(
        "{mine}/link/claude",
        ("claude", "-c", ": link"),
        (("call", "mkdir", "{mine}/link"), ("call", "symlink", DASH, "{mine}/link/claude")),
        names_a_shell=True,
    ),
    "a script for a shell": Attack("{mine}/script", (), (("copy", "", "{mine}/script", "#!/bin/sh"),)),
    "a script for the client's interpreter": Attack(
        "{mine}/tool.py", (), (("copy", "", "{mine}/tool.py", f"#!{PYTHON} -I"),)
    ),
    "a program that is called like one that the client looks for": Attack(
        "{mine}/git", ("git", "status"), (("copy", "/bin/true", "{mine}/git"),)
    ),
}


@pytest.fixture(scope="module")
def where() -> Iterator[Place]:
    with client_place() as place:
        yield place


# Two sessions whose directories are not mounted cannot be at once: one fixture, and pytest has one after the other.
SESSIONS: dict[str, tuple[str, Literal["observe", "enforce"], bool]] = {
    "enforced": ("subreaper", "enforce", False),
    "observed": ("subreaper", "observe", False),
    "mounted-pid1": ("pid1", "enforce", True),
    "mounted-subreaper": ("subreaper", "enforce", True),
}


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest, where: Place) -> Iterator[Session]:
    mode, exec_mode, mounts = SESSIONS[request.param]
    with routed(mode, where, exec_mode, mounts=mounts) as made:
        yield made


def of(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("session", names, indirect=True)


def try_it(session: Session, attack: Attack, where: Place) -> tuple[str, list[str]]:
    """Return the errno's name, "" where it worked, and the command line that the log has of it."""
    own = mine(where, f"{session.uid_base}")
    session.ask("call", "mkdir", own)
    filled = {"mine": own, "open": str(where.open)}
    for verb, *arguments in attack.before:
        session.ask(verb, *(argument.format(**filled) for argument in arguments))
    path = attack.path.format(**filled)
    argv = [argument.format(**filled) for argument in attack.argv] or [path]
    return attempt(session, path, *argv, by=attack.by, cwd=attack.cwd), argv


@of("enforced")
@pytest.mark.parametrize("name", ATTACKS)
def test_enforced_it_is_refused_and_recorded(name: str, session: Session, where: Place) -> None:
    failed, argv = try_it(session, ATTACKS[name], where)
    assert failed == "EPERM"
    denied = decision(session, argv)
    assert (denied.reason, denied.rule, denied.role) == (UNROUTED, "", "agent")
    assert denied.user_id == session.uid_base


@of("mounted-pid1", "mounted-subreaper")
@pytest.mark.parametrize("name", ATTACKS)
def test_enforced_and_with_shells_mounted_over_it_is_refused_too_or_is_a_task(
    name: str, session: Session, where: Place
) -> None:
    attack = ATTACKS[name]
    failed, argv = try_it(session, attack, where)
    seen = decision(session, argv)
    if attack.by == "descriptor":
        assert failed == "ENOENT"  # the kernel's word on a script whose descriptor closes at exec: execveat(2)
    elif attack.names_a_shell:
        assert failed == ""
        assert seen.rule == f"client claude: a task shell lies over {DASH}"
        started = session.event(TaskStarted, command_args=[DASH, *argv[1:]])
        assert started.user_id == session.uid_base + 1
    else:
        assert failed == "EPERM"
        assert (seen.reason, seen.rule) == (UNROUTED, "")


@of("mounted-pid1", "mounted-subreaper")
def test_a_shell_that_is_mounted_over_is_not_to_be_had_by_the_root_of_others(session: Session) -> None:
    """Of who has no such mounts; its own root is the control."""
    parent = session.ask("whoami")["parent"]
    for pid in (1, parent):
        assert attempt(session, f"/proc/{pid}/root{DASH}", "sh", "-c", f": root of {pid}") in (
            "EPERM",
            "EACCES",
            "ENOENT",
        )
    assert attempt(session, f"/proc/self/root{DASH}", "sh", "-c", ": own root") == ""
    assert decision(session, ["sh", "-c", ": own root"]).rule.endswith(f"lies over {DASH}")


@of("observed")
@pytest.mark.parametrize("name", ATTACKS)
def test_observed_it_works_and_is_recorded_as_unrouted(name: str, session: Session, where: Place) -> None:
    failed, argv = try_it(session, ATTACKS[name], where)
    assert failed == ""
    assert decision(session, argv).reason == UNROUTED


@of("enforced")
@pytest.mark.parametrize("name", [name for name in ATTACKS if "interpreter" not in name and "loader" not in name])
def test_of_what_the_client_does_not_need_the_denial_is_firm(name: str, session: Session, where: Place) -> None:
    """The interpreter and the loader have to remain executable, for the task shell's own sake."""
    _, argv = try_it(session, ATTACKS[name], where)
    assert decision(session, argv).firmness == "firm"


@of("enforced", "mounted-pid1")
def test_what_it_needs_it_may_execute(session: Session, where: Place) -> None:
    client = str(program(where))
    assert attempt(session, client, client, "--version") == ""
    assert decision(session, [client, "--version"]).rule == "client claude: the client itself"


@of("enforced", "observed")
def test_how_it_is_routed_is_said_once_before_it_starts(session: Session, request: pytest.FixtureRequest) -> None:
    enforced = request.node.callspec.params["session"] == "enforced"
    (routing,) = session.events(SessionRouting)
    assert (routing.client, routing.routed, routing.enforced) == ("claude", True, enforced)
    assert any("hooks" in sentence for sentence in routing.degrades)
    kinds = [type(record.event).__name__ for record in session.records()]
    assert kinds.index("SessionRouting") < kinds.index("AgentStarted")
    assert sum("starts commands as tasks only" in line for line in session.sentences()) == enforced


def test_a_program_in_memory_is_refused(where: Place) -> None:
    """Without the rule that refuses such memory, the trap refuses what has no name, in either mode."""
    with routed("pid1", where, "enforce", '[session]\nlayers = { memfd_rule = "off" }') as session:
        assert attempt(session, "/bin/true", "true", "memory", by="memory") == "EPERM"
