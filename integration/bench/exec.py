"""Compares an exec under the trap with one that nothing sees: policy, scrubber and a signed event log on disk included.

Two programs of the same UID behind the same confine stub, one without trap and Landlock, spawn /bin/true in turns and
time each spawn from inside, from posix_spawn(3) to the wait's return. A ratio is taken of each pair of rounds, and the
median of these is reported: what else the machine does falls on both of a pair alike.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from pathlib import Path

import trio

from bench.results import Budget, Figure, Judged, Part, Plan, Table
from codingagents.rewrite import places
from codingagents.supervisor import processes, rundirs
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.reaper import Reaper
from trap_harness import Confined, Request, confined, deny, open_log, python

ROUNDS = 20
SPAWNS = 100  # a round
_BUDGET = Budget(what="exec under the trap ÷ bare posix_spawn of /bin/true, median", must=1.5, aim=1.3)
_SPAWNER = """
    import json, os, sys, time
    for line in sys.stdin:
        took = []
        for _ in range(int(line)):
            begun = time.perf_counter_ns()
            os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
            took.append(time.perf_counter_ns() - begun)
        print(json.dumps(took), flush=True)
"""
# What a session with a few servers has: rules that do not match, and secrets to look for.
_RULES = [deny("/run/agent-secrets/**"), deny("/run/agent-data/**"), deny("/usr/bin/gdb", argv=["gdb", "-p"])]
_SECRETS = {f"SECRET_{number}": f"value-of-secret-{number}-0123456789abcdef" for number in range(4)}


class Spawner:
    """One of the two programs, and the pipes to it."""

    def __init__(self) -> None:
        self.theirs_in, self._to = os.pipe()
        self._from, self.theirs_out = os.pipe()

    async def round(self) -> list[int]:
        """Return the nanoseconds of each of a round's spawns."""
        os.write(self._to, b"%d\n" % SPAWNS)
        answer = b""
        while not answer.endswith(b"\n"):
            await trio.lowlevel.wait_readable(self._from)
            answer += os.read(self._from, 65536)
        took: list[int] = json.loads(answer)
        return took

    def stop(self) -> None:
        os.close(self._to)


async def _start(made: Confined) -> None:
    failed = await made.role.go()
    assert failed is None, failed


async def _measure(log: EventLog, directory: str, rounds: int) -> list[tuple[list[int], list[int]]]:
    """Return pairs of rounds: bare, trapped."""
    children = processes.Children()
    reaper = Reaper(children)
    bare, trapped = Spawner(), Spawner()
    pairs: list[tuple[list[int], list[int]]] = []
    probe_file = rundirs.write_probe_file(f"{directory}/self-test")
    request = Request(argv=python(_SPAWNER), rules=_RULES, secrets=_SECRETS)
    without = Request(argv=python(_SPAWNER), layers_off=["exec_trap", "landlock_exec", "memfd_rule"])
    async with trio.open_nursery() as nursery:
        await nursery.start(reaper.run)
        stdio = [{0: each.theirs_in, 1: each.theirs_out, 2: 2} for each in (bare, trapped)]
        async with (
            confined(without, children, log=log, troubles=[], probe_file=probe_file, stdio=stdio[0]) as first,
            confined(request, children, log=log, troubles=[], probe_file=probe_file, stdio=stdio[1]) as second,
        ):
            await _start(first)
            await _start(second)
            await bare.round(), await trapped.round()  # caches warm, imports done
            for _ in range(rounds):
                pairs.append((await bare.round(), await trapped.round()))  # noqa: PERF401 -- two awaits a pair, in turn
            for each, made in ((bare, first), (trapped, second)):
                each.stop()
                await reaper.wait(made.stub.child)
        nursery.cancel_scope.cancel()
    return pairs


def _quantile(times: list[int], percent: int) -> float:
    return statistics.quantiles(times, n=100, method="inclusive")[percent - 1]


def measure(plan: Plan) -> Part:
    """Return what the trap adds to an exec."""
    rounds = 2 if plan.quick else ROUNDS
    with tempfile.TemporaryDirectory(prefix="bench-exec-", dir="/var/tmp") as directory:  # a disk, where /tmp is memory
        os.chmod(directory, 0o755)
        log = open_log(directory, [])
        pairs = trio.run(_measure, log, directory, rounds)
        log.close(None)
        recorded = Path(directory, places.EVENT_LOG).read_bytes().count(b'"dev.codingagents.exec.allowed"')
    assert recorded >= len(pairs) * SPAWNS, "not every exec was recorded"
    found = {
        percent: Figure.of([_quantile(trapped, percent) / _quantile(bare, percent) for bare, trapped in pairs])
        for percent in (25, 50, 99)
    }
    rows = []
    for name, times in zip(("bare", "trapped"), zip(*pairs, strict=True), strict=True):
        every = [time for round_ in times for time in round_]
        rows.append([name, *(f"{_quantile(every, percent) / 1000:.0f}" for percent in found)])
    rows.append(["trapped ÷ bare", *(figure.text() for figure in found.values())])
    how = (
        f"/bin/true by posix_spawn, events on, against the same without trap and Landlock; {rounds} pairs of {SPAWNS}."
    )
    columns = ["exec, spawn to wait", "p25 µs", "p50 µs", "p99 µs"]
    return Part("Execs", how, [Table(columns, rows)], [Judged(_BUDGET, found[50])])
