"""SHELL: an exec under the trap against one that nothing sees, and against sandlock's (`sandlocked`).

Ours has policy, scrubber and a signed event log on disk; sandlock logs nothing. Programs of one UID, the bare one
behind the same confine stub without any filter or Landlock, spawn /bin/true in turns and time each spawn from inside,
from posix_spawn(3) to the wait's return. A ratio is taken within each round, and the median of these is reported: what
else the machine does falls on all of a round alike.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import trio

from bench.results import Budget, Figure, Judged, Part, Plan, Table, ratios
from codingagents.rewrite import places
from codingagents.supervisor import processes, rundirs
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.reaper import Reaper
from demo.venv import locked_python
from trap_harness import NO_STATIC_FILTER, UID, Confined, Request, confined, deny, open_log, python

ROUNDS = 20
TRAPPED = "under our trap"
SANDLOCK = {"default": "in sandlock", "policy_fn": "in sandlock, each exec decided by policy_fn"}
_SANDLOCKED = Path(__file__).resolve().with_name("sandlocked.py")
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


def sandlocked(kind: str, verb: str, *command: str) -> list[str]:
    """Return the command line of `sandlocked`, as the UID that our roles have here."""
    as_role = ["/usr/bin/env", "HOME=/nonexistent", "setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    return [*as_role, str(locked_python("bench")), "-I", str(_SANDLOCKED), kind, verb, *command]


class Spawner:
    """A program that is told by a line how often to do what it does, and the pipes to it."""

    def __init__(self) -> None:
        self.theirs_in, self._to = os.pipe()
        self._from, self.theirs_out = os.pipe()

    @property
    def stdio(self) -> dict[int, int]:
        return {0: self.theirs_in, 1: self.theirs_out, 2: 2}

    async def round(self, times: int = SPAWNS) -> list[int]:
        """Return the nanoseconds of each."""
        os.write(self._to, b"%d\n" % times)
        answer = b""
        while not answer.endswith(b"\n"):
            await trio.lowlevel.wait_readable(self._from)
            answer += (read := os.read(self._from, 65536))
            assert read, "it ended"
        took: list[int] = json.loads(answer)
        return took

    def started(self) -> None:
        """Close what only the program needs, so that its end is seen."""
        os.close(self.theirs_in)
        os.close(self.theirs_out)

    def stop(self) -> None:
        os.close(self._to)


async def _start(made: Confined) -> None:
    failed = await made.role.go()
    assert failed is None, failed


async def _measure(log: EventLog, directory: str, rounds: int) -> dict[str, list[list[int]]]:
    """Return the nanoseconds of each target's rounds; those of one number were taken in turn."""
    children = processes.Children()
    reaper = Reaper(children)
    spawners = {name: Spawner() for name in ("bare", TRAPPED, *SANDLOCK.values())}
    found: dict[str, list[list[int]]] = {name: [] for name in spawners}
    probe_file = rundirs.write_probe_file(f"{directory}/self-test")
    request = Request(argv=python(_SPAWNER), rules=_RULES, secrets=_SECRETS)
    without = Request(argv=python(_SPAWNER), layers_off=["exec_trap", "landlock_exec", "memfd_rule", *NO_STATIC_FILTER])
    async with trio.open_nursery() as nursery:
        await nursery.start(reaper.run)
        made = {
            name: children.spawn(sandlocked(kind, "run", *python(_SPAWNER)), env={}, fds=spawners[name].stdio)
            for kind, name in SANDLOCK.items()
        }
        stdio = [spawners[name].stdio for name in ("bare", TRAPPED)]
        async with (
            confined(without, children, log=log, troubles=[], probe_file=probe_file, stdio=stdio[0]) as first,
            confined(request, children, log=log, troubles=[], probe_file=probe_file, stdio=stdio[1]) as second,
        ):
            await _start(first)
            await _start(second)
            made |= {"bare": first.stub.child, TRAPPED: second.stub.child}
            for spawner in spawners.values():
                spawner.started()
                await spawner.round()  # caches warm, imports done
            for _ in range(rounds):
                for name, spawner in spawners.items():
                    found[name].append(await spawner.round())
            for name, spawner in spawners.items():
                spawner.stop()
                assert (await reaper.wait(made[name])).code == 0, name
        nursery.cancel_scope.cancel()
    return found


def quantile(times: Sequence[int], percent: int) -> float:
    """Return the percentile of `times`."""
    return statistics.quantiles(times, n=100, method="inclusive")[percent - 1]


def against(found: dict[str, list[list[int]]], base: str, name: str, percent: int) -> Figure:
    """Return the percentile of `name` ÷ that of `base`, round by round."""
    above, below = ([quantile(times, percent) for times in found[each]] for each in (name, base))
    return ratios(above, below)


def _rows(found: dict[str, list[list[int]]], percents: Iterable[int]) -> list[list[str]]:
    rows = []
    for name, rounds in found.items():
        every = [time for times in rounds for time in times]
        cells = [f"{quantile(every, percent) / 1000:.0f}" for percent in percents]
        rows.append([name, *cells, *(against(found, base, name, 50).text() for base in ("bare", TRAPPED))])
    return rows


def measure(plan: Plan) -> Part:
    """Return what the trap adds to an exec, and what others do."""
    rounds = 2 if plan.quick else ROUNDS
    with tempfile.TemporaryDirectory(prefix="bench-exec-", dir="/var/tmp") as directory:  # a disk, where /tmp is memory
        os.chmod(directory, 0o755)
        log = open_log(directory, [])
        found = trio.run(_measure, log, directory, rounds)
        log.close(None)
        recorded = Path(directory, places.EVENT_LOG).read_bytes().count(b'"dev.codingagents.exec.allowed"')
    assert recorded >= rounds * SPAWNS, "not every exec was recorded"
    how = (
        f"/bin/true by posix_spawn; {rounds} rounds of {SPAWNS}, targets in turn. Ours: events on, rules, Landlock. "
        "policy_fn decides by the same rules in Python and records nothing. Ratios are of the medians of each round."
    )
    columns = ["exec, spawn to wait", "p25 µs", "p50 µs", "p99 µs", "÷ bare", "÷ ours"]
    table = Table(columns, _rows(found, (25, 50, 99)))
    return Part("Execs", how, [table], [Judged(_BUDGET, against(found, "bare", TRAPPED, 50))])
