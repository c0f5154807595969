"""Three roles at once, each with its own UID and trap: one that floods, dies or fork-bombs does nothing to the others.

The harness runs the agent, the task and the command server side by side, as a session does.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

from codingagents.rewrite.specs import RoleLimits
from codingagents.supervisor import processes
from codingagents.trust.events import ExecAllowed, ExecDenied
from codingagents.trust.vocabulary import Role
from trap_harness import UIDS, Outcome, Request, deny, every_reader, needs_root, python, run, shared_directory, start

pytestmark = needs_root

ANSWERS = """
    paths = ("/usr/bin/true", "/usr/bin/cat", "/usr/bin/nl")
    say([sys.argv[1], os.getuid(), [outcome(lambda: os.execve(path, ["x", "--version"], {})) for path in paths]])
"""


def of_role(outcome: Outcome, role: Role) -> list[ExecAllowed | ExecDenied]:
    decided: list[ExecAllowed | ExecDenied] = [*outcome.allowed, *outcome.denied]
    return [event for event in decided if event.role == role]


@every_reader
def test_each_role_has_its_own_identity_trap_and_rules(sys_ptrace: bool) -> None:
    """A rule with a role is for that role alone; the control is the rule without, which is for all three."""
    agent, *others = [Request(argv=python(ANSWERS, role), role=role) for role in UIDS]
    agent.others, agent.sys_ptrace = others, sys_ptrace
    agent.rules = [deny("/usr/bin/cat", role="task"), deny("/usr/bin/nl", role="command-server")]
    outcome = run(agent)
    assert {role: (uid, answers) for role, uid, answers in outcome.said} == {
        "agent": (UIDS[Role.AGENT], [0, 0, 0]),
        "task": (UIDS[Role.TASK], [0, "EPERM", 0]),
        "command-server": (UIDS[Role.COMMAND_SERVER], [0, 0, "EPERM"]),
    }
    for role, uid in UIDS.items():
        events = of_role(outcome, role)
        assert {event.user_id for event in events} == {uid}
        assert len(events) == 4, "the program itself and its three children"
    assert {(event.role, event.rule) for event in outcome.denied} == {
        ("task", "deny /usr/bin/cat role=task"),
        ("command-server", "deny /usr/bin/nl role=command-server"),
    }
    assert outcome.reply.troubles == []
    outcome.verify()
    agent.rules = [deny("/usr/bin/cat")]
    assert {tuple(answers) for _, _, answers in run(agent).said} == {(0, "EPERM", 0)}


FLOOD = """
    for _ in range(8):
        if os.fork() == 0:
            break
    say(["agent", "floods"])
    while True:
        pid = os.posix_spawn("/usr/bin/true", ["flood"], {})
        os.waitpid(pid, 0)
        try:
            os.execve("/usr/bin/false", ["flood"], {})
        except PermissionError:
            pass
"""
EXECS = """
    while not os.path.exists(sys.argv[1] + "/go"):
        time.sleep(0.005)
    counted = [outcome(lambda: os.execve("/usr/bin/true", ["counted"], {})) for _ in range(100)]
    open(f"{sys.argv[1]}/{os.getuid()}", "w")
    say(["others", counted])
"""


def others(files: Path) -> list[Request]:
    return [Request(argv=python(EXECS, str(files)), role=role) for role in (Role.TASK, Role.COMMAND_SERVER)]


def let_the_others_exec(files: Path) -> None:
    """Have each of them exec a hundred times; return when both are done."""
    (files / "go").touch()
    for role in (Role.TASK, Role.COMMAND_SERVER):
        deadline = time.monotonic() + 60
        while not (files / str(UIDS[role])).exists():
            assert time.monotonic() < deadline, f"the {role} is held up"
            time.sleep(0.01)


def assert_each_of_the_others_ran(outcome: Outcome) -> None:
    assert [answers for who, answers in outcome.said if who == "others"] == [[0] * 100] * 2
    counted = Counter(event.role for event in outcome.allowed if event.command_args == ["counted"])
    assert counted == {"task": 100, "command-server": 100}
    assert outcome.reply.others == [0, 0]
    assert outcome.reply.troubles == []
    outcome.verify()


def floods_meanwhile(outcome: Outcome) -> int:
    """Count what the flood had answered between the first and the last exec of the others."""
    execs = [event for event in outcome.events if isinstance(event, ExecAllowed | ExecDenied)]
    places = [number for number, event in enumerate(execs) if event.command_args == ["counted"]]
    return sum(event.command_args == ["flood"] for event in execs[places[0] : places[-1]])


@every_reader
def test_the_flood_of_one_does_not_hold_up_the_others(sys_ptrace: bool) -> None:
    """Nine processes of the agent exec as fast as they can, until they are killed."""
    with shared_directory() as files:
        files.chmod(0o777)
        agent = Request(argv=python(FLOOD), rules=[deny("/usr/bin/false")], others=others(files), sys_ptrace=sys_ptrace)
        with start(agent) as running:
            assert "floods" in running.hear()
            running.wait_for(b'"flood"')
            let_the_others_exec(files)
            kill_all_of(UIDS[Role.AGENT])
            outcome = running.finish()
    assert_each_of_the_others_ran(outcome)
    assert outcome.code == 128 + signal.SIGKILL
    assert floods_meanwhile(outcome) > 100, "the control: it was a flood"


@every_reader
def test_the_death_of_one_in_the_middle_of_an_exec_is_nothing_to_the_others(sys_ptrace: bool) -> None:
    """The agent is killed as a whole while it floods; only then do the others begin."""
    with shared_directory() as files:
        files.chmod(0o777)
        agent = Request(argv=python(FLOOD), rules=[deny("/usr/bin/false")], others=others(files), sys_ptrace=sys_ptrace)
        with start(agent) as running:
            assert "floods" in running.hear()
            running.wait_for(b'"flood"')
            kill_all_of(UIDS[Role.AGENT])
            let_the_others_exec(files)
            outcome = running.finish()
    assert_each_of_the_others_ran(outcome)
    assert outcome.code == 128 + signal.SIGKILL
    assert floods_meanwhile(outcome) == 0


BOMB = """
    bomb = sys.argv[1]
    argv = ["sh", bomb]
    while True:
        try:
            if os.fork() == 0:
                os.execve("/bin/sh", argv, {})
        except OSError:
            time.sleep(0.001)  # the limit
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
"""
# Each makes two of its kind by an exec, and itself ends only where the limit makes it.
BOMB_SCRIPT = """#!/bin/sh
while :; do
    /bin/sh "$0" &
    /bin/sh "$0"
done
"""


def peak_of_a_bomb(limit: int, *, sys_ptrace: bool) -> tuple[int, Outcome]:
    """Let the agent bomb below `limit` processes while the others exec; return the most that it had at once."""
    peak = 0
    with shared_directory() as files:
        files.chmod(0o777)
        bomb = files / "bomb"
        bomb.write_text(BOMB_SCRIPT)
        agent = Request(
            argv=python(BOMB, str(bomb)),
            limits=RoleLimits(processes=limit),
            others=others(files),
            sys_ptrace=sys_ptrace,
        )
        with start(agent) as running:
            for _ in range(10_000):
                peak = max(peak, len(processes_of(UIDS[Role.AGENT])))
                if peak >= limit - 2:
                    break
                time.sleep(0.005)
            let_the_others_exec(files)
            peak = max(peak, len(processes_of(UIDS[Role.AGENT])))
            kill_all_of(UIDS[Role.AGENT])
            return peak, running.finish()


def processes_of(uid: int) -> list[int]:
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{name}").st_uid == uid:
                found.append(int(name))
        except FileNotFoundError:
            continue
    return found


def kill_all_of(uid: int) -> None:
    """Kill every process of `uid`, which only this test run has; what forks meanwhile is met by another walk."""
    deadline = time.monotonic() + 60
    while processes.Children().signal_users({uid}, signal.SIGKILL):
        assert time.monotonic() < deadline, f"processes of {uid} outrun their end"


@every_reader
def test_a_fork_bomb_that_execs_stays_below_its_limit_and_holds_up_nobody(sys_ptrace: bool) -> None:
    """The control is a higher limit, which it reaches as well."""
    for limit in (40, 80):
        peak, outcome = peak_of_a_bomb(limit, sys_ptrace=sys_ptrace)
        assert limit - 2 <= peak <= limit, limit
        assert_each_of_the_others_ran(outcome)
