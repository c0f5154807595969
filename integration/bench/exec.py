"""Compares an exec under the trap with one that nothing sees: policy, scrubber and a signed event log on disk included.

Two programs of the same UID behind the same confine stub, one without trap and Landlock, spawn /bin/true in turns and
time each spawn from inside, from posix_spawn(3) to the wait's return. A ratio is taken of each pair of rounds, and the
median of these is reported: what else the machine does falls on both of a pair alike.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

import trio

from codingagents.rewrite import places
from codingagents.supervisor import processes, rundirs
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.reaper import Reaper
from trap_harness import Confined, Request, confined, deny, open_log, python

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "20"))
SPAWNS = 100  # a round
ATTEMPTS = 3
MUST, AIM = 1.5, 1.3  # of the median
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


async def _measure(log: EventLog, directory: str) -> list[tuple[list[int], list[int]]]:
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
            for _ in range(ROUNDS):
                pairs.append((await bare.round(), await trapped.round()))  # noqa: PERF401 -- two awaits a pair, in turn
            for each, made in ((bare, first), (trapped, second)):
                each.stop()
                await reaper.wait(made.stub.child)
        nursery.cancel_scope.cancel()
    return pairs


def _quantile(times: list[int], percent: int) -> float:
    return statistics.quantiles(times, n=100, method="inclusive")[percent - 1]


def _attempt() -> float:
    """Measure and print once; return the median's ratio."""
    with tempfile.TemporaryDirectory(prefix="bench-exec-", dir="/var/tmp") as directory:  # a disk, where /tmp is memory
        os.chmod(directory, 0o755)
        log = open_log(directory, [])
        pairs = trio.run(_measure, log, directory)
        log.close(None)
        recorded = Path(directory, places.EVENT_LOG).read_bytes().count(b'"dev.codingagents.exec.allowed"')
    assert recorded >= len(pairs) * SPAWNS, "not every exec was recorded"
    ratios = {
        name: statistics.median(_quantile(trapped, percent) / _quantile(bare, percent) for bare, trapped in pairs)
        for name, percent in (("median", 50), ("p25", 25), ("p99", 99))
    }
    for name, times in zip(("bare", "trapped"), zip(*pairs, strict=True), strict=True):
        print(f"  {name:8} median {statistics.median(time for round_ in times for time in round_) / 1000:7.0f} µs")
    print("  ratio    " + "   ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
    return ratios["median"]


def main() -> int:
    """Print the ratios; 1 where the median's is over the budget, each time of `ATTEMPTS`: a busy machine adds to it."""
    print(f"exec of /bin/true, trap and events on ÷ bare posix_spawn ({ROUNDS} pairs of {SPAWNS})")
    within = any(_attempt() <= MUST for _ in range(ATTEMPTS))
    print(f"  budget   median ≤ {MUST} (aim {AIM}): {'within' if within else 'OVER'}")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
