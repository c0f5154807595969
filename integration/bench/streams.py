"""SHELL: event streams: how late an event is, the first one above all, and what one costs; the proxy has its own CPU.

Client and upstream share the other CPU. Each event names when it was written, on the one clock that all processes of a
machine share (CLOCK_MONOTONIC).
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.layout import Layout
from bench.processes import PATIENCE, cpu_micros
from bench.results import Budget, Figure, Judged, Part, Plan, Table, ratios
from bench.targets import STREAMING, Target

_STAMP = re.compile(rb'"ns":(\d{20})')
_EVENTS = 300  # one a millisecond
_FIRSTS = 60
_STREAMS = 64
_PERIOD = 4000  # µs between two events of each of these
_LATE = Budget(what="SSE event through a helper: p50 ÷ nginx's", must=1.1, aim=1.0)
_FIRST = Budget(what="first SSE event through a helper: p50 ÷ nginx's", must=1.1, aim=1.0)


def connect(target: Target) -> socket.socket:
    """Return a connection to `target`, over TLS where it is the upstream itself."""
    client = socket.create_connection(("127.0.0.1", target.port), timeout=PATIENCE)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not target.tls:
        return client
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the benchmark's own server
    return context.wrap_socket(client)


def ask(target: Target, bench: str, *, method: str = "GET", length: int = 0) -> bytes:
    """Return the head of a request for what `upstream.c` calls `bench`."""
    lines = [f"{method} /mcp HTTP/1.1", f"Host: 127.0.0.1:{target.port}", f"Authorization: Bearer {target.bearer}"]
    lines += ["Accept: text/event-stream", f"Bench: {bench}", *([f"Content-Length: {length}"] if length else [])]
    return "\r\n".join([*lines, "", ""]).encode()


@dataclass
class _Found:
    """One target's rounds: µs of each round's median and 99th, of the first event, CPU an event, events a second."""

    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    flat_out: list[float] = field(default_factory=list)


def measure(plan: Plan, layout: Layout) -> Part:
    """Return latency, first event, CPU and rate of each target that passes streams on."""
    layout.proxies_alone()
    streaming = {name: target for name, target in layout.targets.items() if name in STREAMING}
    found = {name: _Found() for name in streaming}
    for _ in range(plan.rounds):
        for name, target in streaming.items():
            _one_round(found[name], target, plan)
    judged = []
    for budget, column in ((_LATE, "p50"), (_FIRST, "first")):
        judged.append(Judged(budget, ratios(getattr(found["helper"], column), getattr(found["nginx"], column))))
    rows = []
    for name, of in found.items():
        cells = [f"{Figure.of(values).median:.0f}" for values in (of.p50, of.p99, of.first)]
        cells.append(f"{Figure.of(of.cpu).median:.1f}" if streaming[name].pid else "-")
        cells.append(f"{Figure.of(of.flat_out).median / 1000:.0f}")
        cells += [ratios(getattr(of, column), getattr(found["nginx"], column)).text() for column in ("p50", "first")]
        rows.append([name, *cells])
    columns = [
        *("stream", "event p50 µs", "event p99 µs", "first event p50 µs", f"CPU µs/event, {_STREAMS} streams"),
        *("flat-out 1000 events/s", "event ÷ nginx", "first ÷ nginx"),
    ]
    how = (
        "200-byte events, one each millisecond on one connection, from being written by the upstream to being read by "
        f"the client; the first from the request on; CPU of the proxy with {_STREAMS} streams of "
        f"{1_000_000 // _PERIOD} events a second; flat-out: one stream. The proxy has a CPU of its own; "
        f"{plan.rounds} rounds, targets in turn."
    )
    return Part("Event streams", how, [Table(columns, rows)], judged)


def _one_round(found: _Found, target: Target, plan: Plan) -> None:
    late = sorted(_latencies(target, 50 if plan.quick else _EVENTS))
    found.p50.append(late[len(late) // 2])
    found.p99.append(late[len(late) * 99 // 100])
    found.first.append(statistics.median(_firsts(target, 5 if plan.quick else _FIRSTS)))
    found.cpu.append(_cost(target, plan.seconds / 2))
    found.flat_out.append(_flat_out(target, plan.seconds / 4))


def _reads(client: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yield (ns at which it was read, data) until the end of one chunked body."""
    tail = b""
    while not tail.endswith(b"\r\n0\r\n\r\n"):
        data = client.recv(65536)
        at = time.monotonic_ns()
        assert data, "the stream broke off"
        tail = (tail + data)[-7:]
        yield at, data


def _latencies(target: Target, events: int) -> list[float]:
    with connect(target) as client:
        client.sendall(ask(target, f"events {events} 1000"))
        found = [(at - int(stamp)) / 1000 for at, data in _reads(client) for stamp in _STAMP.findall(data)]
    assert len(found) == events
    return found


def _firsts(target: Target, times: int) -> Iterator[float]:
    """Yield µs from a request to its first event; a second event follows, so that nothing is pushed out by an end."""
    with connect(target) as client:
        for _ in range(times):
            begun = time.monotonic_ns()
            client.sendall(ask(target, "events 2 2000"))
            events = [at for at, data in _reads(client) if _STAMP.search(data)]
            yield (events[0] - begun) / 1000


def _cost(target: Target, seconds: float) -> float:
    """Return µs of the proxy's CPU for each event of many streams."""
    proxy = [target.pid] if target.pid else []
    clients = [connect(target) for _ in range(_STREAMS)]
    poll = select.epoll()
    by_number = {client.fileno(): client for client in clients}
    try:
        for number, client in by_number.items():
            client.sendall(ask(target, f"events 0 {_PERIOD}"))
            poll.register(number, select.EPOLLIN)
        before, counted = 0.0, 0
        for _phase in ("warm", "measured"):
            before, counted = cpu_micros(proxy), 0
            end = time.monotonic() + seconds
            while time.monotonic() < end or not counted:
                for number, _ in poll.poll(0.1):
                    counted += by_number[number].recv(1 << 18).count(b'"ns":')
        return (cpu_micros(proxy) - before) / counted
    finally:
        poll.close()
        for client in clients:
            client.close()


def _flat_out(target: Target, seconds: float) -> float:
    with connect(target) as client:
        client.sendall(ask(target, "events 0 0"))
        client.recv(1 << 18)
        counted, begun = 0, time.monotonic()
        while time.monotonic() < begun + seconds:
            counted += client.recv(1 << 18).count(b'"ns":')
        return counted / (time.monotonic() - begun)
