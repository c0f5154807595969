"""CORE: what `helper list` says of each helper, as the operator socket answers it. No I/O; asks nobody.

The shapes are public: fields are added, and never renamed, while `schema` stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from codingagents.trust import facts
from codingagents.trust.wire import Message

SCHEMA: Final = "coding-agents/helpers/v1"


class Memory(Message, frozen=True, kw_only=True):
    """Bytes of one process as the kernel counts them (proc(5), smaps_rollup), and when (RFC 3339, UTC).

    `uss` is what only this process has, `pss` its share of what is shared. Both are None where we may not look (that
    needs CAP_SYS_PTRACE).
    """

    uss_bytes: int | None
    pss_bytes: int | None
    rss_bytes: int
    taken_at: str


class TrustRow(Message, frozen=True, kw_only=True):
    """How one server is trusted. Days are whole ones that are left, negative once it is past.

    What the newest connection showed is as its helper said, and None before there was one.
    """

    pin_mode: str  # enforce, report or off
    pins_expire: str | None
    pins_days_left: int | None
    credential: str  # as `events.CredentialRule`, by the configuration
    store: str  # host, certifi, custom or pinned-only
    store_sha256: str
    overrides: list[str]  # names of CAs that `trust add` put in
    overrides_pins: list[str]  # of these, those below which no pin is asked for
    anchored_by: str | None  # as `events.UpstreamTrusted`
    leaf_sha256: str | None
    leaf_not_after: str | None
    leaf_days_left: int | None


class HelperRow(Message, frozen=True, kw_only=True):
    """One server. Counts are of the session; connections are open now. `pid` is None while there is no process."""

    server: str
    state: str  # as `lifecycle.State`
    uid: int
    pid: int | None
    listen: str  # as `slots.Slot.origin`
    uptime_seconds: float | None  # of the process
    restarts: int
    requests: int
    errors: int
    refused: int
    connections: int
    upstream_connections: int
    upstream: Literal["ok", "failing"]
    degraded: list[str]  # why, where it is
    memory: Memory | None = None
    trust: TrustRow | None = None  # None where the server is reached without TLS


class HelperList(Message, frozen=True, kw_only=True):
    """The answer to `GET /helpers`."""

    schema: Literal["coding-agents/helpers/v1"] = SCHEMA
    session: str
    taken_at: str
    helpers: list[HelperRow]


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the processes of one server."""

    requests: int = 0
    errors: int = 0
    refused: int = 0

    def plus(self, counts: facts.Pong | None) -> Totals:
        """Add what one process has said of itself."""
        if counts is None:
            return self
        return Totals(self.requests + counts.requests, self.errors + counts.errors, self.refused + counts.refused)
