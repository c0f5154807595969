"""SHELL: large bodies: how fast they pass, either way, and how much memory a proxy takes meanwhile.

Memory is measured in runs of its own, since looking takes time: while a body passes, while an event stream without end
passes as fast as it goes, and while its client reads nothing at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.layout import Layout
from bench.processes import tree_uss
from bench.results import Budget, Figure, Judged, Part, Plan, Table, ratios
from bench.streams import ask, connect
from bench.targets import STREAMING, Target

MEGABYTES = 100
_PIECE = 1 << 18
_LOOK_EVERY = 5_000_000  # bytes between two looks at the memory
_FAST = "{} MB body {}: speed ÷ nginx's"
_BUDGETS = {
    "down": Budget(what=_FAST.format(MEGABYTES, "down"), must=0.9, aim=1.0, more_is_better=True),
    "up": Budget(what=_FAST.format(MEGABYTES, "up"), must=0.9, aim=1.0, more_is_better=True),
}
_GROWTH = Budget(what="memory growth of a helper while bodies and endless streams pass", must=2.0, aim=2.0, unit="MB")

_Look = Callable[[], None]


def _down(target: Target, size: int, look: _Look) -> float:
    buffer = bytearray(_PIECE)
    with connect(target) as client:
        begun = time.monotonic()
        client.sendall(ask(target, f"bytes {size}"))
        got = seen = 0
        while got < size:  # the head is counted too
            count = client.recv_into(buffer)
            assert count, "the body broke off"
            got += count
            if got - seen > _LOOK_EVERY:
                seen = got
                look()
        return size / 1e6 / (time.monotonic() - begun)


def _up(target: Target, size: int, look: _Look) -> float:
    piece = bytes(_PIECE)
    with connect(target) as client:
        begun = time.monotonic()
        client.sendall(ask(target, "sink", method="POST", length=size))
        sent = seen = 0
        while sent < size:
            part = min(_PIECE, size - sent)
            client.sendall(piece[:part] if part < _PIECE else piece)
            sent += part
            if sent - seen > _LOOK_EVERY:
                seen = sent
                look()
        answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        return size / 1e6 / (time.monotonic() - begun)


def _endless(target: Target, seconds: float, look: _Look, *, read: bool) -> None:
    with connect(target) as client:
        client.sendall(ask(target, "events 0 0"))
        end = time.monotonic() + seconds
        seen = 0.0
        while (now := time.monotonic()) < end:
            if read:
                client.recv(_PIECE)
            else:
                time.sleep(0.02)
            if now > seen + 0.05:
                seen = now
                look()


def _growth(target: Target, pass_it: Callable[[_Look], object]) -> float:
    """Return the MB that the target's USS rose above its start while `pass_it` ran."""
    before = tree_uss(target.pid)
    seen = [before]
    pass_it(lambda: seen.append(tree_uss(target.pid)))
    return max(seen) - before


def _passings(target: Target, size: int, seconds: float) -> list[Callable[[_Look], object]]:
    """Return what passes while memory is looked at, in the order of the table's columns."""
    return [
        lambda look: _down(target, size, look),
        lambda look: _up(target, size, look),
        lambda look: _endless(target, seconds, look, read=True),
        lambda look: _endless(target, seconds, look, read=False),
    ]


def measure(plan: Plan, layout: Layout) -> Part:
    """Return speeds and growth of each target that passes bodies on."""
    layout.proxies_alone()
    size = (2 if plan.quick else MEGABYTES) * 1_000_000
    streaming = {name: target for name, target in layout.targets.items() if name in STREAMING}
    speeds: dict[str, dict[str, list[float]]] = {name: {"down": [], "up": []} for name in streaming}
    growths: dict[str, list[list[float]]] = {name: [] for name in streaming}
    for turn in range(plan.rounds + 1):
        for name, target in streaming.items():
            found = {"down": _down(target, size, lambda: None), "up": _up(target, size, lambda: None)}
            if turn or plan.quick:  # the first round warms up
                for way, speed in found.items():
                    speeds[name][way].append(speed)
    for _ in range(min(plan.rounds, 2)):
        for name, target in streaming.items():
            if target.pid:
                growths[name].append([_growth(target, pass_it) for pass_it in _passings(target, size, plan.seconds)])
    judged = [Judged(budget, ratios(speeds["helper"][way], speeds["nginx"][way])) for way, budget in _BUDGETS.items()]
    judged.append(Judged(_GROWTH, Figure.of([max(each) for each in growths["helper"]])))
    rows = []
    for name, of in speeds.items():
        cells: list[str] = []
        for way, values in of.items():
            cells += [f"{Figure.of(values).median:.0f}", ratios(values, speeds["nginx"][way]).text()]
        cells += [f"{max(column):.1f}" for column in zip(*growths[name], strict=True)] or ["-"] * 4
        rows.append([name, *cells])
    columns = [
        *("body", "down MB/s", "÷ nginx", "up MB/s", "÷ nginx"),
        *("growth down, MB", "growth up, MB", "endless events, MB", "endless and unread, MB"),
    ]
    how = (
        f"{size // 1_000_000} MB over a new connection, the proxy on a CPU of its own; {plan.rounds} rounds, targets "
        "in turn. Growth is the highest USS above that before, in a process that passed such bodies already; the most "
        "of two runs."
    )
    return Part("Bodies and memory", how, [Table(columns, rows)], judged)
