"""Sessions in containers of a real Docker Engine: with its default settings, with less, and with more.

What the layer report says is compared with what a program of the test's own finds by trying the same in a container
with the same flags; that program is `container/probe.py`, and it imports nothing of the project.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from codingagents.supervisor import mounts_seen
from codingagents.supervisor.layers import LAYER_NAMES
from codingagents.trust.events import (
    ExecAllowed,
    ExecDenied,
    HelperRefused,
    HelperRequest,
    PinMismatch,
    SessionEnded,
    SessionStarted,
)
from container_findings import Ran, expected_states, probe, run_session
from container_rig import AGENT_UID, GOOD_PORT, TOKEN, WRONG_PORT, Engine, Running, Session, Terminal, Upstream

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a Docker Engine needs root")

# What a session needs at least, nothing else, and no way to more.
LEAST = (
    *("--cap-drop", "ALL", "--cap-add", "SETUID", "--cap-add", "SETGID"),
    *("--security-opt", "no-new-privileges"),
)
ENGINE_TMPFS = tuple(f"--tmpfs={wanted.path}:{wanted.engine_options}" for wanted in mounts_seen.WANTED)
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "least": LEAST,
    "sys_admin": ("--cap-add", "SYS_ADMIN"),
    "engine_tmpfs": ENGINE_TMPFS,
    "other_tmpfs": (*ENGINE_TMPFS[:-1], "--tmpfs=/run/agent-data-export:exec,mode=0755"),
    "read_only": ("--read-only", "--tmpfs", "/run"),
}
SHELL = "bash --norc --noediting -i"
# Typed otherwise than shown. One process, for dash makes its child by vfork, where a Ctrl-Z can be lost; and with short
# sleeps, for a Ctrl-C just before a long one would be heard after it.
SLEEPER = """python3 -c 'import time; print("star" "ted", flush=True); [time.sleep(0.1) for _ in range(600)]'\r"""
STOPPED = 143
OUR_FAILURE = 125


@pytest.fixture(scope="session")
def engine(pytestconfig: pytest.Config) -> Iterator[Engine]:
    reporter = pytestconfig.pluginmanager.getplugin("terminalreporter")
    with tempfile.TemporaryDirectory(prefix="docker-") as directory, Engine(Path(directory)) as running:
        running.build_image(reporter.write_line)
        yield running


@pytest.fixture(scope="session")
def upstream(engine: Engine) -> Iterator[Upstream]:
    with (
        tempfile.TemporaryDirectory(prefix="upstream-") as directory,
        Upstream(engine, Path(directory) / "files") as running,
    ):
        yield running


@pytest.fixture
def session(upstream: Upstream, tmp_path: Path) -> Session:
    return Session(upstream, tmp_path)


@pytest.fixture(scope="module", params=SETTINGS)
def ran(request: pytest.FixtureRequest, engine: Engine, upstream: Upstream) -> Iterator[Ran]:
    with tempfile.TemporaryDirectory(prefix="session-") as directory:
        yield run_session(engine, upstream, request.param, SETTINGS[request.param], Path(directory))


def test_the_session_ends_as_its_agent_did_and_leaves_nothing_in_the_container(ran: Ran) -> None:
    """But for mount points: those of the test's volumes, and the session's own where it or the engine mounted."""
    assert (ran.code, ran.errors) == (0, "")
    by_somebody = ran.layers["mountns"].state == "enforced" or ran.settings in ("engine_tmpfs", "other_tmpfs")
    mounted = {wanted.path for wanted in mounts_seen.WANTED} if by_somebody else set()
    renamed = {"/run", "/etc", "/etc/passwd", "/etc/group"}  # written, and as they were again
    assert {line[2:] for line in ran.left} - renamed == {"/session", "/workspace"} | mounted
    assert "root:x:0:" in ran.accounts
    assert f":{AGENT_UID}:" not in ran.accounts


def test_the_agent_is_a_user_of_its_own_with_no_capability(ran: Ran) -> None:
    assert ran.agent["uids"] == ran.agent["gids"] == [AGENT_UID] * 3
    assert ran.agent["groups"] == [AGENT_UID + 2]
    assert ran.agent["capabilities"] == "0000000000000000"
    assert ran.agent["no_new_privs"] == "1"
    assert ran.agent["home"] == AGENT_UID
    assert sorted(ran.agent["descriptors"]) == ["0", "1", "2"]
    assert ran.agent["descriptors"]["0"] == "/dev/null", "standard input was the control channel"


def test_the_helper_attaches_the_credential_and_holds_to_the_pins(ran: Ran) -> None:
    assert (ran.agent["good"], ran.agent["good without bearer"], ran.agent["wrong"]) == (200, 401, 502)
    (good,) = [entry for entry in ran.record if entry["port"] == GOOD_PORT]
    assert good["status"] == 200, "200 is the upstream's answer to the right token only"
    assert [entry["bytes"] for entry in ran.record if entry["port"] == WRONG_PORT] == [0]
    answers = {event.server: event.http_response_status_code for event in ran.of(HelperRequest)}
    assert answers == {"good": 200, "wrong": 502}
    assert [event.server for event in ran.of(PinMismatch)] == ["wrong"]
    assert [event.peer_user_id for event in ran.of(HelperRefused)] == [AGENT_UID]


def test_no_secret_is_where_the_engine_or_the_agent_could_read_it(ran: Ran) -> None:
    assert TOKEN not in ran.inspected
    assert TOKEN not in json.dumps(ran.agent)
    assert ran.agent["environment"] == [
        *("AGENT_TASK_RUNNER_SOCKET", "CODEX_HOME", "CODING_AGENTS_SESSION", "COPILOT_HOME"),
        *("HOME", "LC_CTYPE", "PATH"),
    ]


def test_execs_are_recorded_and_denials_are_the_kernels(ran: Ran) -> None:
    """As the same user without a session both programs run."""
    assert ran.probe["programs"] == {"/usr/bin/tac": "ran", "/workspace/outside": "ran"}
    assert ran.agent["programs"] == {"allowed": "ran", "denied": "EPERM", "outside": "EACCES"}
    denied = [event for event in ran.of(ExecDenied) if event.rule != "self-test"]
    assert [(event.resolved_path, event.rule, event.user_id) for event in denied] == [
        ("/usr/bin/tac", "deny /usr/bin/tac", AGENT_UID)
    ]
    allowed = {event.executable_path: event.command_args for event in ran.of(ExecAllowed)}
    assert allowed["/usr/bin/python3"] == ["/usr/bin/python3", "-I", "agent.py"]
    assert allowed["/usr/bin/true"] == ["/usr/bin/true"]
    assert allowed["/workspace/outside"] == ["/workspace/outside"], "the trap let it pass, Landlock did not"


def test_the_log_is_whole_by_a_key_that_was_never_in_the_container(ran: Ran) -> None:
    assert ran.verified.closed
    assert ran.verified.covered == ran.verified.events == len(ran.events)
    assert ran.of(SessionEnded) == [SessionEnded(exit_code=0, reason="the agent ended")]


def test_every_row_of_the_layer_report_is_what_an_independent_probe_finds(ran: Ran) -> None:
    expected = expected_states(ran.probe)
    assert tuple(expected) == LAYER_NAMES == tuple(ran.layers)
    assert {name: row.state for name, row in ran.layers.items()} == expected
    assert ran.layers["exec_trap"].detail["memory_access"] == ran.probe["memory_access"]


def test_doctor_says_what_the_session_said(ran: Ran) -> None:
    expected = expected_states(ran.probe)
    if ran.settings == "read_only":  # it has no session directory to try Landlock in
        expected["landlock_exec"] = "partial"
        (row,) = [row for row in ran.doctor if row["layer"] == "landlock_exec"]
        assert row["remedy"] == "--tmpfs /tmp:exec"
    assert {row["layer"]: row["state"] for row in ran.doctor} == expected


def test_rows_that_depend_on_the_settings_do(ran: Ran) -> None:
    """Guards the comparison above against a probe and a report that fail alike."""
    rows = ran.layers
    assert rows["engine_seccomp"].state == "enforced"
    assert rows["exec_trap"].detail["memory_access"] == "fsuid"
    assert (rows["caps_bounding"].state == "partial") == (ran.settings == "least")
    assert (rows["run_dirs"].state == "partial") == (ran.settings not in ("sys_admin", "engine_tmpfs"))
    if ran.settings == "other_tmpfs":
        assert rows["run_dirs"].why == "mounted with other options: /run/agent-data-export"
    confined_by_apparmor = rows["apparmor"].state == "enforced"  # Docker's own profile forbids mounting
    if ran.settings == "sys_admin" and not confined_by_apparmor:
        assert rows["mountns"].state == "enforced"
    else:
        assert rows["mountns"].state == "unavailable"
        assert rows["mountns"].remedy.startswith("--cap-add SYS_ADMIN")


def test_the_sessions_ids_have_names_where_the_container_has_a_place_for_them(ran: Ran) -> None:
    (started,) = ran.of(SessionStarted)
    assert started.accounts == ("numeric: /etc/.pwd.lock: EROFS" if ran.settings == "read_only" else "created")


@pytest.mark.parametrize(
    ("flags", "layer", "state"),
    [
        (("--security-opt", "seccomp=unconfined"), "engine_seccomp", "unavailable"),
        (("--cap-add", "SYS_PTRACE"), "exec_trap", "enforced"),
        (("--read-only", "--tmpfs", "/tmp:exec"), "landlock_exec", "enforced"),
    ],
    ids=["no profile", "sys_ptrace", "read-only"],
)
def test_doctor_agrees_with_the_probe_on_other_settings_too(
    engine: Engine, tmp_path: Path, flags: tuple[str, ...], layer: str, state: str
) -> None:
    found = probe(engine, flags, _with_outside(tmp_path))
    rows = {
        row["layer"]: row for row in json.loads(engine.run(flags, "coding-agents", "doctor", "--json").stdout)["layers"]
    }
    assert {name: row["state"] for name, row in rows.items()} == expected_states(found)
    assert rows[layer]["state"] == state
    assert rows["exec_trap"]["detail"]["memory_access"] == found["memory_access"]


def test_where_a_profile_refuses_what_a_layer_is_put_on_with_the_remedy_names_the_calls(
    engine: Engine, tmp_path: Path
) -> None:
    refused = ["seccomp", "memfd_create", "landlock_create_ruleset", "keyctl"]
    rule = {"names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM}
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    flags = ("--security-opt", f"seccomp={profile}")
    found = probe(engine, flags, _with_outside(tmp_path))
    report = json.loads(engine.run(flags, "coding-agents", "doctor", "--json").stdout)["layers"]
    assert {row["layer"]: row["state"] for row in report} == expected_states(found)
    remedies = {row["layer"]: row["remedy"] for row in report}
    for layer, calls in {
        "seccomp_static": "seccomp",
        "userns": "seccomp",
        "memfd_rule": "seccomp, memfd_create",
        "exec_trap": "seccomp",
        "landlock_exec": "landlock_create_ruleset, landlock_add_rule, landlock_restrict_self",
    }.items():
        assert remedies[layer].startswith("--security-opt seccomp=PROFILE that "), layer
        assert f"allows {calls}" in remedies[layer]
    assert not remedies["engine_seccomp"], "this profile is one, too"


def _with_outside(workspace: Path) -> Path:
    (workspace / "outside").write_text("#!/bin/true\n")
    (workspace / "outside").chmod(0o755)
    return workspace


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (LEAST[:4] + LEAST[6:], "comes by --cap-add SETGID"),
        (("--cap-drop", "SETUID"), "comes by --cap-add SETUID"),
        (("--user", "1000:1000"), "must start as root"),
        (("--read-only",), "cannot create /run/coding-agents: Read-only file system; mount a tmpfs there"),
    ],
    ids=["setuid only", "no setuid", "not root", "nowhere to write"],
)
def test_a_session_that_cannot_be_had_says_which_setting_is_missing_and_runs_nothing(
    engine: Engine, session: Session, flags: tuple[str, ...], sentence: str
) -> None:
    with session.start(engine, flags) as running:
        code, errors = running.wait(), running.errors()
        assert running.process.stdout is not None
        assert running.process.stdout.read() == b"", "the agent ran"
    assert code == OUR_FAILURE
    assert sentence in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("flags", [(), LEAST], ids=["default", "least"])
def test_docker_stop_ends_a_session_within_seconds_and_loses_nothing(
    engine: Engine, session: Session, flags: tuple[str, ...]
) -> None:
    with session.start(engine, flags, "/usr/bin/python3", "-I", "agent.py", "--wait") as running:
        running.line()
        users = running.until(lambda: _users(engine, running, "/usr/bin/sleep"), "the agent's sleep")
        assert users == _users(engine, running, "/usr/bin/python3") == {AGENT_UID}
        assert running.stop() < 5
        assert (running.wait(), running.errors()) == (STOPPED, "")
        assert not [line for line in engine("diff", running.name).stdout.splitlines() if "coding-agents" in line]
    assert session.verify().closed
    events = session.events()
    assert SessionEnded(exit_code=STOPPED, reason="SIGTERM") in events
    assert "/usr/bin/sleep" in {event.executable_path for event in events if isinstance(event, ExecAllowed)}


def _users(engine: Engine, running: Running, program: str) -> set[int]:
    """Return the UIDs of the container's processes of `program`, as the host sees them."""
    lines = engine("top", running.name, "-eo", "pid,uid,args").stdout.splitlines()[1:]
    return {int(uid) for _, uid, name, *_ in map(str.split, lines) if name == program}


def test_the_agent_of_an_interactive_session_has_the_terminal_and_job_control(
    engine: Engine, session: Session, tmp_path: Path
) -> None:
    """Its secrets come through a FIFO, for standard input is the terminal."""
    fifo = tmp_path / "control"
    fifo.mkdir()
    os.mkfifo(fifo / "secrets", 0o600)
    descriptor = os.open(fifo / "secrets", os.O_RDWR)  # so that neither end waits for the other
    os.write(descriptor, session.secrets_line)
    start = f"exec coding-agents init --session /session --control-fd 3 -- {SHELL} 3</control/secrets"
    flags = [session.network, *session.volumes, "--volume", f"{fifo}:/control"]
    with contextlib.closing(os.fdopen(descriptor)), engine.on_terminal(flags, "sh", "-c", start) as terminal:
        use_job_control(terminal)
        terminal.type("id -u\r")
        terminal.expect(f"{AGENT_UID}")
        terminal.type("exit 7\r")
        assert terminal.running.wait() == 7
    assert session.verify().closed


def test_plain_init_gives_its_command_the_terminal_and_job_control(engine: Engine) -> None:
    with engine.on_terminal(["--network=none"], "coding-agents", "init", "--", *SHELL.split()) as terminal:
        use_job_control(terminal)
        terminal.type("exit 7\r")
        assert terminal.running.wait() == 7


def use_job_control(terminal: Terminal) -> None:
    """Stop a job with Ctrl-Z, end another with Ctrl-C, and see that the terminal is the shell's."""
    terminal.type("ps -o tty=,stat= -p $$ && echo re''ady\r")
    shown = terminal.expect("ready")
    assert "no job control" not in shown
    assert "pts/0" in shown.split()
    terminal.type(SLEEPER)
    terminal.expect("started")
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.type("kill -KILL %1; wait; echo go''ne\r")
    terminal.expect("gone")
    terminal.type(SLEEPER)
    terminal.expect("started")
    terminal.type("\x03")
    terminal.type("echo code=$?\r")
    terminal.expect("code=130")


def test_plain_init_as_the_entrypoint_passes_on_codes_and_stops_at_once(engine: Engine) -> None:
    """A program that is PID 1 itself ignores `docker stop` until it is killed; behind init it does not."""
    init = ("coding-agents", "init", "--")
    assert engine.run([], *init, "sh", "-c", "exit 42", check=False).returncode == 42
    assert engine.run([], *init, "sh", "-c", "kill -9 $$", check=False).returncode == 128 + 9
    assert engine.run([], *init, "no-such-program", check=False).returncode == 127
    with engine.running(["--network=none"], *init, "sh", "-c", "echo up; sleep 60 & wait") as running:
        assert running.line() == "up"
        assert running.stop("--time", "20") < 5
        assert running.wait() == STOPPED
    with engine.running(["--network=none"], "sh", "-c", "echo up; exec sleep 60") as running:
        assert running.line() == "up"
        assert running.stop("--time", "1") >= 1
        assert running.wait() == 128 + 9
