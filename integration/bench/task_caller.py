"""ENTRY: spawns what it is told and times it, in a session as its agent or outside of one; bench.task tells it.

Takes a JSON line [how, count, argv] and answers with one. `turns`: count times one after the other, the ms of each;
`together`: all at once, the ms until the last ended; `hold`: started and left waiting, their PIDs.
"""

from __future__ import annotations

import json
import os
import sys
import time

_held: list[int] = []  # pipes that what is held reads from


def spawn(argv: list[str]) -> int:
    return os.posix_spawn(argv[0], argv, os.environ)


def end(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    assert status == 0, status


def turns(count: int, argv: list[str]) -> list[float]:
    found = []
    for _ in range(count):
        begun = time.perf_counter()
        end(spawn(argv))
        found.append(1000 * (time.perf_counter() - begun))
    return found


def together(count: int, argv: list[str]) -> float:
    begun = time.perf_counter()
    for pid in [spawn(argv) for _ in range(count)]:
        end(pid)
    return 1000 * (time.perf_counter() - begun)


def hold(count: int, argv: list[str]) -> list[int]:
    reading, writing = os.pipe()
    _held.append(writing)
    return [
        os.posix_spawn(argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, reading, 0)])
        for _ in range(count)
    ]


print(json.dumps("up"), flush=True)
while line := sys.stdin.readline():
    how, count, argv = json.loads(line)
    print(json.dumps({"turns": turns, "together": together, "hold": hold}[how](count, argv)), flush=True)
