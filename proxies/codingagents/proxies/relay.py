"""CORE: one client connection of a helper, sans-I/O: bytes and happenings in, effects out.

Effects are calls on three small interfaces (`ClientEnd`, `UpstreamEnd`, `Surroundings`) and not command objects: the
hot path of a request is five such calls, and building and dispatching objects for them would cost as much as parsing
both heads. Tests implement the interfaces with recorders, and need no socket, loop or clock.

Requests of one connection are served in order, one at a time; what a client sends ahead waits unparsed. Bodies and
event streams pass as they come, in both directions, with back-pressure and without a total time limit. `Expect:
100-continue` is answered here, because a client that waits for it and an upstream that ignores it would wait for each
other. A response that the upstream did not finish is never ended cleanly towards the client. Decides nothing about
callers (`gate`), addresses or trust (`upstream`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from codingagents.proxies.errors import Refusal
from codingagents.proxies.framing import LAST_CHUNK, UNTIL_CLOSE, Body, request_body, response_body
from codingagents.proxies.heads import RequestHead, ResponseHead
from codingagents.proxies.surroundings import ClientEnd, RelayConfig, Surroundings, UpstreamEnd
from codingagents.trust.answers import ANSWERS, render
from codingagents.trust.facts import Refused, Request

HEAD_SECONDS = 30.0  # for one request head, from its first byte
LINGER_SECONDS = 2.0  # a refused client gets this long to read the answer while it still sends
LINGER_BYTES = 1 << 20
CLIENT_CLOSED = 499  # the status in facts where the client went away before there was one
_SENT_AHEAD = 64 * 1024  # bytes of later requests that may wait before the client is paused
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})  # safe methods, RFC 9110 9.2.1
_REDIRECTS = frozenset({300, 301, 302, 303, 305, 306, 307, 308})  # 304 answers a condition and leads nowhere

_IDLE, _BODY, _SENT, _LINGER, _CLOSED = range(5)

# Why the client is not read from; it is read again when none is left.
_DIALING: Final = 1
_UPSTREAM_FULL: Final = 2
_AHEAD: Final = 4
_ANY_REASON: Final = 7


class Relay:
    """See the module. `deadline` is when the shell calls `tick` at the latest, on the clock that was passed in."""

    __slots__ = (
        "_body", "_client", "_client_full", "_clock", "_close_after", "_config", "_dialing", "_head", "_held",
        "_interim", "_linger_left", "_outbox", "_paused", "_peer", "_phase", "_response", "_response_body",
        "_started", "_surroundings", "_upstream", "deadline",
    )  # fmt: skip

    def __init__(
        self, config: RelayConfig, client: ClientEnd, surroundings: Surroundings, clock: Callable[[], float]
    ) -> None:
        """Start with a fresh client connection."""
        self._config = config
        self._client = client
        self._surroundings = surroundings
        self._clock = clock
        self._phase = _IDLE
        self._peer: tuple[bool, int | None] | None = None
        self._close_after = False
        self._paused = 0
        self._client_full = False
        self._held = b""
        self._started = 0.0
        self._linger_left = LINGER_BYTES
        self._forget_request()
        self.deadline = clock() + config.limits.idle_seconds

    def _forget_request(self) -> None:
        self._head: RequestHead | None = None
        self._body: Body | None = None
        self._upstream: UpstreamEnd | None = None
        self._dialing = False
        self._outbox: list[bytes] = []  # what waits for the upstream connection
        self._response: ResponseHead | None = None
        self._response_body: Body | None = None
        self._interim = b""  # a response head that is not complete

    # --- from the client -----------------------------------------------------------------------------------------

    def client_data(self, data: bytes) -> None:
        """Take bytes of the client."""
        if self._phase == _IDLE:
            self._read_head(data)
        elif self._phase == _BODY:
            self.deadline = self._clock() + self._config.limits.idle_seconds
            self._read_body(data)
        elif self._phase == _SENT:
            self._held += data
            if len(self._held) > _SENT_AHEAD:
                self._pause(_AHEAD)
        elif self._phase == _LINGER:
            self._linger_left -= len(data)
            if self._linger_left <= 0:
                self._end()

    def client_closed(self) -> None:
        """Take the client's end of stream or the loss of its connection: what it asked for is cancelled at once."""
        if self._phase in (_LINGER, _CLOSED):
            self._end()
            return
        if self._head is not None:
            self._report("client_closed")
        self._drop_upstream()
        self._end(abort=True)

    def client_full(self, full: bool) -> None:
        """Take note that the client reads slower than the upstream sends, or no longer so."""
        self._client_full = full
        if self._upstream is not None:
            if full:
                self._upstream.pause_reading()
            else:
                self._upstream.resume_reading()

    def _read_head(self, data: bytes) -> None:
        held = self._held
        if held:
            data = held + data
        elif not data:
            return
        limit = self._config.limits.header_bytes
        end = data.find(b"\r\n\r\n", max(0, len(held) - 3), limit + 4)
        if end < 0:
            self._wait_for_head(data, begins=not held)
            return
        self._held = b""
        self._started = self._clock()
        try:
            head = self._config.requests.read(data[:end])
        except Refusal as refusal:
            self._turn_away(refusal.code)
            return
        if self._peer is None:
            self._peer = self._surroundings.peer() if self._config.gate.wants_uid else (True, None)
        code = self._config.gate.check(head, self._peer[0])
        if code is None and head.length > self._config.limits.request_bytes:
            code = "body_too_large"
        if code is not None:
            self._turn_away(code, head)
            return
        self._begin(head, data[end + 4 :])

    def _wait_for_head(self, data: bytes, *, begins: bool) -> None:
        if len(data) > self._config.limits.header_bytes:
            self._turn_away("head_too_large")
        elif data.count(b"\n") != data.count(b"\r\n") or data.startswith((b"\r\n", b" ", b"\t")):
            self._turn_away("bad_header")  # it can never become right
        else:
            self._held = data
            if begins:
                self.deadline = self._clock() + HEAD_SECONDS

    def _begin(self, head: RequestHead, data: bytes) -> None:
        """Take a request that passed the gate; `data` is what the client sent after its head."""
        self._head = head
        self.deadline = self._started + self._config.limits.idle_seconds
        if (code := self._config.refusal()) is not None:
            self._close_after = True
            self._fail(code)
            return
        if head.length == 0:
            self._phase = _SENT
            self._held = data
            data = b""
        else:
            self._phase = _BODY
            self._body = request_body(head.length)
            if head.expect:
                self._client.write(_CONTINUE)
        upstream = self._surroundings.connect(fresh=False)
        if upstream is None:
            self._dialing = True
            if data:
                self._read_body(data)
            if self._phase == _BODY:
                self._pause(_DIALING)
            return
        self._attach(upstream, data)

    def _attach(self, upstream: UpstreamEnd, data: bytes) -> None:
        """Send the head upstream, in one write with what of the body has come."""
        self._upstream = upstream
        if self._client_full:
            upstream.pause_reading()
        assert self._head is not None
        attachment = self._config.attachment
        attached = attachment.attached if upstream.trusted else attachment.always
        self._outbox = [self._head.line, b"\r\n", attached, self._head.fields, *self._outbox]
        if data:
            self._read_body(data)
        # A malformed body may have ended the request in between.
        if self._upstream is upstream:
            data = b"".join(self._outbox)
            self._outbox = []
            upstream.write(data)

    def _read_body(self, data: bytes) -> None:
        """Take bytes of the request's body and pass them on, or keep them until there is an upstream."""
        body = self._body
        assert body is not None
        try:
            data, rest = body.feed(data)
            if body.count > self._config.limits.request_bytes:
                raise Refusal("body_too_large")
        except Refusal as refusal:
            self._fail(refusal.code)
            return
        if rest is not None:
            self._phase = _SENT
            self._held = rest
        if self._outbox or self._upstream is None:
            self._outbox.append(data)
        elif data:
            self._upstream.write(data)

    # --- from the upstream ---------------------------------------------------------------------------------------

    def upstream_ready(self, upstream: UpstreamEnd) -> None:
        """Take the connection that `connect` promised."""
        self._dialing = False
        self._attach(upstream, b"")
        self._resume(_DIALING)

    def upstream_failed(self, code: str) -> None:
        """Take note that `connect` came to nothing, for a `code` of `answers.ANSWERS`."""
        self._dialing = False
        self._fail(code)

    def upstream_full(self, full: bool) -> None:
        """Take note that the upstream reads slower than the client sends, or no longer so."""
        if full:
            self._pause(_UPSTREAM_FULL)
        else:
            self._resume(_UPSTREAM_FULL)

    def upstream_data(self, data: bytes) -> None:
        """Take bytes of the upstream."""
        if self._response is None:
            self._read_response_head(data)
        else:
            self._relay_response(b"", data)
        if self._head is not None:
            self.deadline = self._clock() + self._config.limits.idle_seconds

    def upstream_closed(self, *, clean: bool) -> None:
        """Take the end of the upstream's stream; `clean` where TLS or TCP ended it in order."""
        upstream, self._upstream = self._upstream, None
        assert upstream is not None
        upstream.close()
        response = self._response
        if response is None:
            self._retry_or_fail(upstream)
        elif response.length == UNTIL_CLOSE and clean:
            self._client.write(LAST_CHUNK)
            self._finish()
        else:
            self._break_off("upstream_closed")

    def _retry_or_fail(self, upstream: UpstreamEnd) -> None:
        """Ask again on a fresh connection where an idle one had been closed and repeating is harmless; else fail."""
        head = self._head
        assert head is not None
        if not (upstream.reused and not self._interim and head.method in _REPEATABLE and head.length == 0):
            self._fail("upstream_closed")
            return
        self._outbox = []
        fresh = self._surroundings.connect(fresh=True)
        if fresh is None:
            self._dialing = True
        else:
            self._attach(fresh, b"")

    def _read_response_head(self, data: bytes) -> None:
        head = self._head
        assert head is not None
        response: ResponseHead | None = None
        while (
            response is None or response.status < 200
        ):  # 100 was answered by us, 103 is advice: neither is the client's
            if self._interim:
                data = self._interim + data
            end = data.find(b"\r\n\r\n", 0, self._config.limits.header_bytes + 4)
            if end < 0 and len(data) <= self._config.limits.header_bytes:
                self._interim = data
                return
            try:
                if end < 0:
                    raise Refusal("bad_response")
                response = self._config.responses.read(data[:end], head.method)
                if response.status // 100 != 2 and (code := self._objection(response.status)) is not None:
                    raise Refusal(code)
            except Refusal as refusal:
                self._fail(
                    refusal.code, self._config.attachment.description if refusal.code.startswith("credential") else ""
                )
                return
            self._interim = b""
            data = data[end + 4 :]
        self._begin_response(head, response, data)

    def _begin_response(self, head: RequestHead, response: ResponseHead, data: bytes) -> None:
        self._response = response
        self._response_body = response_body(response.length)
        if head.close or self._phase == _BODY:
            self._close_after = True
        ending = b"Connection: close\r\n\r\n" if self._close_after else b"\r\n"
        self._relay_response(b"".join((response.line, b"\r\n", response.fields, ending)), data)

    def _objection(self, status: int) -> str | None:
        """Return why a response of `status` is not the client's to see, or None."""
        if status == 101:
            return "bad_response"  # nobody asked for an upgrade
        if status in _REDIRECTS:
            return "redirect_refused"
        if status in (401, 403) and self._config.attachment.description:
            assert self._upstream is not None
            return "credential_refused" if self._upstream.trusted else "credential_withheld"
        return None

    def _relay_response(self, head: bytes, data: bytes) -> None:
        """Pass on `data`, bytes of the response's body as they came, after `head`."""
        body = self._response_body
        assert body is not None
        try:
            data, rest = body.feed(data)
        except Refusal:
            self._break_off("bad_response")
            return
        if head or data:
            self._client.write(head + data)
        if rest is not None:
            self._finish(surplus=bool(rest))

    # --- ends ----------------------------------------------------------------------------------------------------

    def _finish(self, *, surplus: bool = False) -> None:
        """Let the upstream go after a complete response, and turn to the client's next request."""
        response = self._response
        upstream = self._upstream
        assert response is not None
        complete = self._phase == _SENT
        if upstream is not None:
            if complete and response.reusable and not surplus:
                if self._client_full:
                    upstream.resume_reading()
                upstream.release(response.idle_seconds)
            else:
                upstream.close()
        self._report(None)
        self._next(linger=not complete)

    def _fail(self, code: str, detail: str = "") -> None:
        """Answer the current request with `code`, or break off where a response has begun."""
        if self._response is not None:
            self._break_off(code)
            return
        head = self._head
        assert head is not None
        self._drop_upstream()
        complete = self._phase == _SENT
        self._close_after = self._close_after or head.close or not complete
        self._report(code)
        server = self._config.server
        self._client.write(render(code, server, detail=detail, close=self._close_after, body=head.method != "HEAD"))
        self._next(linger=not complete)

    def _next(self, *, linger: bool) -> None:
        """Turn to the client's next request, or close; with `linger` where this one has not arrived completely."""
        self._forget_request()
        if self._close_after:
            self._close(linger=linger)
            return
        self._phase = _IDLE
        self.deadline = self._clock() + self._config.limits.idle_seconds
        if self._paused:
            self._resume(_ANY_REASON)
        if self._held:
            data, self._held = self._held, b""
            self._read_head(data)

    def _break_off(self, code: str) -> None:
        """End a response that has begun, so that the client cannot take it for complete."""
        self._report(code)
        self._drop_upstream()
        self._end(abort=True)

    def _turn_away(self, code: str, head: RequestHead | None = None) -> None:
        """Refuse a request before anything upstream is contacted, and serve this connection no more."""
        self._surroundings.emit(Refused(reason=code, peer_user_id=self._peer[1] if self._peer else None))
        bodiless = head is not None and head.method == "HEAD"
        self._client.write(render(code, self._config.server, close=True, body=not bodiless))
        self._close(linger=True)

    def _close(self, *, linger: bool) -> None:
        """Close after what was written; with `linger` the client may still send, lest a reset overtake the answer."""
        if not linger:
            self._end()
            return
        self._held = b""
        self._phase = _LINGER
        self.deadline = self._clock() + LINGER_SECONDS
        self._resume(_ANY_REASON)
        self._client.write_eof()

    def _end(self, *, abort: bool = False) -> None:
        if self._phase == _CLOSED:
            return
        self._phase = _CLOSED
        self.deadline = math.inf
        self._forget_request()
        self._held = b""
        if abort:
            self._client.abort()
        else:
            self._client.close()

    def tick(self, now: float) -> None:
        """Act on a deadline that has passed."""
        if now < self.deadline:
            return
        if self._phase in (_BODY, _SENT):
            self._fail("request_timeout" if self._phase == _BODY and not self._dialing else "upstream_timeout")
        elif self._phase == _IDLE and self._held:
            self._turn_away("request_timeout")
        else:
            self._end()

    def drain(self) -> None:
        """Serve what is in flight, and then no more."""
        self._close_after = True
        if self._phase == _IDLE and not self._held:
            self._end()

    @property
    def busy(self) -> bool:
        """Whether a request is in flight."""
        return self._head is not None

    def _report(self, code: str | None) -> None:
        head = self._head
        assert head is not None
        if self._response is not None:
            status = self._response.status
        else:
            status = ANSWERS[code].status if code in ANSWERS else CLIENT_CLOSED
        self._surroundings.emit(
            Request(
                method=head.method,
                status=status,
                error_type=code,
                request_bytes=self._body.count if self._body is not None else 0,
                response_bytes=self._response_body.count if self._response_body is not None else 0,
                duration_ms=round((self._clock() - self._started) * 1000),
            )
        )

    def _drop_upstream(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None
        elif self._dialing:
            self._surroundings.cancel_connect()
            self._dialing = False

    def _pause(self, reason: int) -> None:
        if not self._paused:
            self._client.pause_reading()
        self._paused |= reason

    def _resume(self, reasons: int) -> None:
        if self._paused and not self._paused & ~reasons:
            self._client.resume_reading()
        self._paused &= ~reasons
