"""Exit codes, signals and orphans of an agent, as they reach whoever started the session."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import textwrap
import time
from pathlib import Path

import pytest

import session_rig as rig
from codingagents.rewrite.places import AGENT_PATH
from codingagents.trust.events import AgentStarted, ExecDenied, SessionEnded
from session_rig import Place, Session, every_mode
from session_upstream import Upstream

pytest_plugins = ("session_fixtures",)  # where


STOPPED = 128 + signal.SIGTERM
GRACE = 5.0  # of the supervisor, between TERM and KILL
PASSED_ON = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH")


@pytest.fixture(scope="module")
def files(where: Place) -> Path:
    """Programs that cannot be executed, each for another reason."""
    (where.open / "plain").write_text("no program")
    (where.open / "plain").chmod(0o644)
    shutil.copy("/bin/true", where.open / "true")  # outside the executable trees
    (where.open / "true").chmod(0o755)
    return where.open


@every_mode
@pytest.mark.parametrize(("verb", "argument", "code"), [("leave", 0, 0), ("leave", 77, 77), ("die", "SIGSEGV", 139)])
def test_the_agents_exit_code_is_the_sessions(mode: str, verb: str, argument: object, code: int, where: Place) -> None:
    """128 + N where signal N ended it, and the log says the same."""
    with rig.start(mode, where, "") as session:
        assert session.answer() == "up"
        session.tell(verb, argument)
        assert session.wait() == code
    (ended,) = session.events(SessionEnded)
    assert (ended.exit_code, ended.reason) == (code, "the agent ended")
    assert session.verify().closed
    session.assert_nothing_is_left()


# What to run -> the exit code, and how the sentence goes on after "running WHAT failed with".
CANNOT_RUN = {
    "no-such-program": (127, f"ENOENT; install it for all users: the agent's PATH is {AGENT_PATH}"),
    "/no-such-program": (127, "ENOENT"),
    "/bin/true/x": (127, "ENOTDIR"),
    "DIRECTORY/plain": (126, "EACCES; only /usr /bin /sbin /lib /lib64 /opt may be executed: see [exec] trees"),
    "DIRECTORY/true": (126, "EACCES; only /usr /bin /sbin /lib /lib64 /opt may be executed: see [exec] trees"),
    "/usr/bin/env": (126, "EPERM"),
}


@every_mode
@pytest.mark.parametrize("command", CANNOT_RUN)
def test_an_agent_that_cannot_be_run_is_126_or_127(mode: str, command: str, where: Place, files: Path) -> None:
    """No such program; no execute permission; outside the trees (Landlock); denied by a rule (the trap)."""
    code, why = CANNOT_RUN[command]
    program = command.replace("DIRECTORY", str(files))
    sentence = f"running {program} failed with {why}"
    with rig.start(mode, where, '[exec]\nrules = [ { deny = "/usr/bin/env" } ]', [program]) as session:
        assert session.wait() == code
        session.assert_nothing_is_left()
    assert session.sentences() == [f"coding-agents: {sentence}"]
    (ended,) = session.events(SessionEnded)
    assert (ended.exit_code, ended.reason) == (code, sentence)
    assert [event.executable_path for event in denied_by_rule(session)] == ([program] if why == "EPERM" else [])
    assert session.verify().closed


def has_a_shell_that_ignores_term(session: Session) -> bool:
    shells = [pid for pid in session.of_agent() if rig.command_line(pid)[:1] == ["/bin/sh"]]
    return any(int(rig.fields(pid)["SigIgn"], 16) >> signal.SIGTERM - 1 & 1 for pid in shells)


def denied_by_rule(session: Session) -> list[ExecDenied]:
    return [event for event in session.events(ExecDenied) if event.rule != "self-test"]


@every_mode
def test_signals_are_the_agents_each_once_and_only_term_ends_the_session(mode: str, where: Place) -> None:
    """Sent to launcher or supervisor, as a terminal's owner or an engine sends them; without one, HUP is a reload."""
    with rig.start(mode, where, "", prefix=rig.WITH_TERMINAL) as session:
        assert session.answer() == "up"
        session.ask("listen", *PASSED_ON, "SIGTERM")
        for number, name in enumerate(PASSED_ON, 1):
            session.signal(getattr(signal, name))
            rig.wait_until(functools.partial(has_heard, session, number), f"{name} at the agent")
        session.signal(signal.SIGTERM)
        rig.wait_until(functools.partial(has_heard, session, len(PASSED_ON) + 1), "SIGTERM at the agent")
        time.sleep(0.2)  # for one that should not come
        assert session.ask("heard") == [*PASSED_ON, "SIGTERM"]
        session.tell("leave", 9)  # within its grace; the session was stopped all the same
        assert session.wait() == STOPPED
    (ended,) = session.events(SessionEnded)
    assert (ended.exit_code, ended.reason) == (STOPPED, "SIGTERM")


@every_mode
def test_orphans_of_the_agent_are_reaped_while_it_runs_and_gone_when_it_ends(mode: str, where: Place) -> None:
    """Forked twice and in a session of its own, a program is still the session's."""
    with rig.start(mode, where, "") as session:
        assert session.answer() == "up"
        for _ in range(3):
            session.ask("daemonise", "/bin/true")
        session.ask("daemonise", "/bin/sleep", "600")
        session.ask("daemonise", "/bin/sh", "-c", "kill -STOP $$; sleep 600")  # stopped, it does not hear TERM
        supervisor = session.supervisor()
        daemon = rig.wait_until(
            lambda: [pid for pid in session.of_agent() if rig.command_line(pid)[:1] == ["/bin/sleep"]], "the daemon"
        )
        assert parent_of(daemon[0]) == supervisor
        rig.wait_until(lambda: not zombies_of(supervisor), "the reaping of orphans")
        rig.wait_until(lambda: any(rig.fields(pid)["State"][0] == "T" for pid in session.of_agent()), "the stopped one")
        begun = time.monotonic()
        session.tell("leave", 4)
        assert session.wait() == 4
        assert time.monotonic() - begun < GRACE  # nobody had to be killed
        session.assert_nothing_is_left()


def test_what_does_not_end_is_killed_after_its_grace(where: Place) -> None:
    """An agent that ignores TERM, in both modes; a daemon of one that does not; a helper that hangs: all at once."""
    stubborn = ("/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.2; done")
    with (
        Upstream() as upstream,
        rig.start("pid1", where, "") as pid1,
        rig.start("subreaper", where, "") as subreaper,
        rig.start("subreaper", where, "") as with_daemon,
        rig.start("subreaper", where, upstream.server("one")) as with_hung_helper,
    ):
        sessions = (pid1, subreaper, with_daemon, with_hung_helper)
        for session in sessions:
            assert session.answer() == "up"
        for session in (pid1, subreaper):
            session.ask("ignore", "SIGTERM")
        for session in (pid1, subreaper, with_daemon):
            session.ask("daemonise", *stubborn)
        os.kill(with_hung_helper.named("helper one"), signal.SIGSTOP)
        for session in (pid1, subreaper, with_daemon):
            rig.wait_until(functools.partial(has_a_shell_that_ignores_term, session), "the shell's trap")
        begun = time.monotonic()
        pid1.signal(signal.SIGTERM)
        subreaper.signal(signal.SIGTERM)
        with_daemon.tell("leave", 6)
        with_hung_helper.tell("leave", 7)
        assert [session.wait() for session in sessions] == [STOPPED, STOPPED, 6, 7]
        assert GRACE - 0.5 < time.monotonic() - begun < GRACE + 3
        for session in sessions:
            session.assert_nothing_is_left()
            assert session.verify().closed


@every_mode
def test_what_forks_faster_than_a_walk_through_the_processes_is_gone_as_well(mode: str, where: Place) -> None:
    """Each of these processes lives for about a millisecond, and has a successor."""
    beats = where.open / f"beats-{mode}"
    beats.touch()
    beats.chmod(0o666)
    relay_race = """
        import os, signal, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end = time.monotonic() + 10  # this machine's processes are not without end
        while time.monotonic() < end:
            if os.fork():
                os._exit(0)
            os.utime(sys.argv[1])
            time.sleep(0.0003)
    """
    with rig.start(mode, where, "") as session:
        assert session.answer() == "up"
        session.ask("daemonise", "/usr/bin/python3", "-I", "-c", textwrap.dedent(relay_race), str(beats))
        before = beats.stat().st_mtime_ns
        rig.wait_until(lambda: beats.stat().st_mtime_ns > before + 10**8, "a race that goes on")
        session.tell("leave", 5)
        assert session.wait() == 5
        rig.wait_until(lambda: beats.stat().st_mtime_ns < time.time_ns() - 3 * 10**8, "the end of the race", patience=2)


@every_mode
def test_an_agent_that_runs_is_what_the_log_says(mode: str, where: Place) -> None:
    """PID and UID in the log are those that the kernel shows."""
    with rig.start(mode, where, "") as session:
        assert session.answer() == "up"
        started = session.event(AgentStarted)
        (agent,) = session.of_agent()
        assert started.user_id == session.uid_base
        assert started.process_pid == (session.ask("whoami")["pid"])
        assert mode == "pid1" or started.process_pid == agent
        assert started.command == where.agent


def has_heard(session: Session, count: int) -> bool:
    return len(session.ask("heard")) >= count


def parent_of(pid: int) -> int:
    return int(rig.fields(pid)["PPid"])


def zombies_of(parent: int) -> list[int]:
    every = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    found = [(pid, rig.fields(pid)) for pid in every]
    return [pid for pid, status in found if status.get("PPid") == str(parent) and status["State"].startswith("Z")]
