"""`coding-agents exec explain` of an agent whose commands are routed says what then happens to it, and why."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from codingagents.rewrite.places import SHELLS
from routing_rig import attempt, client_place, program, routed
from session_rig import Place
from test_exec_explain_says_what_the_trap_does import explain, explained

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a session needs root")

DASH, PYTHON = os.path.realpath("/bin/sh"), os.path.realpath(sys.executable)


@pytest.fixture(scope="module")
def where() -> Iterator[Place]:
    with client_place() as place:
        yield place


@pytest.mark.parametrize("mounts", [True, False])
def test_what_is_explained_is_what_happens(where: Place, mounts: bool) -> None:
    client = str(program(where))
    with routed("subreaper", where, "enforce", mounts=mounts) as session:
        for path, argv, rule, firmness in (
            (client, (client, "-p"), "client claude: the client itself", ""),
            (f"{SHELLS}/sh", ("sh", "-c", ":"), "client claude: the task shell", ""),
            ("/bin/sh", ("sh", "-c", ":"), f"client claude: a task shell lies over {DASH}" if mounts else "", "firm"),
            ("/usr/bin/git", ("git", "status"), "", "firm"),
            (PYTHON, ("python3", "-c", "0"), "", "advisory"),
        ):
            if mounts and path.startswith(SHELLS):
                continue  # what the session mounted is not there for a command that was started outside of it
            told = explained(session, path, "--", *argv)
            failed = attempt(session, path, *argv)
            assert (path, told["rule"]) == (path, rule)
            assert (path, told["outcome"]) == (path, "denied" if failed else "allowed")
            if failed:
                assert (failed, told["reason"], told["firmness"]) == ("EPERM", "unrouted", firmness)
        assert explained(session, "/usr/bin/git", "--role", "task")["outcome"] == "allowed"


def test_observed_it_says_what_enforcing_would_do(where: Place) -> None:
    with routed("subreaper", where, "observe", mounts=False) as session:
        told = explained(session, "/bin/sh")
        assert (told["outcome"], told["reason"]) == ("allowed", "unrouted")
        assert told["why"] == "it would run as the agent and not as a task; in enforce mode it would be denied"


def test_a_file_alone_does_not_know_the_client(where: Place) -> None:
    config = where.home / "alone.toml"
    for route, said in (("auto", True), ("never", False)):
        config.write_text(f'[exec]\nroute = "{route}"\n')
        assert ("is not known here" in explain("--config", str(config), "/bin/sh").stdout) is said
