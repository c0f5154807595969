"""CORE: facts that a helper sends up its own descriptor. The supervisor stamps server, UID and time from the channel.

A helper cannot write the event chain and cannot speak for another server: nothing here names one. Its numbers are ones
that every reader of the log can hold, whatever it sends.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from codingagents.trust.events import CredentialRule, Layer
from codingagents.trust.wire import Message

# A number of something. RFC 8785 knows no greater one, and Python writes none of more than 4300 digits: a helper that
# is taken over must be able to spoil neither the record nor what is added up from it.
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class Fact(Message, frozen=True, kw_only=True, tag_field="fact"):
    """Base of all facts."""


class Ready(Fact, frozen=True, kw_only=True, tag="ready"):
    """The helper serves; `open_fds` is its own listing of /proc/self/fd targets, `layers` what it tried on itself."""

    open_fds: list[str]
    layers: list[Layer] = msgspec.field(default_factory=list)
    store_sha256: str | None = None  # of the trust anchors that it loaded, as PEM text; None without TLS


class Refused(Fact, frozen=True, kw_only=True, tag="refused"):
    """The local gate refused a caller."""

    reason: str
    peer_user_id: Count | None


class Request(Fact, frozen=True, kw_only=True, tag="request"):
    """One relayed or failed request; never anything of its body but the names of an MCP method and its target.

    `mcp_method` and `mcp_name` are what the body says (`method`; `params.name` or `params.uri`), and None where it was
    not one JSON-RPC request in one piece, or where an Mcp-Method or Mcp-Name header says something else.
    """

    method: str
    status: Count
    error_type: str | None
    request_bytes: Count
    response_bytes: Count
    duration_ms: Count
    response_start_ms: Count | None = None  # to the upstream's final response head
    mcp_method: str | None = None
    mcp_name: str | None = None


class UpstreamTrusted(Fact, frozen=True, kw_only=True, tag="upstream-trusted"):
    """A TLS connection to the upstream stands, and why it was trusted; see `events.UpstreamTrusted`."""

    address: str
    tls_version: str
    anchored_by: str
    anchor_sha256: str
    leaf_sha256: str
    leaf_not_after: str
    pins: list[str]
    credential: CredentialRule


class TrustTaken(Fact, frozen=True, kw_only=True, tag="trust-taken"):
    """A `NewTrust` command took effect, or was refused for `problem` and the former trust stays."""

    store_sha256: str  # of what holds now
    kept: Count = 0  # connections that were open and satisfy the new trust
    closed: Count = 0
    problem: str | None = None
    layers: list[Layer] = msgspec.field(default_factory=list)  # rows that changed with it


class PinMismatch(Fact, frozen=True, kw_only=True, tag="pin-mismatch"):
    """No pin was in the verified path."""

    address: str
    expected: list[str]
    seen: list[str]
    refused: bool = True  # False where the mode is report


class UpstreamFailed(Fact, frozen=True, kw_only=True, tag="upstream-failed"):
    """The upstream could not be reached or trusted, for another reason than pins."""

    error_type: str
    detail: str


class Dropped(Fact, frozen=True, kw_only=True, tag="dropped"):
    """The channel was full; so many facts were not sent."""

    count: Count


class Failed(Fact, frozen=True, kw_only=True, tag="failed"):
    """The helper is about to end by itself, and why: one sentence for the record, and never a secret."""

    reason: str


class UpstreamHealth(Fact, frozen=True, kw_only=True, tag="upstream-health"):
    """What requests have shown of the upstream changed: several failures in a row, or a success after them."""

    state: Literal["ok", "failing"]
    error_type: str | None  # the last failure's code


class SecretsTaken(Fact, frozen=True, kw_only=True, tag="secrets-taken"):
    """A `NewSecrets` command took effect, or was refused for `problem` and the former secrets stay."""

    names: list[str]
    problem: str | None = None


class Pong(Fact, frozen=True, kw_only=True, tag="pong"):
    """The answer to a `Ping`: the helper's loop runs, and its counts since it started."""

    number: Count
    connections: Count  # of clients, open now
    upstream_connections: Count  # open now, idle ones included
    requests: Count
    errors: Count  # of these, those with an error_type
    refused: Count


AnyFact = (
    Ready
    | Refused
    | Request
    | UpstreamTrusted
    | TrustTaken
    | PinMismatch
    | UpstreamFailed
    | UpstreamHealth
    | SecretsTaken
    | Pong
    | Dropped
    | Failed
)
