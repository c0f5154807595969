"""The session's directories, /proc and accounts: what the report says of them, and what an agent can do with them.

Each attack has its control: the same act where the defence is not, by the agent of another session or by root.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import session_rig as rig
from codingagents.supervisor.mounts_seen import WANTED
from codingagents.trust import errors
from codingagents.trust.events import ExecAllowed, Layer, LayerReport, SessionStarted
from session_rig import DOCKER_CAPABILITIES, Place, Session
from session_upstream import Upstream

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root and mount namespaces")

SECRETS = "/run/agent-secrets"
WITH_OPTIONS = f"{SECRETS}:{WANTED[1].engine_options}"
NO_LANDLOCK = '[session]\nlayers = { landlock_exec = "off" }\n'


@pytest.fixture
def where() -> Iterator[Place]:
    with rig.place() as made:
        yield made


def rows(session: Session) -> dict[str, Layer]:
    report = session.event(LayerReport, role="agent")
    return {row.layer: row for row in report.layers}


def inside(session: Session, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command as root with every Linux capability, in the session's mount namespace."""
    enter = ("nsenter", "--mount", "--target", str(session.supervisor()), *argv)
    return subprocess.run(enter, check=False, capture_output=True, text=True)


def as_engine(tmpfs: str, afterwards: str = "true", *, before: str = "true") -> tuple[str, ...]:
    """Return a prefix that does what an engine does: mounts first, and no CAP_SYS_ADMIN for who comes after.

    `tmpfs` is a script in which `with PATH OPTIONS` mounts; `afterwards` runs when the session has ended.
    """
    script = f"""
        set -e
        mount -t tmpfs -o nosuid,nodev,mode=0755 none /run
        with() {{ mkdir -p "$1"; mount -t tmpfs -o "$2" none "$1"; }}
        {tmpfs}
        {before}
        set +e; "$@"; code=$?
        {afterwards}
        exit $code
    """
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *DOCKER_CAPABILITIES)


ALL = "\n".join(f"with {wanted.path} {wanted.engine_options}" for wanted in WANTED)


# -- directories --------------------------------------------------------------------------------------------------


def test_mounts_of_a_session_are_its_own_and_as_they_should_be(where: Place) -> None:
    with rig.start("pid1", where, "") as session:
        session.answer()
        row = rows(session)["run_dirs"]
        assert row.state == "enforced"
        assert row.probe == "/proc/self/mountinfo: " + "; ".join(f"{wanted.path} ours" for wanted in WANTED)
        lines = inside(session, "grep", " /run/", "/proc/1/mountinfo").stdout.splitlines()
        assert [line.split()[4] for line in lines] == [wanted.path for wanted in WANTED]
        assert all(" unbindable - tmpfs coding-agents " in line for line in lines)
        session.tell("leave", 0)
        assert session.wait() == 0
    session.assert_nothing_is_left()


def test_an_engines_tmpfs_is_verified_used_and_emptied(where: Place, tmp_path: Path) -> None:
    """The control is a session without: plain directories, told as such."""
    left = tmp_path / "left"
    paths = " ".join(wanted.path for wanted in WANTED)
    look = f"(find {paths} -mindepth 1; grep -c ' /run/' /proc/self/mountinfo) >{left}"
    with rig.start("subreaper", where, "", prefix=as_engine(ALL, look)) as session:
        session.answer()
        row = rows(session)["run_dirs"]
        assert (row.state, row.probe.count(" engine")) == ("enforced", len(WANTED))
        session.tell("leave", 7)
        assert session.wait() == 7
    assert left.read_text() == f"{len(WANTED)}\n", "all mounts are there, and nothing is in them"
    with rig.start("subreaper", where, "", prefix=as_engine("")) as session:
        session.answer()
        row = rows(session)["run_dirs"]
        assert (row.state, row.probe.count(" plain")) == ("partial", len(WANTED))


# As engines mount where nobody said how: open to all, and executable.
OTHERWISE = ALL.replace("nosuid,nodev,noexec,mode=0700,size=16m", "nosuid,nodev,mode=1777")


def test_a_mode_is_corrected_and_other_options_are_told(where: Place) -> None:
    with rig.start("subreaper", where, "", prefix=as_engine(OTHERWISE)) as session:
        session.answer()
        row = rows(session)["run_dirs"]
        assert row.state == "partial"
        assert f"{SECRETS} engine (not noexec);" in row.probe
        assert session.ask("call", "listdir", SECRETS) == "EACCES"


def test_whoever_requires_the_directories_gets_no_session_with_others(where: Place) -> None:
    config = '[session]\nlayers = { run_dirs = "require" }\n'
    with rig.start("subreaper", where, config, prefix=as_engine(OTHERWISE)) as session:
        assert session.wait() == errors.EXIT_UNCONFINED
        assert "required layers are not enforced here: run_dirs" in session.stderr()
    with rig.start("subreaper", where, config, prefix=as_engine(ALL)) as session:
        session.answer()


@pytest.mark.parametrize(
    ("mount", "sentence"),
    [
        (
            ALL + f"\nchown 1000 {SECRETS}",
            f"what is mounted on {SECRETS} is not root's alone to write; mount it by --tmpfs {WITH_OPTIONS}",
        ),
        (ALL + f"\ntouch {SECRETS}/x", f"{SECRETS} is not empty, and no session left it so; remove it"),
        (f"mkdir -m 0777 {SECRETS}", f"{SECRETS} is not a directory that only root can write; remove it"),
    ],
    ids=["of another", "not empty", "plain and open"],
)
def test_what_is_not_safe_is_refused_in_one_sentence(where: Place, mount: str, sentence: str) -> None:
    with rig.start("subreaper", where, "", prefix=as_engine(mount)) as session:
        assert session.wait() == errors.EXIT_ENGINE
        assert session.sentences() == [f"coding-agents: {sentence}"]


def test_attack_on_the_directories_as_the_agent(where: Place) -> None:
    with rig.start("pid1", where, NO_LANDLOCK) as session:
        session.answer()
        assert session.ask("call", "listdir", SECRETS) == "EACCES"
        assert inside(session, "ls", SECRETS).returncode == 0, "root sees it"
        # Executed where nothing but the mount forbids it; control: a mount of the session that allows it.
        for place in ("/run/agent-data", "/run/coding-agents"):
            assert inside(session, "cp", "/usr/bin/true", f"{place}/planted").returncode == 0
            assert inside(session, "chmod", "0755", place, f"{place}/planted").returncode == 0
        assert session.ask("run", "/run/agent-data/planted")["errno"] == "EACCES"
        assert session.ask("run", "/run/coding-agents/planted")["code"] == 0
        # Not even root can have it a second time; control: another directory.
        bind = ("mount", "--bind")
        assert inside(session, *bind, SECRETS, "/mnt").returncode != 0
        assert inside(session, *bind, "/opt", "/mnt").returncode == 0
        assert session.ask("run", "/usr/bin/mount", "--bind", "/opt", "/mnt")["code"] != 0


# -- /proc --------------------------------------------------------------------------------------------------------


def test_the_agent_sees_its_own_processes_only(where: Place) -> None:
    """Control: the same with a /proc that hides nothing, because it is not the session's own."""
    with rig.start("pid1", where, "") as session:
        session.answer()
        assert rows(session)["proc_hidden"].state == "enforced"
        seen = session.ask("run", "/bin/ls", "/proc")["output"].split()
        assert "1" not in seen
        assert str(session.ask("whoami")["pid"]) in seen
        assert session.ask("call", "stat", "/proc/1") == "ENOENT"
        session.tell("leave", 0)
        assert session.wait() == 0, "the supervisor still found everybody"
    session.assert_nothing_is_left()
    with rig.start("subreaper", where, "") as session:
        session.answer()
        row = rows(session)["proc_hidden"]
        assert (row.state, row.why) == (
            "unavailable",
            "the supervisor is not PID 1: others, who are not its to hide, use this /proc",
        )
        assert session.ask("call", "stat", f"/proc/{session.supervisor()}") == ""


def test_a_supervisor_without_ptrace_rights_still_sees_whom_it_has_to(where: Place) -> None:
    """By group 0: what it traps, its helpers and their memory, and at the end whatever the agent left running."""
    prefix = ("setpriv", "--bounding-set", "-sys_ptrace")
    with Upstream() as upstream, rig.start("pid1", where, upstream.server("one"), prefix=prefix) as session:
        session.answer()
        found = rows(session)
        assert found["proc_hidden"].state == "enforced"
        assert found["exec_trap"].detail["memory_access"] == "fsuid"
        assert session.ask("run", "/usr/bin/true", "seen")["code"] == 0
        assert session.event(ExecAllowed, command_args=["/usr/bin/true", "seen"])
        assert session.ask("post", "one")["status"] == 200
        helper = session.event(LayerReport, role="helper")
        assert "observed" in {row.observed_by for row in helper.layers}, "/proc shows the helper to the supervisor"
        session.ask("daemonise", "/bin/sleep", "600")
        session.tell("leave", 0)
        assert session.wait() == 0
    session.assert_nothing_is_left()


# -- accounts -----------------------------------------------------------------------------------------------------

# An /etc that is the session's alone, as in a container.
OWN_ETC = "mkdir /run/etc; cp -a /etc/. /run/etc; cp /etc/passwd /etc/group /run/; mount --bind /run/etc /etc"
READ_ONLY = f"{OWN_ETC}; mount -o remount,bind,ro /etc"
IDENT = ("/usr/bin/env", "EMAIL=a@b.example", "/usr/bin/git", "var", "GIT_AUTHOR_IDENT")


def test_programs_of_the_agent_know_its_name(where: Place, tmp_path: Path) -> None:
    left = tmp_path / "left"
    compare = f"(cmp /run/passwd /etc/passwd && cmp /run/group /etc/group && echo same) >{left} 2>&1"
    prefix = as_engine("", compare, before=OWN_ETC)
    with rig.start("subreaper", where, "", prefix=prefix, engine="docker") as session:
        session.answer()
        assert session.event(SessionStarted).accounts == "created"
        assert session.ask("run", "/usr/bin/id", "-un")["output"] == "agentcli\n"
        assert session.ask("run", "/usr/bin/id", "-Gn")["output"] == "agentcli agentwork\n"
        assert " agentcli agentcli " in session.ask("run", "/bin/ls", "-ld", "/run/coding-agents/home")["output"]
        assert session.ask("run", *IDENT)["output"].startswith("coding-agents <a@b.example>")
        home = "import pwd, os; print(pwd.getpwuid(os.getuid()).pw_dir)"  # what ssh asks
        assert session.ask("run", "/usr/bin/python3", "-c", home)["output"] == "/run/coding-agents/home\n"
        session.tell("leave", 0)
        assert session.wait() == 0
    assert left.read_text() == "same\n"


def test_where_etc_is_read_only_ids_stay_numbers(where: Place) -> None:
    """Also the control of the names above: without accounts there are none."""
    prefix = as_engine("", before=READ_ONLY)
    with rig.start("subreaper", where, "", prefix=prefix, engine="docker") as session:
        session.answer()
        assert session.event(SessionStarted).accounts == "numeric: /etc/.pwd.lock: EROFS"
        assert session.ask("run", "/usr/bin/id", "-un")["code"] == 1
        assert session.ask("run", "/usr/bin/id", "-u")["output"] == f"{session.uid_base}\n"
        assert session.ask("run", *IDENT)["code"] != 0


def test_the_local_engine_makes_no_accounts(where: Place) -> None:
    before = Path("/etc/passwd").stat()
    with rig.start("pid1", where, "") as session:
        session.answer()
        assert session.event(SessionStarted).accounts.startswith("numeric: ")
        assert session.ask("run", "/usr/bin/id", "-un")["code"] == 1
    assert Path("/etc/passwd").stat() == before
