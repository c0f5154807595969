"""Whoever of a task is killed, and whenever: nothing of it runs afterwards, and the log says what happened.

Killed are the requester, the command, its keeper, what makes tasks, and the supervisor; and the session is stopped. The
states are: connected, half of the request sent, running, running with background children, ended with processes left.
"""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Callable

import pytest

import runner_rig
import session_rig as rig
from codingagents.trust.events import SessionEnded, TaskEnded, TaskGone, TaskRefused, TaskStarted, TasksUnavailable
from runner_rig import encode, request, run
from session_rig import Place, Session, every_mode

pytest_plugins = ("session_fixtures",)  # where

STOPPED = 128 + signal.SIGTERM
# One that runs, one orphaned, one in a session of its own, one that ignores what it can, one that stands still.
CHILDREN = (
    "sleep 601 & (sleep 602 &) ; setsid sleep 603 & "
    "sh -c 'trap \"\" HUP INT TERM; while :; do sleep 604; done' & "
    "sh -c 'kill -STOP $$' & sleep 0.3; echo; "
)
WAITING = f"{CHILDREN} sleep 605"
LEAVING = f"({CHILDREN}) >/dev/null 2>&1; exit 3"


def of_tasks(session: Session) -> list[int]:
    """Return the processes of the tasks' own user."""
    mine = str(session.uid_base + 1)
    return [pid for pid in session.pids() if rig.fields(pid).get("Uid", "").split()[:1] == [mine]]


def keepers(session: Session) -> list[int]:
    """Return the keepers: root, but for the effective UID."""
    mine = str(session.uid_base + 1)
    return [pid for pid in session.pids() if rig.fields(pid).get("Uid", "").split()[:2] == ["0", mine]]


def task_parents(session: Session) -> list[int]:
    found = [pid for pid in session.pids() if "codingagents.supervisor.task_parent" in rig.command_line(pid)]
    return sorted(set(found) - set(keepers(session)))


def assert_no_task_runs(session: Session) -> None:
    rig.wait_until(lambda: not of_tasks(session) and not keepers(session), "the end of every task")


def end(session: Session, code: int = 0) -> None:
    """Let the agent end, and look for what is left."""
    session.tell("leave", code)
    assert session.wait() == code
    session.assert_nothing_is_left()
    assert session.verify().closed


def still_serves(session: Session) -> None:
    """The control of each test: the runner went on, or began anew."""
    rig.wait_until(lambda: run(session, "/bin/true").end == "exited 0", "a task that runs")


def begin(session: Session, script: str) -> int:
    """Have a process ask for a task, and return that process once the command runs with its children."""
    requester: int = session.ask("spawn", request("/bin/sh", "-c", script))
    session.event(TaskStarted, requester_pid=requester)
    if script == LEAVING:
        session.event(TaskEnded, exit_code=3)
    rig.wait_until(lambda: len(of_tasks(session)) >= (1 if script == "exec sleep 600" else 6), "the task's processes")
    return requester


# -- who is killed: returns why, as the log then says, the command ended --------------------------------------------


def kill_requester(session: Session, requester: int) -> str:
    assert session.ask("kill", requester, "SIGKILL") in {signal.SIGKILL, 0}  # 0: it had its answer already
    return "requester gone"


def kill_command(session: Session, _: int) -> str:
    started = session.events(TaskStarted)[-1]
    inside = of_tasks(session)
    (pid,) = [pid for pid in inside if rig.fields(pid)["NSpid"].split()[_level(session)] == str(started.process_pid)]
    os.kill(pid, signal.SIGKILL)
    return "ended"


def kill_keeper(session: Session, _: int) -> str:
    for pid in keepers(session):
        os.kill(pid, signal.SIGKILL)
    return "keeper lost"


def kill_task_parent(session: Session, _: int) -> str:
    for pid in task_parents(session):
        os.kill(pid, signal.SIGKILL)
    session.event(TasksUnavailable)
    return "keeper lost"


def _level(session: Session) -> int:
    """Return where in `NSpid` the number is that the supervisor knows: it may be in a PID namespace itself."""
    return len(rig.fields(session.supervisor())["NSpid"].split()) - 1


KILLS = (kill_requester, kill_command, kill_keeper, kill_task_parent)


@every_mode
@pytest.mark.parametrize("script", ["exec sleep 600", WAITING], ids=["alone", "with children"])
@pytest.mark.parametrize("kill", KILLS)
def test_while_the_command_runs(mode: str, where: Place, kill: Callable[[Session, int], str], script: str) -> None:
    with runner_rig.start(mode, where) as session:
        requester = begin(session, script)
        reason = kill(session, requester)
        ended = session.event(TaskEnded, task=1)
        assert (ended.reason, ended.signal) == (reason, signal.SIGKILL)
        if kill is kill_command and script == WAITING:
            assert ended.left >= 5  # as without us: the end of a shell is not that of its children
            assert len(of_tasks(session)) >= 5
        else:
            assert_no_task_runs(session)
        if kill is not kill_requester:
            assert session.ask("kill", requester, "SIGCONT") == 0  # it was told, and ended
        still_serves(session)
        end(session)


@every_mode
@pytest.mark.parametrize("kill", [kill_requester, kill_keeper, kill_task_parent])
def test_when_the_command_ended_and_left_processes(
    mode: str, where: Place, kill: Callable[[Session, int], str]
) -> None:
    with runner_rig.start(mode, where) as session:
        requester = begin(session, LEAVING)
        before = len(of_tasks(session))
        kill(session, requester)
        assert session.event(TaskEnded, task=1).reason == "ended"
        if kill is kill_requester:
            still_serves(session)
            assert len(of_tasks(session)) == before  # its requester had its answer; what it left lives with the session
        else:
            assert_no_task_runs(session)
            assert session.event(TaskGone).task == 1
        still_serves(session)
        end(session)


@every_mode
def test_before_there_is_a_task(mode: str, where: Place) -> None:
    """A requester that goes when it has just connected is nobody; one in the middle of its request is recorded."""
    whole = base64.b64decode(request("/bin/sleep", "600"))
    with runner_rig.start(mode, where) as session:
        session.ask("connect", "nobody")
        session.ask("close", "nobody")
        session.ask("connect", "half")
        session.ask("say", "half", encode(whole[: len(whole) // 2]), 3)
        session.ask("close", "half")
        assert session.event(TaskRefused).reason == "the requester was gone before its request was whole"
        session.ask("ask", "quick", request("/bin/sleep", "600"))
        session.ask("close", "quick")
        rig.wait_until(
            lambda: len(session.events(TaskRefused)) == 2 or session.events(TaskEnded), "the end of what was asked for"
        )
        assert_no_task_runs(session)
        assert len(session.events(TaskRefused)) <= 2
        still_serves(session)
        end(session)


@every_mode
@pytest.mark.parametrize("script", ["exec sleep 600", WAITING, LEAVING], ids=["alone", "children", "left"])
@pytest.mark.parametrize("how", ["the agent ends", "SIGTERM", "SIGKILL of the supervisor"])
def test_with_the_session(mode: str, where: Place, script: str, how: str) -> None:
    with runner_rig.start(mode, where) as session:
        begin(session, script)
        assert keepers(session) != []
        if how == "the agent ends":
            end(session, 5)
        elif how == "SIGTERM":
            os.kill(session.supervisor(), signal.SIGTERM)
            assert session.wait() == STOPPED
            session.assert_nothing_is_left()
            assert session.verify().closed
        else:
            os.kill(session.supervisor(), signal.SIGKILL)
            session.wait()
            rig.wait_until(lambda: not session.pids(), "the end of every process of the session")
            assert session.events(TaskStarted) != []  # up to there the log is; nobody was left to write its end
            return
        (ended,) = session.events(TaskEnded)
        assert session.events(SessionEnded) != []
        # Its requester gets the session's TERM, too, and may be gone first.
        assert ended.reason in ({"ended"} if script == LEAVING else {"session ends", "requester gone", "ended"})
        if script == LEAVING:
            assert session.events(TaskGone) != []


@every_mode
@pytest.mark.parametrize("state", ["connected", "half of the request sent", "starting"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_with_the_session_before_the_command_runs(mode: str, where: Place, state: str, number: int) -> None:
    whole = base64.b64decode(request("/bin/sleep", "600"))
    with runner_rig.start(mode, where) as session:
        if state == "starting":
            session.ask("ask", "one", encode(whole))
        else:
            session.ask("connect", "one")
            if state == "half of the request sent":
                session.ask("say", "one", encode(whole[: len(whole) // 2]), 3)
        os.kill(session.supervisor(), number)
        code = session.wait()
        if number == signal.SIGKILL:
            rig.wait_until(lambda: not session.pids(), "the end of every process of the session")
        else:
            assert code == STOPPED
            session.assert_nothing_is_left()
            assert session.verify().closed
            assert [event.reason for event in session.events(TaskEnded) if event.reason == "ended"] == []


def test_where_nothing_can_be_mounted(where: Place) -> None:
    """With Docker's default Linux capabilities: no namespaces, so that orphans of a keeper come to what makes tasks."""
    for kill in KILLS:
        with runner_rig.start("subreaper", where, prefix=rig.DOCKER_CAPABILITIES) as session:
            requester = begin(session, WAITING)
            reason = kill(session, requester)
            assert session.event(TaskEnded, task=1).reason == reason
            if kill is not kill_command:
                assert_no_task_runs(session)
            still_serves(session)
            end(session)


def test_both_keeper_and_what_makes_tasks_at_once(where: Place) -> None:
    """Their orphans come to the supervisor, which finds them by their user below itself."""
    with runner_rig.start("subreaper", where, prefix=rig.DOCKER_CAPABILITIES) as session:
        begin(session, WAITING)
        doomed = [*task_parents(session), *keepers(session)]
        for pid in doomed:
            os.kill(pid, signal.SIGSTOP)
        for pid in doomed:
            os.kill(pid, signal.SIGKILL)
        assert session.event(TaskEnded).reason == "keeper lost"
        assert_no_task_runs(session)
        still_serves(session)
        end(session)
