"""A `Relay` on a bench: its client, upstream and surroundings are recorders, and time stands still unless told."""

from __future__ import annotations

from dataclasses import dataclass, field

from codingagents.proxies.credentials import Attachment
from codingagents.proxies.gate import Gate, Route
from codingagents.proxies.heads import RequestHeads, ResponseHeads
from codingagents.proxies.relay import Relay
from codingagents.proxies.sse import Endpoints
from codingagents.proxies.surroundings import RelayConfig
from codingagents.proxies.targets import Origin
from codingagents.rewrite.specs import HeaderTemplate, LimitsSpec
from codingagents.trust.facts import AnyFact, Refused, Request
from codingagents.trust.vocabulary import Secret

PORT = 8080
HEAD = "Host: 127.0.0.1:8080\r\nAuthorization: Bearer local"
ALWAYS = b"Host: up.test\r\n"
TOKEN = b"Authorization: Bearer upstream\r\n"
ORIGIN = Origin("https", "up.test", 443)


def request(first: str = "POST /mcp HTTP/1.1", *more: str, body: bytes = b"", length: bool = True) -> bytes:
    """Return a request that the gate lets through."""
    lines = [first, HEAD, *more]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@dataclass
class ClientRecorder:
    """The client's transport."""

    written: bytearray = field(default_factory=bytearray)
    end: str | None = None  # how the connection was ended
    paused: bool = False

    def write(self, data: bytes) -> None:
        assert self.end is None, "a write after the end"
        assert data, "an empty write"
        self.written += data

    def write_eof(self) -> None:
        self._finish("eof")

    def close(self) -> None:
        self._finish("close")

    def abort(self) -> None:
        self._finish("abort")

    def _finish(self, how: str) -> None:
        assert self.end in (None, "eof")
        self.end = how

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False

    def take(self) -> bytes:
        """Return what was written since the last call."""
        data = bytes(self.written)
        self.written.clear()
        return data


@dataclass
class UpstreamRecorder:
    """One upstream connection."""

    trusted: bool = True
    reused: bool = False
    written: bytearray = field(default_factory=bytearray)
    writes: int = 0
    state: str = "used"
    paused: bool = False
    idle_seconds: int | None = None

    def write(self, data: bytes) -> None:
        assert self.state == "used"
        assert data, "an empty write"
        self.written += data
        self.writes += 1

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def release(self, idle_seconds: int | None) -> None:
        assert self.state == "used"
        assert not self.paused, "a paused connection in the pool never notices its end"
        self.state = "released"
        self.idle_seconds = idle_seconds

    def close(self) -> None:
        self.state = "closed"


class Bench:
    """Everything around one relay; `at_hand` are the idle connections that `connect` gives out at once."""

    def __init__(
        self,
        *,
        limits: LimitsSpec | None = None,
        at_hand: list[UpstreamRecorder] | None = None,
        allowed: bool = True,
        credential: bool = True,
        refusal: str | None = None,
        legacy: bool = False,
    ) -> None:
        self.now = 1000.0
        self.at_hand = at_hand if at_hand is not None else []
        self.allowed = allowed
        self.refusal = refusal
        self.asked = 0  # connections asked for
        self.cancelled = 0
        self.watched = False
        self.facts: list[AnyFact] = []
        self.client = ClientRecorder()
        headers = [HeaderTemplate(name="Authorization", template="Bearer ${TOKEN}")] if credential else []
        self.attachment = Attachment("up.test", headers, {"TOKEN": Secret("upstream")})
        self.route = Route("/mcp", legacy=legacy)
        self.heads = RequestHeads(frozenset({b"authorization"}), self.route.judge)
        config = RelayConfig(
            server="srv",
            gate=Gate(PORT, Secret("local"), ["uid", "bearer"]),
            requests=self.heads,
            responses=ResponseHeads(rewrites_events=legacy),
            limits=limits or LimitsSpec(header_bytes=2048, request_bytes=10_000, idle_seconds=900),
            attachment=self.attachment,
            origin=ORIGIN,
            judge=self.route.judge,
            endpoints=Endpoints(ORIGIN, self.learn) if legacy else None,
            refusal=lambda: self.refusal,
        )
        self.relay = Relay(config, self.client, self, lambda: self.now)

    def learn(self, path: bytes) -> None:
        self.route.learn(path)
        self.heads.judge_again()

    def peer(self) -> tuple[bool, int | None]:
        return self.allowed, 1000

    def watch(self, on: bool) -> None:
        assert self.client.paused, "who is read from is watched by being read"
        assert self.watched != on
        self.watched = on

    def connect(self, *, fresh: bool) -> UpstreamRecorder | None:
        self.asked += 1
        return self.at_hand.pop() if self.at_hand and not fresh else None

    def cancel_connect(self) -> None:
        self.cancelled += 1

    def emit(self, fact: AnyFact) -> None:
        self.facts.append(fact)

    @property
    def last_request(self) -> Request:
        found = [fact for fact in self.facts if isinstance(fact, Request)]
        return found[-1]

    @property
    def refused(self) -> list[str]:
        return [fact.reason for fact in self.facts if isinstance(fact, Refused)]


def dialed(bench: Bench, data: bytes, *, trusted: bool = True) -> UpstreamRecorder:
    """Send a request and let the connection that it asks for come up."""
    bench.relay.client_data(data)
    upstream = UpstreamRecorder(trusted=trusted)
    bench.relay.upstream_ready(upstream)
    return upstream
