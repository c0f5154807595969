"""CORE: facts that a helper sends up its own descriptor. The supervisor stamps server, UID and time from the channel.

A helper cannot write the event chain and cannot speak for another server: nothing here names one.
"""

from __future__ import annotations

from codingagents.trust.wire import Message


class Fact(Message, frozen=True, kw_only=True, tag_field="fact"):
    """Base of all facts."""


class Ready(Fact, frozen=True, kw_only=True, tag="ready"):
    """The helper serves; `open_fds` is its own listing of /proc/self/fd targets, for the record."""

    open_fds: list[str]


class Refused(Fact, frozen=True, kw_only=True, tag="refused"):
    """The local gate refused a caller."""

    reason: str
    peer_user_id: int | None


class Request(Fact, frozen=True, kw_only=True, tag="request"):
    """One relayed or failed request."""

    method: str
    status: int
    error_type: str | None
    request_bytes: int
    response_bytes: int
    duration_ms: int


class PinMismatch(Fact, frozen=True, kw_only=True, tag="pin-mismatch"):
    """No pin was in the verified path."""

    address: str
    expected: list[str]
    seen: list[str]


class UpstreamFailed(Fact, frozen=True, kw_only=True, tag="upstream-failed"):
    """The upstream could not be reached or trusted, for another reason than pins."""

    error_type: str
    detail: str


class Dropped(Fact, frozen=True, kw_only=True, tag="dropped"):
    """The channel was full; so many facts were not sent."""

    count: int


class Failed(Fact, frozen=True, kw_only=True, tag="failed"):
    """The helper is about to end by itself, and why: one sentence for the record, and never a secret."""

    reason: str


AnyFact = Ready | Refused | Request | PinMismatch | UpstreamFailed | Dropped | Failed
