"""How long a session takes to start, and what its helpers weigh: a supervisor as PID 1, with no, one and ten servers.

The clock starts before the supervisor's exec and stops at the event of the agent's exec, which is stamped just before
the kernel runs it. Helpers are asked for while the agent's confinement is prepared, so both share the machine. USS is
what the kernel counts as a process's own (smaps_rollup), read by root.
"""

from __future__ import annotations

import datetime
import os
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent / "tests")]

import session_rig as rig
from codingagents.trust.events import Event, ExecAllowed, HelperReady, HelperStarting
from session_upstream import Upstream

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))
START = (500, 250)  # ms, ten servers: must, aim
READY = (200, 100)  # ms, ten helpers
USS = (4.5, 2.5)  # MB, each of ten
SERVERS = (0, 1, 10)  # the budgets are judged by the last
_AGENT = ["/bin/cat"]  # ends with its standard input
_PID1 = ("unshare", "--pid", "--fork", "--kill-child")


def uss(pid: int) -> float:
    """Return the MB that a process shares with no other."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(map(int, re.findall(r"^Private_(?:Clean|Dirty): +(\d+) kB", rollup, re.MULTILINE))) / 1000


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


def figures(values: Sequence[float], unit: str) -> str:
    return f"{statistics.median(values):.4g} {unit} ({min(values):.4g} to {max(values):.4g})"


def main() -> int:
    """Print the figures; 1 where a median is over its budget."""
    if os.geteuid() != 0:
        print("startup: needs root, since each role runs under a UID of its own", file=sys.stderr)
        return 2
    print(f"start of a session: supervisor as PID 1, {ROUNDS} rounds, median (least to most)")
    rounds: list[Round] = []
    with Upstream() as upstream, rig.place() as where:
        for servers in SERVERS:
            config = "".join(upstream.server(f"s{number}") for number in range(servers))
            one_session(where, config, servers)  # caches warm
            rounds = [one_session(where, config, servers) for _ in range(ROUNDS)]
            print(f"  {servers:2d} servers: exec to the agent's exec {figures([one.started for one in rounds], 'ms')}")
    budgets = (
        ("ten servers, start", [one.started for one in rounds], "ms", START),
        ("ten helpers, asked for to all ready", [one.ready for one in rounds], "ms", READY),
        ("ten helpers, USS of each", [weight for one in rounds for weight in one.weights], "MB", USS),
    )
    status = 0
    for what, values, unit, (must, aim) in budgets:
        median = statistics.median(values)
        verdict = "OVER BUDGET" if median > must else "within the budget" if median > aim else "within the aim"
        print(f"  {what}: {figures(values, unit)}: {verdict} (must {must}, aim {aim})")
        status |= median > must
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
