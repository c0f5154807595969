"""CORE: what all relays of one helper share, assembled from its specification.

The clock and what is to happen when pins expire are arguments. Opens nothing and dials nothing: `server` and
`upstream` do, for the same specification.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable

from codingagents.proxies.credentials import Attachment
from codingagents.proxies.gate import Gate, Route
from codingagents.proxies.heads import RequestHeads, ResponseHeads
from codingagents.proxies.sse import Endpoints
from codingagents.proxies.surroundings import RelayConfig
from codingagents.proxies.targets import origin_of
from codingagents.rewrite.pin_rules import rules_of
from codingagents.rewrite.specs import HeaderTemplate, HelperSpec, TlsSpec

# An event stream that is compressed cannot be rewritten.
_UNENCODED = HeaderTemplate(name="Accept-Encoding", template="identity")


def relay_config(
    spec: HelperSpec, wall_clock: Callable[[], float], pins_expired: Callable[[], None] = lambda: None
) -> RelayConfig:
    """Return what relays need to serve `spec`; raises `ConfigError` where a secret or a pin is unfit.

    `wall_clock` returns seconds since the epoch; `pins_expired` is called for each request that comes past the pins'
    date, before it is refused.
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
        refusal=_refusal(remote.tls, wall_clock, pins_expired),
    )


def _refusal(
    tls: TlsSpec | None, wall_clock: Callable[[], float], pins_expired: Callable[[], None]
) -> Callable[[], str | None]:
    """Return what every request asks: a code where the pins are past their date."""
    rules = None if tls is None else rules_of(tls)
    if rules is None or rules.expires is None or not rules.inspects:
        return lambda: None
    end = datetime.datetime.combine(rules.expires, datetime.time.max, datetime.UTC).timestamp()

    def expired() -> str | None:
        if wall_clock() <= end:
            return None
        pins_expired()
        return "pins_expired"

    return expired
