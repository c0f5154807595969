"""A seccomp listener that was there first: the trap cannot be, and `require` says so before anything runs."""

from __future__ import annotations

import sys

import pytest

import session_rig as rig
from codingagents.trust.errors import EXIT_UNCONFINED
from codingagents.trust.events import AgentStarted, Layer, LayerReport
from session_rig import Place, Session, every_mode

pytest_plugins = ("session_fixtures",)  # where


# As an engine's profile with SCMP_ACT_NOTIFY does: the filter outlives every exec, and the descriptor stays open.
OCCUPIED = """
import os, sys
from codingagents.supervisor import seccomp
from codingagents.trust import linux
from codingagents.trust.bpf import ALLOW, USER_NOTIF, assemble, give, on_call, prologue
linux.set_no_new_privs()
program = assemble(prologue(linux.machine().audit_arch, None), on_call(9998, give(USER_NOTIF)), give(ALLOW))
listener, _ = seccomp.install(program)
os.set_inheritable(listener, True)
os.execvp(sys.argv[1], sys.argv[1:])
"""
PREFIX = (sys.executable, "-I", "-c", OCCUPIED)


def config(wish: str) -> str:
    return f'[session]\nlayers = {{ exec_trap = "{wish}" }}\n[exec]\nrules = [ {{ deny = "/usr/bin/env" }} ]\n'


def trap_of(session: Session) -> Layer:
    (report,) = [each for each in session.events(LayerReport) if each.role == "agent"]
    return next(row for row in report.layers if row.layer == "exec_trap")


@every_mode
def test_with_require_the_session_ends_before_the_agent_runs_and_names_the_cause(mode: str, where: Place) -> None:
    with rig.start(mode, where, config("require"), ["/bin/echo", "the agent ran"], prefix=PREFIX) as session:
        assert session.wait() == EXIT_UNCONFINED == 124
        assert session.rest() == b""
        session.assert_nothing_is_left()
    row = trap_of(session)
    assert (row.wanted, row.state, row.probe) == ("require", "unavailable", "seccomp(NEW_LISTENER): EBUSY")
    (sentence,) = [line for line in session.sentences() if "required layers" in line]
    assert sentence.startswith("coding-agents: required layers are not enforced here: exec_trap: ")
    assert "EBUSY: another seccomp listener" in sentence
    assert session.events(AgentStarted) == []
    assert session.verify().closed


@every_mode
@pytest.mark.parametrize("occupied", [True, False], ids=["occupied", "free"])
def test_with_prefer_it_starts_and_reports_what_is_missing(mode: str, occupied: bool, where: Place) -> None:
    """The control; and that of the control is `require` where nobody was there first."""
    wish, prefix = ("prefer", PREFIX) if occupied else ("require", ())
    with rig.start(mode, where, config(wish), prefix=prefix) as session:
        assert session.answer() == "up"
        assert trap_of(session).state == ("unavailable" if occupied else "enforced")
        assert session.ask("run", "/usr/bin/env")["errno"] == (None if occupied else "EPERM")
        session.tell("leave", 0)
        assert session.wait() == 0
