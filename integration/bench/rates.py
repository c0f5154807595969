"""SHELL: requests: how many a second, how late, for how much CPU; pairwise, everything on one CPU.

Client, proxy and upstream share one CPU and wait for nothing but each other, so that the CPU time of all three per
request is the whole cost of a request, and its inverse the throughput that an otherwise idle CPU shows. Targets are
compared by that and not by requests per second, which any neighbour on the machine changes.
"""

from __future__ import annotations

from bench import wrk
from bench.layout import Layout
from bench.results import Budget, Figure, Judged, Part, Plan, Table, differences, ratios

CONNECTIONS = (16, 1, 64)
_AT_16 = "helper, 16 connections, one CPU: throughput ÷ {}'s"
_BUDGETS = {
    "nginx": Budget(what=_AT_16.format("nginx"), must=0.6, aim=0.75, more_is_better=True),
    "envoy": Budget(what=_AT_16.format("Envoy"), must=1.3, aim=1.3, more_is_better=True),
    "mcp-proxy": Budget(what=_AT_16.format("mcp-proxy"), must=100, aim=100, more_is_better=True, digits=0),
}
_ADDED = Budget(what="helper, 1 connection: added p50 ÷ what nginx adds", must=2.0, aim=1.5)

_Runs = dict[str, list[wrk.Load]]  # by target


def measure(plan: Plan, layout: Layout) -> Part:
    """Return requests per second, latencies and CPU of every target."""
    layout.all_on_one()
    tables, judged = [], []
    for connections in CONNECTIONS[: 2 if plan.quick else None]:
        runs = _runs(plan, layout, connections)
        tables.append(_table(runs, connections))
        if connections == CONNECTIONS[0]:
            judged += [
                Judged(budget, ratios(_column(runs, peer, "whole"), _column(runs, "helper", "whole")))
                for peer, budget in _BUDGETS.items()
                if peer in runs
            ]
        elif connections == 1 and {"direct", "nginx"} <= set(runs):
            added = {
                name: differences(_column(runs, name, "p50"), _column(runs, "direct", "p50"))
                for name in ("helper", "nginx")
            }
            judged.append(Judged(_ADDED, ratios(added["helper"], added["nginx"])))
    how = (
        f"wrk, a JSON-RPC POST of about {wrk.BODY_BYTES} bytes with new ids and trace headers each, a reply of about "
        "300 with new dates and ids, each of another length, TLS 1.3 upstream. Client, proxy and upstream share a CPU; "
        f"{plan.rounds} rounds of {plan.seconds:g} s, targets in turn. ÷ nginx is the whole CPU time of a request "
        "through nginx ÷ that through the target: the ratio of their throughputs on one busy CPU."
    )
    return Part("Requests", how, tables, judged)


def _runs(plan: Plan, layout: Layout, connections: int) -> _Runs:
    runs: _Runs = {name: [] for name in layout.targets}
    for turn in range(plan.rounds + 1):
        for name, target in layout.targets.items():
            found = wrk.run(layout.upstream, target, connections, plan.seconds, layout.busy)
            if turn or plan.quick:  # the first round warms up
                runs[name].append(found)
    return runs


def _column(runs: _Runs, name: str, column: str) -> list[float]:
    return [getattr(run, column) for run in runs[name]]


def _table(runs: _Runs, connections: int) -> Table:
    rows = []
    for name in runs:
        rate, p50, p99, whole, own = (Figure.of(_column(runs, name, column)).median for column in wrk.Load._fields)
        cells = [f"{rate:.0f}", f"{p50:.0f}", f"{p99:.0f}"]
        if name == "direct":
            cells += ["-", "-", f"{whole:.1f}", "-"]
        else:
            added = "-"
            if "direct" in runs:
                added = (
                    f"{Figure.of(differences(_column(runs, name, 'p50'), _column(runs, 'direct', 'p50'))).median:.0f}"
                )
            ratio = ratios(_column(runs, "nginx", "whole"), _column(runs, name, "whole"))
            cells += [added, f"{own:.1f}", f"{whole:.1f}", ratio.text(3 if ratio.median < 0.1 else 2)]
        rows.append([name, *cells])
    columns = ["req/s", "p50 µs", "p99 µs", "added p50 µs", "CPU µs/req, proxy", "CPU µs/req, all", "÷ nginx"]
    return Table([f"{connections} connection{'s' if connections > 1 else ''}", *columns], rows)
