"""CORE: what all relays of one helper share, assembled from its specification.

The clock and what is to happen when pins expire are arguments. Opens nothing and dials nothing: `server` and
`upstream` do, for the same specification.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable

from codingagents.proxies.credentials import Attachment
from codingagents.proxies.gate import Gate, Route
from codingagents.proxies.heads import RequestHeads, ResponseHeads
from codingagents.proxies.sse import Endpoints
from codingagents.proxies.surroundings import RelayConfig
from codingagents.proxies.targets import origin_of
from codingagents.rewrite.specs import HeaderTemplate, HelperSpec
from codingagents.trust.pins import Pinning

# An event stream that is compressed cannot be rewritten.
_UNENCODED = HeaderTemplate(name="Accept-Encoding", template="identity")


def relay_config(spec: HelperSpec, refusal: Callable[[], str | None] = lambda: None) -> RelayConfig:
    """Return what relays need to serve `spec`; raises `ConfigError` where a secret is unfit.

    `refusal` is asked for every request, as `PinsDate.refusal`.
    """
    remote = spec.remote
    legacy = remote.transport == "sse"
    route = Route(remote.path, legacy=legacy)
    headers = [*remote.headers, _UNENCODED] if legacy else remote.headers
    requests = RequestHeads(frozenset(header.name.lower().encode("ascii") for header in headers), route.judge)
    origin = origin_of(remote)

    def learn(path: bytes) -> None:
        if route.learn(path):
            requests.judge_again()

    return RelayConfig(
        server=remote.name,
        gate=Gate(spec.listen_port, spec.bearer, remote.client_auth, remote.listen),
        requests=requests,
        responses=ResponseHeads(rewrites_events=legacy),
        limits=remote.limits,
        attachment=Attachment(origin.authority, headers, spec.secrets),
        origin=origin,
        judge=route.judge,
        endpoints=Endpoints(origin, learn) if legacy else None,
        refusal=refusal,
    )


class PinsDate:
    """Until when requests may go by the pins that hold now; asked for each of them."""

    __slots__ = ("_end", "_passed", "_wall_clock")

    def __init__(self, wall_clock: Callable[[], float], passed: Callable[[], None]) -> None:
        """Have no date yet; `passed` is called for each request that comes past it, before it is refused.

        `wall_clock` returns seconds since 1970.
        """
        self._wall_clock = wall_clock
        self._passed = passed
        self._end = math.inf

    def renew(self, rules: Pinning) -> None:
        """Go by `rules`, to the end of their last day, UTC."""
        self._end = math.inf
        if rules.inspects and rules.expires is not None:
            self._end = datetime.datetime.combine(rules.expires, datetime.time.max, datetime.UTC).timestamp()

    @property
    def over(self) -> bool:
        """Whether the date has passed."""
        return self._wall_clock() > self._end

    def refusal(self) -> str | None:
        """Return the code of `answers.ANSWERS` for a request that comes now, or None where it may go on."""
        if self._wall_clock() <= self._end:
            return None
        self._passed()
        return "pins_expired"
