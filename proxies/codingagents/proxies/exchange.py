"""CORE: one request on its way: what goes upstream for it, what comes back, and how that ends. Sans-I/O, like `relay`.

A `Relay` reads requests and makes an `Exchange` of each; the exchange has the upstream connection while it lasts.
Bodies and event streams pass as they come, with back-pressure and without a total time limit. A response that the
upstream did not finish is never ended cleanly towards the client. A request that may have been carried out is never
repeated: only safe methods are asked again, and only redirects of the upstream to itself followed. Decides nothing
about callers (`gate`), addresses or trust (`upstream`).
"""

from __future__ import annotations

import math
from typing import Final

from codingagents.proxies import rpc
from codingagents.proxies.errors import Refusal
from codingagents.proxies.framing import CHUNKED, Body, ChunkedReader, response_body
from codingagents.proxies.heads import RequestHead, ResponseHead
from codingagents.proxies.rpc_messages import Id
from codingagents.proxies.sse import EventBody, farewell
from codingagents.proxies.surroundings import ClientEnd, RelayConfig, Surroundings, UpstreamEnd
from codingagents.proxies.targets import climbs
from codingagents.trust.answers import ANSWERS, render
from codingagents.trust.facts import Request

CLIENT_CLOSED: Final = 499  # the status in facts where the client went away before there was one
MAX_KEPT: Final = 64 * 1024  # bytes of a request's body that are kept for a redirect, and for the id of an error
MAX_PIECES: Final = 16
MAX_HOPS: Final = 3  # redirects of one request
_REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS"})  # safe methods, RFC 9110 9.2.1
_REDIRECTS: Final = frozenset({300, 301, 302, 303, 305, 306, 307, 308})  # 304 answers a condition and leads nowhere
_SAME_METHOD: Final = frozenset({307, 308})
_FAREWELL: Final = farewell(b"the helper is being stopped")

# Why the client is not read from; it is read again when none is left.
DIALING: Final = 1
UPSTREAM_FULL: Final = 2


class ClientSide:
    """What an exchange needs of the connection that its request came on.

    A base class and no `Protocol`: compiled, its attributes are then reached without a look-up by name (ADR 22).
    """

    __slots__ = (
        "client", "client_is_full", "close_after", "config", "deadline", "draining", "now", "patience", "surroundings",
    )  # fmt: skip

    def __init__(self, config: RelayConfig, client: ClientEnd, surroundings: Surroundings, now: float) -> None:
        """Begin at the time `now`."""
        self.config = config
        self.client = client
        self.surroundings = surroundings
        self.client_is_full = False  # the client reads slower than the upstream sends
        self.close_after = False  # the connection ends with this exchange
        self.draining = False
        self.now = now  # the time of what happens now, on the clock of deadlines
        self.patience = config.limits.idle_seconds  # seconds that the upstream may be silent
        self.deadline = now + self.patience

    def next(self, *, linger: bool) -> None:
        """Turn to what follows; with `linger` the request has not arrived completely."""
        raise NotImplementedError

    def abort(self) -> None:
        """End the connection so that the client cannot take what it got for complete."""
        raise NotImplementedError

    def pause(self, reason: int) -> None:
        """Read no more from the client until `resume`."""
        raise NotImplementedError

    def resume(self, reasons: int) -> None:
        """Forget `reasons` not to read."""
        raise NotImplementedError


class Exchange:
    """See the module."""

    __slots__ = (
        "_began", "_config", "_dialing", "_head", "_hops", "_interim", "_kept", "_names", "_response",
        "_response_began", "_response_body", "_side", "_upstream", "body", "complete",
    )  # fmt: skip

    def __init__(self, side: ClientSide, head: RequestHead, body: bytes | None = None) -> None:
        """Begin with a request that passed the gate, and with its `body` where that is here and whole."""
        self._side = side
        self._config = side.config
        self._head = head
        self._began = side.now
        self.body: Body | None = None  # of the request; None where it came whole, or is empty
        self.complete = body is not None  # the request has arrived
        # The request's body, as it goes; None where that is too much, or past use.
        self._kept: list[bytes] | None = [body] if body else []
        self._upstream: UpstreamEnd | None = None
        self._dialing = False
        self._hops = 0
        self._interim = b""  # a response head that is not complete
        self._response: ResponseHead | None = None
        self._response_body: Body | None = None  # None where it came whole
        self._response_began = 0.0
        self._names: tuple[str | None, str | None] = (None, None)

    # --- towards the upstream ------------------------------------------------------------------------------------

    def connect(self, *, fresh: bool = False) -> None:
        """Ask for a connection, and send what there is of the request once it is there."""
        upstream = self._side.surroundings.connect(fresh=fresh)
        if upstream is not None:
            self._attach(upstream)
            return
        self._dialing = True
        if not self.complete:
            self._side.pause(DIALING)

    def connected(self, upstream: UpstreamEnd) -> None:
        """Take the connection that was asked for."""
        self._dialing = False
        self._attach(upstream)
        self._side.resume(DIALING)

    def not_connected(self, code: str) -> None:
        """Take note that there is none, for a `code` of `answers.ANSWERS`."""
        self._dialing = False
        self.fail(code)

    def _attach(self, upstream: UpstreamEnd) -> None:
        """Send the head, in one write with what of the body has come."""
        self._upstream = upstream
        if self._side.client_is_full:
            upstream.pause_reading()
        head = self._head
        kept = self._kept
        assert kept is not None
        attachment = self._config.attachment
        attached = attachment.attached if upstream.trusted else attachment.always
        body = b"".join(kept)
        upstream.write(b"\r\n".join([head.line, attached, *head.lines, b"", body]))
        if len(body) > MAX_KEPT:
            self._kept = None

    def send(self, data: bytes) -> None:
        """Pass on a piece of the request's body, or keep it until there is an upstream."""
        kept = self._kept
        if kept is not None:
            kept.append(data)
        if self._upstream is None:
            return
        self._upstream.write(data)
        # Not what is too large, nor so scattered that looking at its size again and again would cost more.
        if kept is not None and (len(kept) > MAX_PIECES or sum(map(len, kept)) > MAX_KEPT):
            self._kept = None

    def client_full(self, full: bool) -> None:
        """Take note that the client reads slower than the upstream sends, or no longer so."""
        if self._upstream is not None:
            if full:
                self._upstream.pause_reading()
            else:
                self._upstream.resume_reading()

    # --- from the upstream ---------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take bytes of the upstream."""
        if self._response is not None:
            self._pass_on(data)
            return
        if self._interim:
            data = self._interim + data
        limit = self._config.limits.header_bytes
        try:
            while (end := data.find(b"\r\n\r\n", 0, limit + 4)) >= 0:
                response = self._config.responses.read(data[:end], self._head.form.method)
                data = data[end + 4 :]
                if response.form.status // 100 == 2 or self._is_the_clients(response, data):
                    self._begin_response(response, data)
                    return
                if response.form.status >= 200:
                    return  # it was a redirect, and is followed
            if len(data) > limit:
                raise Refusal("bad_response")
        except Refusal as refusal:
            self.fail(
                refusal.code, self._config.attachment.description if refusal.code.startswith("credential") else ""
            )
            return
        self._interim = data

    def _is_the_clients(self, response: ResponseHead, data: bytes) -> bool:
        """Say whether the client is to see a response that is no success; raises `Refusal` where it must not."""
        status = response.form.status
        if status < 200:  # 100 was answered by us, 103 is advice
            if status == 101:
                raise Refusal("bad_response")  # nobody asked for an upgrade
            return False
        if status in _REDIRECTS:
            self._follow(response, data)
            return False
        if status in (401, 403) and self._config.attachment.description:
            assert self._upstream is not None
            raise Refusal("credential_refused" if self._upstream.trusted else "credential_withheld")
        return True

    def _follow(self, response: ResponseHead, data: bytes) -> None:
        """Ask again where the upstream redirects to itself, on the route; raises `Refusal` where it does not.

        What a server answers can be the agent's doing: off the route, an open redirect would lead the credential to any
        path of the origin, one that shows the headers it was sent among them.
        """
        target = None
        location = response.form.location
        if response.form.status in _SAME_METHOD and location is not None and not climbs(location.split(b"?", 1)[0]):
            target = self._config.origin.resolve(self._head.target, location)
        if target is None or self._config.judge(target) or self._hops == MAX_HOPS or self._kept is None:
            raise Refusal("redirect_refused")
        self._hops += 1
        self._let_go(response, surplus=len(data) != response.length)
        self._head = self._head.to(target)
        self._interim = b""
        self._side.resume(UPSTREAM_FULL)
        self.connect()

    def _begin_response(self, response: ResponseHead, data: bytes) -> None:
        """Pass the head on, in one write with what of the body has come; raises `Refusal` before anything is."""
        side = self._side
        rest: bytes | None = b""
        if response.form.event_stream or len(data) != response.length:  # not whole, as most are
            body = self._body_of(response)
            data, rest = body.feed(data)
            self._response_body = body
        self._response = response
        self._response_began = side.now
        if self._head.form.close or not self.complete:
            side.close_after = True
        ending = b"Connection: close\r\n" if side.close_after else b""
        side.client.write(b"\r\n".join([response.line, *response.lines, ending, data]))
        self._after(rest)

    def _body_of(self, response: ResponseHead) -> Body:
        """Return what the response's body passes through; an event stream may be silent for as long as it likes."""
        if not response.form.event_stream or response.length == 0:
            return response_body(response.length)
        self._side.patience = self._side.deadline = math.inf
        if (endpoints := self._config.endpoints) is not None:
            if response.form.encoded:
                raise Refusal("endpoint_refused")  # an endpoint that cannot be read would pass as it is
            return EventBody(response.length, endpoints.rewriter(self._head.target))
        return response_body(response.length) if response.length > 0 else EventBody(response.length, None)

    def _pass_on(self, data: bytes) -> None:
        """Pass on more of the response's body."""
        body = self._response_body
        assert body is not None
        try:
            data, rest = body.feed(data)
        except Refusal as refusal:
            self._break_off(refusal.code)
            return
        if data:
            self._side.client.write(data)
        self._after(rest)

    def _after(self, rest: bytes | None) -> None:
        """Go on after a piece of the response: `rest` as in `Body.feed`."""
        if rest is not None:
            assert self._response is not None
            self._let_go(self._response, surplus=bool(rest))
            self._report(None)
            self._side.next(linger=not self.complete)
        elif self._side.draining:
            self.drain()
        elif self._kept is not None:
            self._names = self._name()
            self._kept = None

    def upstream_closed(self, *, clean: bool) -> None:
        """Take the end of the upstream's stream; `clean` where TLS or TCP ended it in order."""
        upstream = self._upstream
        assert upstream is not None
        self._drop_upstream()
        body = self._response_body
        if self._response is None:
            if (
                upstream.reused
                and not self._interim
                and self._head.form.method in _REPEATABLE
                and self._head.length == 0
            ):
                self.connect(fresh=True)  # an idle connection had been closed, and repeating is harmless
            else:
                self.fail("upstream_closed")
        elif body is not None and clean and (ending := body.end()) is not None:
            self._side.client.write(ending)
            self._after(b"")
        else:
            self._break_off("upstream_closed")

    # --- ends ----------------------------------------------------------------------------------------------------

    def fail(self, code: str, detail: str = "") -> None:
        """Answer the request with `code`, or break off where a response has begun."""
        if self._response is not None:
            self._break_off(code)
            return
        side = self._side
        self._drop_upstream()
        side.close_after = side.close_after or self._head.form.close or not self.complete
        self._report(code)
        side.client.write(
            render(
                code, self._config.server, method=self._head.form.method, request_id=self._request_id(), detail=detail,
                close=side.close_after,
            )
        )  # fmt: skip
        side.next(linger=not self.complete)

    def cancel(self) -> None:
        """Take note that the client has gone away: what it asked for is cancelled at once."""
        self._report("client_closed")
        self._drop_upstream()

    def drain(self) -> None:
        """End an event stream that would not end by itself, where it stands between two events."""
        body = self._response_body
        if self._head.form.method == "GET" and isinstance(body, EventBody) and body.between_events:
            self._side.client.write(_FAREWELL)
            self._drop_upstream()
            self._report("drained")
            self._side.next(linger=not self.complete)

    @property
    def late(self) -> str:
        """The code for a deadline that passes now."""
        if self._response is not None and self._side.client_is_full:
            return "client_stalled"  # nothing was read from the upstream meanwhile: its silence is no fault of its own
        return "upstream_timeout" if self.complete or self._dialing else "request_timeout"

    def _break_off(self, code: str) -> None:
        """End a response that has begun, so that the client cannot take it for complete."""
        self._report(code)
        self._drop_upstream()
        self._side.abort()

    def _let_go(self, response: ResponseHead, *, surplus: bool) -> None:
        """Let the upstream go after a complete response."""
        upstream, self._upstream = self._upstream, None
        if upstream is None:
            return
        if self.complete and response.form.reusable and not surplus:
            if self._side.client_is_full:
                upstream.resume_reading()
            upstream.release(response.form.idle_seconds)
        else:
            upstream.close()

    def _drop_upstream(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None
        elif self._dialing:
            self._side.surroundings.cancel_connect()
            self._dialing = False

    # --- the record ----------------------------------------------------------------------------------------------

    def _report(self, code: str | None) -> None:
        head, response = self._head, self._response
        duration = round((self._side.now - self._began) * 1000)
        start: int | None = None
        received = 0
        if response is None:
            status = ANSWERS[code].status if code in ANSWERS else CLIENT_CLOSED
        elif self._response_body is None:  # it came whole
            status, start, received = response.form.status, duration, response.length
        else:
            status, received = response.form.status, self._response_body.count
            start = round((self._response_began - self._began) * 1000)
        method, name = self._names if self._kept is None else self._name()
        self._side.surroundings.emit(
            Request(
                method=head.form.method,
                status=status,
                error_type=code,
                request_bytes=head.length if self.body is None else self.body.count,
                response_bytes=received,
                duration_ms=duration,
                response_start_ms=start,
                mcp_method=method,
                mcp_name=name,
            )
        )

    def _name(self) -> tuple[str | None, str | None]:
        """Return MCP method and target, where the body came in one piece; it was sent long ago."""
        head, kept = self._head, self._kept
        if head.form.method != "POST" or not self.complete or head.length <= 0 or not kept or len(kept) > 1:
            return None, None
        return rpc.names(kept[0], head.mcp_method, head.mcp_name)

    def _request_id(self) -> Id:
        """Return the id of the request, where its body is one that we have whole."""
        if self._head.form.method != "POST" or not self.complete or not self._kept:
            return None
        body = b"".join(self._kept)
        return rpc.request_id(ChunkedReader(request=True).feed(body)[0] if self._head.length == CHUNKED else body)
