"""SHELL: how long it takes to get /bin/true to run, and to its end, behind our confine stub, bubblewrap and sandlock.

Ours is a role as a session starts one: a stub is spawned, puts every layer on, tries each, waits for the word, execs
under the trap. bubblewrap has namespaces and mounts instead, and decides no exec. sandlock's time is without the start
of the Python that calls it.
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import Final

import trio

from bench.exec import SANDLOCK, Spawner, sandlocked
from bench.results import Figure, Part, Plan, Table, ratios
from codingagents.supervisor import processes, rundirs
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.reaper import Reaper
from trap_harness import Request, confined, open_log

ROUNDS = 20
_TRUE: Final = "/bin/true"
_OURS = "our confine stub"
_PROGRAMS: Final = {
    "bare posix_spawn": [_TRUE],
    "bwrap --ro-bind / /": ["/usr/bin/bwrap", "--ro-bind", "/", "/", _TRUE],
    "bwrap --unshare-all": ["/usr/bin/bwrap", "--ro-bind", "/", "/", "--unshare-all", _TRUE],
}


def _spawned(command: list[str]) -> float:
    """Return the ms of a program from its spawn to its end."""
    begun = time.perf_counter_ns()
    _, status = os.waitpid(os.posix_spawn(command[0], command, {}), 0)
    took = time.perf_counter_ns() - begun
    assert status == 0, command
    return took / 1e6


class _Bench:
    def __init__(self, log: EventLog, directory: str) -> None:
        self._log = log
        self._probe_file = rundirs.write_probe_file(f"{directory}/self-test")
        self._children = processes.Children()
        self._reaper = Reaper(self._children)

    async def _ours(self) -> float:
        begun = time.perf_counter_ns()
        null = os.open(os.devnull, os.O_RDWR)
        async with confined(
            Request(argv=[_TRUE]),
            self._children,
            log=self._log,
            troubles=[],
            probe_file=self._probe_file,
            stdio={0: null, 1: null, 2: 2},
        ) as made:
            failed = await made.role.go()
            assert failed is None, failed
            ended = await self._reaper.wait(made.stub.child)
            took = time.perf_counter_ns() - begun
            assert ended.code == 0, ended
            assert made.role.trap is not None
            await trio.to_thread.run_sync(made.role.trap.join, 10.0)
        os.close(null)
        return took / 1e6

    async def run(self, rounds: int) -> dict[str, list[float]]:
        """Return the ms of each target's rounds, taken in turn; the first round, which warms caches, is left out."""
        callers = {name: Spawner() for name in SANDLOCK.values()}
        found: dict[str, list[float]] = {name: [] for name in (*_PROGRAMS, *callers, _OURS)}
        async with trio.open_nursery() as nursery:
            await nursery.start(self._reaper.run)
            for kind, name in SANDLOCK.items():
                self._children.spawn(sandlocked(kind, "time"), env={}, fds=callers[name].stdio)
                callers[name].started()
            for number in range(rounds + 1):
                took = {name: _spawned(command) for name, command in _PROGRAMS.items()}
                took |= {name: (await caller.round(1))[0] / 1e6 for name, caller in callers.items()}
                took[_OURS] = await self._ours()
                if number:
                    for name, each in took.items():
                        found[name].append(each)
            for caller in callers.values():
                caller.stop()
            nursery.cancel_scope.cancel()
        return found


def measure(plan: Plan) -> Part:
    """Return start-up times; there is no budget for them but those of whole sessions."""
    rounds = 2 if plan.quick else ROUNDS
    with tempfile.TemporaryDirectory(prefix="bench-confine-", dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        log = open_log(directory, [])
        found = trio.run(_Bench(log, directory).run, rounds)
        log.close(None)
    bare = found["bare posix_spawn"]
    rows = [[name, Figure.of(took).text(1), ratios(took, bare).text(1)] for name, took in found.items()]
    how = (
        f"/bin/true from the spawn of what confines it to its end; {rounds} rounds, targets in turn. Ours is a Python "
        "that puts each layer on and tries it; sandlock's is without the start of the Python that calls it."
    )
    return Part("Confined starts", how, [Table(["confined by", "start to end, ms", "÷ bare"], rows)], [])
