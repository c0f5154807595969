"""Sessions in containers of podman with runc, whose default seccomp profile is looser than Docker's.

The layer report is compared with what `container/probe.py` finds by its own means, as in the Docker tests.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from codingagents.supervisor import mounts_seen
from codingagents.supervisor.layers import LAYER_NAMES
from codingagents.trust.events import SessionEnded, SessionStarted
from container_findings import Ran, expected_states, run_session
from container_rig import AGENT_UID, GOOD_PORT, WRONG_PORT, Session, Upstream
from podman_rig import Podman

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")

SETTINGS: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "least": (
        *("--cap-drop", "ALL", "--cap-add", "SETUID", "--cap-add", "SETGID"),
        *("--security-opt", "no-new-privileges"),
    ),
    "sys_admin": ("--cap-add", "SYS_ADMIN"),
}
STOPPED = 143


@pytest.fixture(scope="module")
def podman(pytestconfig: pytest.Config) -> Iterator[Podman]:
    reporter = pytestconfig.pluginmanager.getplugin("terminalreporter")
    with tempfile.TemporaryDirectory(prefix="podman-") as directory, Podman(Path(directory)) as engine:
        engine.build_image(reporter.write_line)
        yield engine


@pytest.fixture(scope="module")
def upstream(podman: Podman) -> Iterator[Upstream]:
    with (
        tempfile.TemporaryDirectory(prefix="upstream-") as directory,
        Upstream(podman, Path(directory) / "files") as running,
    ):
        yield running


@pytest.fixture(scope="module", params=SETTINGS)
def ran(request: pytest.FixtureRequest, podman: Podman, upstream: Upstream) -> Iterator[Ran]:
    with tempfile.TemporaryDirectory(prefix="session-") as directory:
        yield run_session(podman, upstream, request.param, SETTINGS[request.param], Path(directory))


def test_the_session_works_and_leaves_nothing_in_the_container(ran: Ran) -> None:
    assert (ran.code, ran.errors) == (0, "")
    assert ran.agent["uids"] == ran.agent["gids"] == [AGENT_UID] * 3
    assert ran.agent["capabilities"] == "0000000000000000"
    assert (ran.agent["good"], ran.agent["good without bearer"], ran.agent["wrong"]) == (200, 401, 502)
    assert [entry["status"] for entry in ran.record if entry["port"] == GOOD_PORT] == [200]
    assert [entry["bytes"] for entry in ran.record if entry["port"] == WRONG_PORT] == [0]
    assert ran.agent["programs"] == {"allowed": "ran", "denied": "EPERM", "outside": "EACCES"}
    assert ran.probe["programs"] == {"/usr/bin/tac": "ran", "/workspace/outside": "ran"}
    assert ran.verified.closed
    assert ran.of(SessionEnded) == [SessionEnded(exit_code=0, reason="the agent ended")]
    mounted = {wanted.path for wanted in mounts_seen.WANTED} if ran.layers["mountns"].state == "enforced" else set()
    assert {line[2:] for line in ran.left if "agent" in line} == mounted, "but for mount points"
    assert f":{AGENT_UID}:" not in ran.accounts


def test_every_row_of_both_reports_is_what_an_independent_probe_finds(ran: Ran) -> None:
    expected = expected_states(ran.probe)
    assert tuple(expected) == LAYER_NAMES == tuple(ran.layers)
    assert {name: row.state for name, row in ran.layers.items()} == expected
    assert ran.layers["exec_trap"].detail["memory_access"] == ran.probe["memory_access"]
    assert {row["layer"]: row["state"] for row in ran.doctor} == expected


def test_user_namespaces_are_refused_by_this_layer_where_the_engine_lets_them_through(ran: Ran) -> None:
    assert ran.probe["user_namespaces"][0] == "ok", "the control: podman's profile does not refuse them"
    assert ran.layers["userns"].state == "enforced"
    assert ran.layers["userns"].detail["refused_by"] == "this layer"
    assert ran.probe["memory_of_the_same_user"] == "ok", "likewise"
    assert ran.layers["seccomp_static"].detail["refused_by"] == "this layer"


def test_podmans_profile_is_seen_by_what_it_refuses_and_a_bare_kernel_would_not(ran: Ran) -> None:
    assert (ran.probe["keyctl"], ran.probe["userfaultfd"]) == ("ok", "EPERM")
    assert "userfaultfd of nothing before our filters: EPERM" in ran.layers["engine_seccomp"].probe
    assert ran.layers["engine_seccomp"].state == "enforced"
    assert [started.accounts for started in ran.of(SessionStarted)] == ["created"]


def test_podman_stop_ends_a_session_within_seconds(podman: Podman, upstream: Upstream, tmp_path: Path) -> None:
    session = Session(upstream, tmp_path)
    with session.start(podman, SETTINGS["least"], "/usr/bin/python3", "-I", "agent.py", "--wait") as running:
        running.line()
        assert running.stop() < 5
        assert running.wait() == STOPPED
    assert session.verify().closed


def test_control_a_program_that_is_pid_1_itself_is_killed_after_the_grace(podman: Podman) -> None:
    with podman.running(["--network=none"], "sh", "-c", "echo up; exec sleep 60") as running:
        assert running.line() == "up"
        assert running.stop("--time", "1") >= 1
        assert running.wait() == 128 + 9
