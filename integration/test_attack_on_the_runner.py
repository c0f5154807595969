"""What tasks and a hostile agent try on the task runner's own processes, and by what a routed agent may execute."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

import runner_rig
from codingagents.rewrite.places import SHELLS
from codingagents.trust.events import ExecDenied
from routing_rig import client_place, routed
from runner_rig import run
from session_rig import Place, Session, place

# Each act on a process, as JSON: its errno's name, "" where it worked.
_ACTS = """
import ctypes, errno, json, os, resource, sys
libc = ctypes.CDLL(None, use_errno=True)
def errno_of(act):
    ctypes.set_errno(0)
    try:
        result = act()
    except OSError as error:
        return errno.errorcode[error.errno]
    return errno.errorcode[ctypes.get_errno()] if result == -1 else ""
def on(pid):
    limits = (resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))
    acts = {
        "kill": lambda: os.kill(pid, 0),
        "limit": lambda: resource.prlimit(pid, *limits) and None,
        "memory": lambda: os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY)),
        "environment": lambda: os.close(os.open(f"/proc/{pid}/environ", os.O_RDONLY)),
        "descriptors": lambda: os.listdir(f"/proc/{pid}/fd") and None,
    }
    return {name: errno_of(act) for name, act in acts.items()}
print(json.dumps([on(int(pid) if pid.isdigit() else getattr(os, pid)()) for pid in sys.argv[1:]]))
"""

# In a session of its own: what of a terminal's making is still open when the command is about to be executed.
_TERMINAL = """
import os, socket
from codingagents.supervisor import task_command
ours, theirs = socket.socketpair()
number = theirs.detach()
slave = task_command._open_terminal(number, 24, 80)
held = [each for each in os.scandir("/proc/self/fd") if "socket" in os.readlink(each) or "ptmx" in os.readlink(each)]
line, masters, _, _ = socket.recv_fds(ours, 100, 1)
assert (line, os.isatty(masters[0]), os.isatty(slave)) == (b"terminal\\n", True, True)
print([int(each.name) for each in held] == [ours.fileno()])
"""


@pytest.fixture(scope="module")
def where() -> Iterator[Place]:
    with place() as made:
        yield made


@pytest.mark.parametrize("mode", ["pid1", "subreaper"])
def test_a_task_cannot_reach_its_keeper_what_makes_tasks_or_who_asked(mode: str, where: Place) -> None:
    """Itself it can: the control."""
    with runner_rig.start(mode, where) as session:
        asker, supervisor = session.ask("whoami")["pid"], session.supervisor()
        answer = run(session, "/usr/bin/python3", "-ISc", _ACTS, "getpid", "getppid", "1", str(asker), str(supervisor))
        assert answer.end == "exited 0", answer
        itself, *others = json.loads(answer.output)
        assert set(itself.values()) == {""}
        for other in others:
            assert set(other.values()) <= {"EPERM", "EACCES", "ESRCH", "ENOENT"}, others


def test_a_task_about_to_be_executed_has_no_way_to_its_client() -> None:
    """Other tasks can look into it while its exec waits for the trap."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", _TERMINAL], start_new_session=True, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.fixture(scope="module")
def enforced() -> Iterator[Session]:
    with client_place() as made, routed("subreaper", made, "enforce", mounts=False) as session:
        yield session


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BUN_INSPECT", "ws://127.0.0.1:9333/x"),
        ("BUN_INSPECT_PRELOAD", "/tmp/x.js"),
        ("BUN_INSPECT_CONNECT_TO", "unix:///tmp/x"),
        ("OPENSSL_CONF", "/tmp/x.cnf"),
        ("COPILOT_CLI_DIST_DIR", "/tmp"),
    ],
)
def test_what_runs_as_the_agent_is_not_told_to_load_code(variable: str, value: str, enforced: Session) -> None:
    argv = ["bash", "-c", f": {variable}"]
    asked = ("execute", f"{SHELLS}/bash", argv, "path", "/")
    assert enforced.ask(*asked, {variable: value})["errno"] == "EPERM"
    denied = enforced.event(ExecDenied, command_args=argv)
    assert denied.reason == f"{variable} would have other code run in it"
    assert enforced.ask(*asked, {variable: ""}) == {"errno": None, "code": 0}


def test_what_only_node_heeds_stops_no_task_shell(enforced: Session) -> None:
    asked = ("execute", f"{SHELLS}/bash", ["bash", "-c", "exit 3"], "path", "/", {"NODE_OPTIONS": "--import /tmp/x.js"})
    assert enforced.ask(*asked) == {"errno": None, "code": 3}
