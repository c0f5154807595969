"""CORE: one client connection of a helper, sans-I/O: bytes and happenings in, effects out.

Effects are calls on three small interfaces (`ClientEnd`, `UpstreamEnd`, `Surroundings`) and not command objects: the
hot path of a request is five such calls, and building and dispatching objects for them would cost as much as parsing
both heads. Tests implement the interfaces with recorders, and need no socket, loop or clock.

Requests of one connection are served in order, one at a time; what a client sends ahead waits unparsed. This half reads
requests and ends connections; what goes upstream for a request and what comes back is an `Exchange`. `Expect:
100-continue` is answered here, because a client that waits for it and an upstream that ignores it would wait for each
other. The end of the client's stream is taken for its going away, since over TCP one cannot be told from the other:
what it asked for is cancelled. Decides nothing about callers (`gate`), addresses or trust (`upstream`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from codingagents.proxies.errors import Refusal
from codingagents.proxies.exchange import UPSTREAM_FULL, ClientSide, Exchange
from codingagents.proxies.framing import request_body
from codingagents.proxies.heads import RequestHead
from codingagents.proxies.surroundings import ClientEnd, RelayConfig, Surroundings, UpstreamEnd
from codingagents.trust.answers import render
from codingagents.trust.facts import Refused

HEAD_SECONDS: Final = 30.0  # for one request head, from its first byte; for the first one, from the connection on
LINGER_SECONDS: Final = 2.0  # a refused client gets this long to read the answer while it still sends
LINGER_BYTES: Final = 1 << 20
_SENT_AHEAD: Final = 64 * 1024  # bytes of later requests that may wait before the client is paused
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_IDLE: Final = 0
_BUSY: Final = 1
_LINGER: Final = 2
_CLOSED: Final = 3

# A reason not to read from the client, besides those of `exchange`.
_AHEAD: Final = 4
_ANY_REASON: Final = 7


class Relay(ClientSide):
    """See the module. `deadline` is when the shell calls `tick` at the latest, on the clock that was passed in."""

    __slots__ = ("_clock", "_exchange", "_held", "_idle_seconds", "_linger_left", "_paused", "_peer", "_phase")

    def __init__(
        self, config: RelayConfig, client: ClientEnd, surroundings: Surroundings, clock: Callable[[], float]
    ) -> None:
        """Start with a fresh client connection."""
        super().__init__(config, client, surroundings, clock())
        self._clock = clock
        self._idle_seconds = config.limits.idle_seconds
        self._phase = _IDLE
        self._exchange: Exchange | None = None
        self._peer: tuple[bool, int | None] | None = None
        self._paused = 0
        self._held = b""
        self._linger_left = LINGER_BYTES
        # Anybody on the machine can connect: who says nothing does not take a place for long.
        self.deadline = self.now + min(self.patience, HEAD_SECONDS)

    # --- from the client -----------------------------------------------------------------------------------------

    def client_data(self, data: bytes) -> None:
        """Take bytes of the client."""
        self.now = self._clock()
        if self._phase == _IDLE:
            self._read_head(data)
        elif self._phase == _BUSY:
            exchange = self._exchange
            assert exchange is not None
            if not exchange.complete:
                self.deadline = self.now + self.patience
                self._read_body(exchange, data)
                return
            self._held += data
            if len(self._held) > _SENT_AHEAD:
                self.pause(_AHEAD)
        elif self._phase == _LINGER:
            self._linger_left -= len(data)
            if self._linger_left <= 0:
                self._end()

    def client_closed(self) -> None:
        """Take the client's end of stream or the loss of its connection: what it asked for is cancelled at once."""
        if self._phase in (_LINGER, _CLOSED):
            self._end()
            return
        self.now = self._clock()
        if self._exchange is not None:
            self._exchange.cancel()
        self.abort()

    def client_full(self, full: bool) -> None:
        """Take note that the client reads slower than the upstream sends, or no longer so."""
        self.client_is_full = full
        if self._exchange is not None:
            self._exchange.client_full(full)

    def _read_head(self, data: bytes) -> None:
        held = self._held
        if held:
            data = held + data
        elif not data:
            return
        limit = self.config.limits.header_bytes
        end = data.find(b"\r\n\r\n", max(0, len(held) - 3), limit + 4)
        if end < 0:
            self._wait_for_head(data, begins=not held)
            return
        self._held = b""
        try:
            head = self.config.requests.read(data[:end])
        except Refusal as refusal:
            self._turn_away(refusal.code)
            return
        if self._peer is None:
            self._peer = self.surroundings.peer() if self.config.gate.wants_uid else (True, None)
        code = self.config.gate.check(head, self._peer[0])
        if code is None and head.length > self.config.limits.request_bytes:
            code = "body_too_large"
        if code is not None:
            self._turn_away(code, head.form.method)
            return
        self._begin(head, data[end + 4 :])

    def _wait_for_head(self, data: bytes, *, begins: bool) -> None:
        if len(data) > self.config.limits.header_bytes:
            self._turn_away("head_too_large")
        elif data.count(b"\n") != data.count(b"\r\n") or data.startswith((b"\r\n", b" ", b"\t")):
            self._turn_away("bad_header")  # it can never become right
        else:
            self._held = data
            if begins:
                self.deadline = self.now + HEAD_SECONDS

    def _begin(self, head: RequestHead, data: bytes) -> None:
        """Take a request that passed the gate; `data` is what the client sent after its head."""
        self._phase = _BUSY
        self.deadline = self.now + self.patience
        whole = len(data) == head.length  # as most are
        exchange = self._exchange = Exchange(self, head, data if whole else None)
        if head.length == 0 and not whole:
            exchange.complete = True
            self._held = data
        elif not whole:
            exchange.body = request_body(head.length)
            if data:
                self._read_body(exchange, data)
            if not self.busy:
                return  # the body was malformed
        code = self.config.refusal()
        if code is not None:
            self.close_after = True
            exchange.fail(code)
            return
        if head.form.expect and not exchange.complete:
            self.client.write(_CONTINUE)
        exchange.connect()

    def _read_body(self, exchange: Exchange, data: bytes) -> None:
        """Take bytes of the request's body."""
        body = exchange.body
        assert body is not None
        try:
            data, rest = body.feed(data)
            if body.count > self.config.limits.request_bytes:
                raise Refusal("body_too_large")
        except Refusal as refusal:
            exchange.fail(refusal.code)
            return
        if rest is not None:
            exchange.complete = True
            self._held = rest
        if data:
            exchange.send(data)

    # --- from the upstream ---------------------------------------------------------------------------------------

    def upstream_ready(self, upstream: UpstreamEnd) -> None:
        """Take the connection that `connect` promised."""
        self.now = self._clock()
        assert self._exchange is not None
        self._exchange.connected(upstream)

    def upstream_failed(self, code: str) -> None:
        """Take note that `connect` came to nothing, for a `code` of `answers.ANSWERS`."""
        self.now = self._clock()
        assert self._exchange is not None
        self._exchange.not_connected(code)

    def upstream_full(self, full: bool) -> None:
        """Take note that the upstream reads slower than the client sends, or no longer so."""
        if full:
            self.pause(UPSTREAM_FULL)
        else:
            self.resume(UPSTREAM_FULL)

    def upstream_data(self, data: bytes) -> None:
        """Take bytes of the upstream."""
        self.now = now = self._clock()
        self.deadline = now + self.patience
        exchange = self._exchange
        assert exchange is not None
        exchange.receive(data)

    def upstream_closed(self, *, clean: bool) -> None:
        """Take the end of the upstream's stream; `clean` where TLS or TCP ended it in order."""
        self.now = self._clock()
        assert self._exchange is not None
        self._exchange.upstream_closed(clean=clean)

    # --- for the exchange: its `ClientSide` ----------------------------------------------------------------------

    def next(self, *, linger: bool) -> None:
        """Turn to the client's next request, or close; with `linger` where this one has not arrived completely."""
        self._exchange = None
        self.patience = self._idle_seconds
        if self.close_after:
            self._close(linger=linger or bool(self._held))
            return
        self._phase = _IDLE
        self.deadline = self.now + self.patience
        if self._paused:
            self.resume(_ANY_REASON)
        if self._held:
            data, self._held = self._held, b""
            self._read_head(data)

    def abort(self) -> None:
        """End the connection so that the client cannot take what it got for complete."""
        self._end(abort=True)

    def pause(self, reason: int) -> None:
        """Read no more from the client until `resume`."""
        if not self._paused:
            self.client.pause_reading()
            self.surroundings.watch(True)
        self._paused |= reason

    def resume(self, reasons: int) -> None:
        """Forget `reasons` not to read."""
        if self._paused and not self._paused & ~reasons:
            self.surroundings.watch(False)
            self.client.resume_reading()
        self._paused &= ~reasons

    # --- ends ----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Act on a deadline that has passed."""
        if now < self.deadline:
            return
        self.now = now
        if self._exchange is not None:
            self._exchange.fail(self._exchange.late)
        elif self._phase == _IDLE and self._held:
            self._turn_away("request_timeout")
        else:
            self._end()

    def drain(self) -> None:
        """Serve what is in flight, tell event streams, and then no more."""
        self.draining = self.close_after = True
        if self._exchange is not None:
            self.now = self._clock()
            self._exchange.drain()
        elif self._phase == _IDLE and not self._held:
            self._end()

    def give_up(self) -> None:
        """Break off what `drain` left: nothing in flight is ended as if it were complete."""
        if self._exchange is not None:
            self.now = self._clock()
            self._exchange.fail("drained")
        self._end()

    @property
    def busy(self) -> bool:
        """Whether a request is in flight."""
        return self._exchange is not None

    def _turn_away(self, code: str, method: str = "POST") -> None:
        """Refuse a request before anything upstream is contacted, and serve this connection no more."""
        self.surroundings.emit(Refused(reason=code, peer_user_id=self._peer[1] if self._peer else None))
        self.client.write(render(code, self.config.server, method=method, close=True))
        self._close(linger=True)

    def _close(self, *, linger: bool) -> None:
        """Close after what was written; with `linger` the client may still send, lest a reset overtake the answer."""
        if not linger:
            self._end()
            return
        self._held = b""
        self._phase = _LINGER
        self.deadline = self.now + LINGER_SECONDS
        self.resume(_ANY_REASON)
        self.client.write_eof()

    def _end(self, *, abort: bool = False) -> None:
        if self._phase == _CLOSED:
            return
        self._phase = _CLOSED
        self.deadline = math.inf
        self._exchange = None
        self._held = b""
        if self._paused:
            self._paused = 0
            self.surroundings.watch(False)
        if abort:
            self.client.abort()
        else:
            self.client.close()
