"""What a wrapper says where it does not execute anything; what it executes is an integration test's matter."""

import os
from pathlib import Path

import pytest

from codingagents.supervisor import wrapper

ARGUMENTS = {"vendor": "/nonexistent/vendor", "routed": ["exec", "shell"], "runner": ["/nonexistent/runner"]}


def call(*argv: str, home: Path) -> int:
    return wrapper.main(["claude", *argv], home=str(home), shells="/nonexistent", **ARGUMENTS)  # type: ignore[arg-type]  # of two kinds


def test_without_a_session_the_client_is_not_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("--version", home=tmp_path / "missing") == 126
    said = capfd.readouterr().err
    assert said.startswith("coding-agents: claude runs only as the agent of a session: no session runs here")
    assert said.count("\n") == 1


def test_whose_home_it_is_decides_who_the_agent_is(tmp_path: Path) -> None:
    """Of a user's own directory nobody is the agent: only root can have made a session's."""
    (tmp_path / "home").mkdir()
    why = wrapper.why_not_the_agent(str(tmp_path / "home"))
    assert why == (
        "this is UID 0, and the session's agent is UID 0"
        if os.geteuid() == 0
        else "its directory below /run is not root's"
    )
    assert "its agent" in wrapper.why_not_the_agent("/proc/1/nothing")
    assert "and the session's agent is UID 0" in wrapper.why_not_the_agent("/usr/bin")


@pytest.mark.parametrize("argv", [["exec"], ["exec", "--"]])
def test_a_routed_word_without_a_command_is_refused(
    argv: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(*argv, home=tmp_path / "missing") == 125
    assert capfd.readouterr().err == "coding-agents: claude exec needs a command\n"


def test_what_is_said_holds_no_control_characters(capfd: pytest.CaptureFixture[str]) -> None:
    assert wrapper._say(1, "\x1b[31m\udcff\n") == 1
    assert capfd.readouterr().err == "coding-agents: [31m\\udcff\n\n"
