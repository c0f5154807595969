"""CORE: when pins, added CAs and the server's certificate end, and when somebody must hear of it.

Once each when 30, 7 and 1 days are left, and once more past the end; whoever starts in between hears of the nearest
only. No clock: the time is an argument, always in UTC. Refuses nothing: that is the helper's, at each connection.
"""

from __future__ import annotations

import binascii
import datetime
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from codingagents.rewrite.specs import TlsSpec
from codingagents.trust import der
from codingagents.trust.errors import TrustError, WireError
from codingagents.trust.events import TrustExpiring
from codingagents.trust.facts import UpstreamTrusted

WARN_DAYS: Final = (30, 7, 1, -1)  # -1: past
_DAY: Final = datetime.timedelta(days=1)
_INSTANT: Final = datetime.timedelta(microseconds=1)
_MOST_REMEMBERED: Final = 100
_FIRST_YEAR: Final = 1950  # RFC 5280 section 4.1.2.5.1
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END CERTIFICATE-----", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One thing that ends. `moment` is the last at which it holds, `text` how it is written."""

    server: str
    what: Literal["pins", "leaf", "anchor"]
    name: str  # as `TrustExpiring.name`
    moment: datetime.datetime
    text: str

    def days_left(self, now: datetime.datetime) -> int:
        """Return whole days, rounded down: 0 on the last day, negative once it is past."""
        return (self.moment - now) // _DAY


Told = Mapping[End, int]  # the number of `WARN_DAYS` that was told last


def end_of_pins(server: str, expires: str) -> End:
    """Return when pins end whose date is `expires` (ISO): with that day."""
    last = datetime.datetime.combine(datetime.date.fromisoformat(expires), datetime.time(), datetime.UTC)
    return End(server=server, what="pins", name="", moment=last + _DAY - _INSTANT, text=expires)


def end_of_leaf(server: str, seen: UpstreamTrusted) -> End:
    """Return when the server's certificate ends, as a helper saw it; `WireError` where it cannot have."""
    if not _SHA256.fullmatch(seen.leaf_sha256):
        raise WireError("a certificate's SHA-256 is 64 hexadecimal digits")
    return _end(server, "leaf", seen.leaf_sha256, seen.leaf_not_after)


def ends_of_trust(server: str, tls: TlsSpec) -> list[End]:
    """Return when pins and added CAs end; what cannot be read as a certificate has no end to tell."""
    found = []
    if tls.pin_mode != "off" and tls.pins_expire is not None:
        found.append(end_of_pins(server, tls.pins_expire))
    wanted = {digest for override in tls.overrides for digest in override.anchors}
    if wanted:
        found += _ends_of_anchors(server, wanted, tls.anchors_pem)
    return found


def due(ends: Collection[End], told: Told, now: datetime.datetime) -> tuple[list[TrustExpiring], Told]:
    """Return what must be told now, and what was told then.

    What is not in `ends` any more is remembered, for it may come back: a server may show now one certificate and now
    another. Only so many, for a helper that is taken over can make them up.
    """
    events = []
    after = dict(told)
    for end in ends:
        days = end.days_left(now)
        level = min((warn for warn in WARN_DAYS if days <= warn), default=None)
        if level is None or level >= told.get(end, WARN_DAYS[0] + 1):
            continue
        after[end] = level
        events.append(TrustExpiring(server=end.server, what=end.what, name=end.name, expires=end.text, days_left=days))
    gone = [end for end in after if end not in ends]
    for end in gone[: max(len(gone) - _MOST_REMEMBERED, 0)]:
        del after[end]
    return events, after


def next_look(ends: Iterable[End], now: datetime.datetime) -> datetime.timedelta:
    """Return how long nothing new can be due: up to the next crossing, at most a day."""
    crossings = (end.moment - (warn + 1) * _DAY + _INSTANT for end in ends for warn in WARN_DAYS)
    return min((_DAY, *(moment - now for moment in crossings if moment > now)))


def _ends_of_anchors(server: str, wanted: Collection[str], pem: str) -> list[End]:
    found = []
    for block in _PEM.findall(pem):
        try:
            certificate = binascii.a2b_base64(block)
            digest = der.certificate_sha256(certificate)
            if digest in wanted:
                found.append(_end(server, "anchor", digest, der.not_after(certificate)))
        except (binascii.Error, TrustError, WireError):
            continue
    return found


def _end(server: str, what: Literal["leaf", "anchor"], name: str, text: str) -> End:
    """`text` is RFC 3339, UTC; `WireError` where it is not."""
    try:
        moment = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)
    except ValueError:
        moment = datetime.datetime.min.replace(tzinfo=datetime.UTC)
    if moment.year < _FIRST_YEAR:
        raise WireError("the end of a certificate is no time in UTC")
    return End(server=server, what=what, name=name, moment=moment, text=text)
