"""SHELL: a command that is routed to the task runner against the same without us: its time, and what waits with it.

Two callers of one UID spawn `bash -c true` in turns and time it from posix_spawn(3) to the wait's return: one is the
agent of a session and calls the task shell, the other is in no session and calls bash. The session's agent calls bash
itself, too: what its exec trap costs is no part of the runner.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import session_rig as rig
from bench.results import Budget, Figure, Judged, Part, Plan, Table, differences
from codingagents.rewrite import places
from codingagents.trust.events import TaskStarted
from memory_use import private_bytes

ROUNDS = 10
TURNS = 10  # a round
TOGETHER = 100
HELD = 10
_BUDGET = Budget(what="routed bash -c true over bare, median", must=15, aim=12, unit="ms", digits=1)
_CALLER = Path(__file__).with_name("task_caller.py")
_BASH = ["/usr/bin/bash", "-c", "true"]
_SHELL = [f"{places.SHELLS}/bash", "-c", "true"]
_WAITING = [f"{places.SHELLS}/bash", "-c", "read line"]
BARE, TRAPPED, ROUTED = "bash, bare", "bash, by a session's agent", "the task shell, by a session's agent"


class Caller:
    """A caller outside of any session."""

    def __init__(self, script: Path, uid: int) -> None:
        pipe = subprocess.PIPE
        argv = ["/usr/bin/python3", "-I", str(script)]
        self._process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, user=uid, group=uid, extra_groups=[], text=True)
        self._answer()

    def ask(self, *order: object) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        self._process.communicate()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def median(found: list[float]) -> float:
    return Figure.of(found).median


def _waiting(session: rig.Session) -> int:
    return sum(event.command_args[1:] == _WAITING[1:] for event in session.events(TaskStarted))


def _weights(session: rig.Session) -> tuple[list[float], list[float]]:
    """Return the MB of each keeper and of each waiting client."""
    pids = session.pids()
    parents = [pid for pid in pids if any(word.endswith("supervisor.task_parent") for word in rig.command_line(pid))]
    keepers = [pid for pid in parents if int(rig.fields(pid)["PPid"]) in parents]
    clients = [pid for pid in pids if _WAITING[0] in rig.command_line(pid)]
    assert (len(keepers), len(clients)) == (HELD, HELD)
    return [private_bytes(pid) / 1e6 for pid in keepers], [private_bytes(pid) / 1e6 for pid in clients]


def measure(plan: Plan) -> Part:
    """Return what a routed command costs."""
    rounds, turns = (1, 2) if plan.quick else (ROUNDS, TURNS)
    found: dict[str, list[float]] = {BARE: [], TRAPPED: [], ROUTED: []}
    at_once: dict[str, list[float]] = {BARE: [], TRAPPED: [], ROUTED: []}
    with rig.place() as where:
        script = where.open / _CALLER.name
        shutil.copy(_CALLER, script)
        script.chmod(0o644)
        with rig.start("subreaper", where, "", ["/usr/bin/python3", "-I", str(script)]) as session:
            assert session.answer() == "up"
            bare = Caller(script, session.uid_base)
            calls: dict[str, tuple[Callable[..., Any], list[str]]] = {
                BARE: (bare.ask, _BASH),
                TRAPPED: (session.ask, _BASH),
                ROUTED: (session.ask, _SHELL),
            }
            for ask, argv in calls.values():
                ask("turns", 3, argv)  # caches warm, and what makes tasks has started
            for _ in range(rounds):
                for name, (ask, argv) in calls.items():
                    found[name].append(median(ask("turns", turns, argv)))
                for name, (ask, argv) in calls.items():
                    at_once[name].append(ask("together", TOGETHER, argv))
            session.ask("hold", HELD, _WAITING)
            rig.wait_until(lambda: _waiting(session) == HELD, "all wait")
            keepers, clients = _weights(session)
            bare.stop()
            assert session.process.stdin is not None
            session.process.stdin.close()
            assert session.wait() == 0
    over = Figure.of(differences(found[ROUTED], found[BARE]))
    rows = []
    for name, times in found.items():
        added = Figure.of(differences(times, found[BARE]))
        rows.append([name, Figure.of(times).text(1), added.text(1), Figure.of(at_once[name]).text(0)])
    how = (
        f"{rounds} rounds of {turns} one after the other, and of {TOGETHER} at once, all in turn. Memory: {HELD} tasks "
        "that wait for input; of each its keeper and the client that waits for it."
    )
    tables = [
        Table(["bash -c true", "spawn to wait, ms", "over bare, ms", f"{TOGETHER} at once, ms"], rows),
        Table(
            ["process that waits", "USS, MB"],
            [["keeper of a task", Figure.of(keepers).text()], ["its client", Figure.of(clients).text()]],
        ),
    ]
    return Part("Tasks", how, tables, [Judged(_BUDGET, over)])
