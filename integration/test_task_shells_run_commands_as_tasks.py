"""The task shells of a whole session, called by its agent as a client would, and `exec run` as root in the session."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

import session_rig as rig
from codingagents.rewrite import places
from codingagents.trust.events import TaskEnded, TaskStarted
from session_rig import Place, Session

pytest_plugins = ("session_fixtures",)

BASH, DASH = f"{places.SHELLS}/bash", f"{places.SHELLS}/dash"
COMMAND = (sys.executable, "-I", "-m", "codingagents.supervisor", "exec")


@pytest.fixture(scope="module", params=rig.MODES)
def session(request: pytest.FixtureRequest, where: Place) -> Iterator[Session]:
    with rig.start(request.param, where, "") as started:
        assert started.answer() == "up"
        yield started


def test_a_command_runs_as_the_tasks_user_where_the_agent_is(session: Session, where: Place) -> None:
    told = session.ask("run", BASH, "-c", "id -u; pwd; echo $0")
    uid, cwd, name = told["output"].split()
    assert int(uid) != session.uid_base
    assert (told["code"], cwd, name) == (0, str(where.open), "/usr/bin/bash")
    assert session.events(TaskStarted)[-1].user_id == int(uid)


@pytest.mark.parametrize("code", [0, 1, 125, 126, 127, 255])
def test_exit_codes_are_exact(session: Session, code: int) -> None:
    assert session.ask("run", BASH, "-c", f"exit {code}")["code"] == code


@pytest.mark.parametrize("number", [1, 2, 3, 9, 11, 13, 15])
def test_deaths_are_exact(session: Session, number: int) -> None:
    assert session.ask("run", DASH, "-c", f"kill -{number} $$")["code"] == -number
    assert session.events(TaskEnded)[-1].signal == number


def test_a_long_argument_and_odd_bytes_pass(session: Session) -> None:
    told = session.ask("run", BASH, "-c", 'printf %s "$1" | cksum; echo ${#2}', "x", "\udcff\n\t", "y" * 38_000)
    expected = subprocess.run(["cksum"], input=b"\xff\n\t", capture_output=True, check=True).stdout.decode()
    assert told["output"] == expected + "38000\n"


def test_a_task_shell_in_a_task_is_the_real_shell(session: Session) -> None:
    before = len(session.events(TaskStarted))
    told = session.ask("run", BASH, "-c", f"{BASH} -c 'echo $BASH; exit 3'; echo $?")
    assert told["output"] == "/usr/bin/bash\n3\n"
    assert len(session.events(TaskStarted)) == before + 1


def test_root_in_the_session_runs_commands_as_tasks(session: Session) -> None:
    inside = next(pid for pid in session.pids() if rig.command_line(pid)[:1] == ["/usr/bin/python3"])
    enter = ["nsenter", "--target", str(inside), "--mount", "--pid", "--wd=/"]
    done = subprocess.run(
        [*enter, *COMMAND, "run", "--env", "MINE=1", "--", "sh", "-c", "id -u; echo $MINE; exit 9"],
        capture_output=True,
        text=True,
        check=False,
        timeout=rig.PATIENCE,
    )
    assert (done.returncode, done.stderr) == (9, "")
    assert done.stdout.split() == [str(session.events(TaskStarted)[-1].user_id), "1"]
    health = subprocess.run([*enter, *COMMAND, "health"], check=False, timeout=rig.PATIENCE)
    assert health.returncode == 0
