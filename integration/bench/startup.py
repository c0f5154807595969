"""How long a session takes to start, and what its helpers weigh: a supervisor as PID 1, with no, one and ten servers.

The clock starts before the supervisor's exec and stops at the event of the agent's exec, which is stamped just before
the kernel runs it. Helpers are asked for while the agent's confinement is prepared, so both share the machine. USS is
what the kernel counts as a process's own (smaps_rollup), read by root.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import session_rig as rig
from bench.processes import uss
from bench.results import Budget, Figure, Judged, Part, Plan, Table
from codingagents.trust.events import Event, ExecAllowed, HelperReady, HelperStarting
from session_upstream import Upstream

ROUNDS = 7
_START = Budget(what="supervisor from exec to the agent's exec, ten servers", must=500, aim=250, unit="ms", digits=0)
_READY = Budget(what="ten helpers: asked for to all ready", must=200, aim=100, unit="ms", digits=0)
_USS = Budget(what="ten helpers: USS of each", must=4.5, aim=2.5, unit="MB")
SERVERS = (0, 1, 10)  # the budgets are judged by the last
_AGENT = ["/bin/cat"]  # ends with its standard input
_PID1 = ("unshare", "--pid", "--fork", "--kill-child")


@dataclass(frozen=True)
class Round:
    """One session: ms to the agent's exec, ms from the first helper asked for to the last ready, each helper's MB."""

    started: float
    ready: float
    weights: list[float]


def one_session(where: rig.Place, config: str, servers: int) -> Round:
    with rig.start("subreaper", where, config, _AGENT, prefix=_PID1) as session:
        # Seldom and cheaply: whoever watches takes time from those that are watched.
        rig.wait_until(lambda: is_up(session.log, servers), "agent and helpers", pause=0.1)
        stamps: dict[type[Event], list[float]] = {ExecAllowed: [], HelperStarting: [], HelperReady: []}
        for record in session.records():
            if type(record.event) in stamps:
                stamps[type(record.event)].append(datetime.datetime.fromisoformat(record.time).timestamp())
        weights = [uss(pid) for pid in session.pids() if rig.comm(pid).startswith("helper s")]
        assert len(weights) == servers
        assert session.process.stdin is not None
        session.process.stdin.close()
        assert session.wait() == 0
    ready = stamps[HelperReady][-1] - stamps[HelperStarting][0] if servers else 0.0
    return Round(1000 * (stamps[ExecAllowed][0] - session.begun), 1000 * ready, weights)


def is_up(log: Path, servers: int) -> bool:
    content = log.read_bytes() if log.exists() else b""
    return b"exec.allowed" in content and content.count(b"codingagents.helper.ready") == servers


def measure(plan: Plan) -> Part:
    """Return how long sessions take to start, and what ten helpers weigh."""
    count = 1 if plan.quick else ROUNDS
    rows = []
    rounds: list[Round] = []
    with Upstream() as upstream, rig.place() as where:
        for servers in SERVERS:
            config = "".join(upstream.server(f"s{number}") for number in range(servers))
            one_session(where, config, servers)  # caches warm
            rounds = [one_session(where, config, servers) for _ in range(count)]
            cells = [Figure.of([one.started for one in rounds]).text(0), "-", "-"]
            if servers:
                cells[1] = Figure.of([one.ready for one in rounds]).text(0)
                cells[2] = Figure.of([weight for one in rounds for weight in one.weights]).text()
            rows.append([str(servers), *cells])
    judged = [
        Judged(_START, Figure.of([one.started for one in rounds])),
        Judged(_READY, Figure.of([one.ready for one in rounds])),
        Judged(_USS, Figure.of([weight for one in rounds for weight in one.weights])),
    ]
    columns = [
        "servers",
        "exec to the agent's exec, ms",
        "helpers asked for to all ready, ms",
        "USS of each helper, MB",
    ]
    how = f"The supervisor as PID 1 of a new PID namespace, the agent /bin/cat; {count} rounds."
    return Part("Sessions", how, [Table(columns, rows)], judged)
