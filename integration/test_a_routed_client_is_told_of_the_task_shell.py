"""By which means a client hears of the task shell, as they are while it runs, and that nothing of them is left."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codingagents.rewrite.places import CLIENTS, SHELLS
from codingagents.trust.events import AgentStarted, SessionRouting
from routing_rig import client_place, routed
from session_rig import Place, Session
from test_the_sessions_places_are_what_they_are_said_to_be import OWN_ETC, READ_ONLY, as_engine

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a session needs root")

BASH = f"{SHELLS}/bash"
MANAGED = "/etc/claude-code/managed-settings.json"


@pytest.fixture(scope="module", params=["claude", "codex", "copilot"])
def where(request: pytest.FixtureRequest) -> Iterator[Place]:
    with client_place(request.param) as place:
        yield place


def only(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("where", [name], indirect=True)


def routing(session: Session) -> SessionRouting:
    (event,) = session.events(SessionRouting)
    return event


def environment(session: Session) -> dict[str, str]:
    """Return that of the client's process, as root sees it."""
    agent = session.event(AgentStarted).process_pid
    variables = Path(f"/proc/{agent}/environ").read_text().split("\0")[:-1]
    return dict(variable.split("=", 1) for variable in variables)


def by_task(session: Session, command: str) -> str:
    """Return what a command says that the client runs by the task shell."""
    done: dict[str, Any] = session.ask("run", BASH, "-c", command)
    assert done["code"] == 0, done
    said: str = done["output"]
    return said


def end(session: Session) -> None:
    session.tell("leave", 0)
    assert session.wait() == 0


@only("claude")
@pytest.mark.parametrize("before", ["", '{"model": "x", "env": {"A": "1", "SHELL": "/bin/fish"}}'])
def test_in_a_container_an_administrators_settings_say_it_and_are_put_back(
    where: Place, tmp_path: Path, before: str
) -> None:
    left = tmp_path / "left"
    make = f"{OWN_ETC}; test -z '{before}' || (mkdir /etc/claude-code && printf %s '{before}' >{MANAGED})"
    container = as_engine("", f"(ls /etc/claude-code; cat {MANAGED}) >{left} 2>/dev/null", before=make)
    with routed("subreaper", where, "enforce", container=container) as session:
        managed = json.loads(by_task(session, f"cat {MANAGED}"))
        assert managed["env"].items() >= {"CLAUDE_CODE_SHELL": BASH, "SHELL": BASH, "LD_PRELOAD": ""}.items()
        assert managed.get("model") == ("x" if before else None)
        assert managed["env"].get("A") == ("1" if before else None)
        own = f"{CLIENTS}/claude/settings.json"
        assert routing(session).means[-2:] == [f"settings {MANAGED}", f"settings {own}"]
        command = session.event(AgentStarted).command
        assert command[command.index("--settings") + 1] == own
        assert environment(session)["CLAUDE_CODE_SHELL"] == BASH
        end(session)
    assert left.read_text() == (f"managed-settings.json\n{before}" if before else "")


@only("claude")
def test_what_cannot_be_written_is_no_means_and_no_failure(where: Place) -> None:
    with routed("subreaper", where, "enforce", container=as_engine("", before=READ_ONLY)) as session:
        assert f"settings {MANAGED}" not in routing(session).means
        assert "environment CLAUDE_CODE_SHELL" in routing(session).means
        end(session)


@only("codex")
def test_in_a_container_the_agents_account_has_the_task_shell(where: Place) -> None:
    with routed("subreaper", where, "enforce", name="codex", container=as_engine("", before=OWN_ETC)) as session:
        assert routing(session).means == ["account shell"]
        assert by_task(session, "getent passwd agentcli").endswith(f":{BASH}\n")
        assert by_task(session, "getent passwd agentuser").endswith(":/bin/sh\n")
        end(session)


@only("codex")
@pytest.mark.parametrize("mounts", [True, False])
def test_without_an_account_the_shells_that_are_mounted_do_or_it_is_said(where: Place, mounts: bool) -> None:
    with routed("subreaper", where, "enforce", name="codex", mounts=mounts) as session:
        said = any("no account with the task shell" in sentence for sentence in routing(session).degrades)
        assert said is not mounts
        assert ("mounted over /usr/bin/bash" in routing(session).means) is mounts
        assert any("no account with the task shell" in line for line in session.sentences()) is not mounts


@only("copilot")
def test_the_environment_says_it_to_who_asks_nothing_else(where: Place) -> None:
    with routed("subreaper", where, "observe", name="copilot", mounts=False) as session:
        assert routing(session).means == ["environment COPILOT_BASH_PATH"]
        given = environment(session)
        assert (given["COPILOT_BASH_PATH"], given["COPILOT_DISABLE_LOGIN_SHELL_ENV"]) == (BASH, "1")


@only("claude")
def test_the_machines_own_settings_are_left_alone(where: Place) -> None:
    before = os.path.exists(MANAGED)
    with routed("subreaper", where, "enforce") as session:
        assert f"settings {MANAGED}" not in routing(session).means
        assert os.path.exists(MANAGED) is before


@only("claude")
def test_who_is_not_to_be_routed_is_not(where: Place) -> None:
    with routed("subreaper", where, "enforce", 'route = "never"') as session:
        assert not routing(session).routed
        assert "CLAUDE_CODE_SHELL" not in environment(session)
        assert session.ask("run", "/bin/sh", "-c", "id -u")["output"] == f"{session.uid_base}\n"


@only("claude")
def test_without_trap_and_landlock_nothing_is_said_to_be_denied(where: Place) -> None:
    layers = '[session]\nlayers = { exec_trap = "off", landlock_exec = "off" }'
    with routed("subreaper", where, "enforce", layers, mounts=False) as session:
        assert (routing(session).routed, routing(session).enforced) == (True, False)
        assert session.sentences() == []
        assert session.ask("run", "/bin/sh", "-c", "id -u")["output"] == f"{session.uid_base}\n"


@only("claude")
def test_settings_that_the_user_gives_the_client_win_and_ours_are_no_means_then(where: Place) -> None:
    with routed("subreaper", where, "observe", arguments=["--settings", "mine.json"], mounts=False) as session:
        assert routing(session).means == ["environment CLAUDE_CODE_SHELL", "environment SHELL"]
