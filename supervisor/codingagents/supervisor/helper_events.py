"""CORE: what a helper said, as the event that records it: the fact, stamped with what its channel says of its source.

A helper cannot speak for another: no fact names a server, a UID or a process. Records nothing, and does not judge
whether a fact comes in turn or when there are too many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from codingagents.trust import facts
from codingagents.trust.events import (
    AnyEvent,
    FactsDropped,
    HelperReady,
    HelperRefused,
    HelperRequest,
    HelperSecrets,
    PinMismatch,
    UpstreamFailed,
    UpstreamTrusted,
)

# All but `Failed`, which is the reason of the `HelperStopped` that follows, `Pong`, which is for `helper list`,
# `UpstreamHealth`, which is one of the causes that degrade a helper (`health`), and `TrustTaken`, an answer of which
# `helper_trust` makes what is recorded.
RecordedFact = (
    facts.Ready
    | facts.Refused
    | facts.Request
    | facts.UpstreamTrusted
    | facts.PinMismatch
    | facts.UpstreamFailed
    | facts.SecretsTaken
    | facts.Dropped
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Who is at the other end of a channel: the server's name, the helper's UID and process, where it listens."""

    server: str
    uid: int
    pid: int
    listen: str  # as `slots.Slot.origin`


def stamp(fact: RecordedFact, source: Source) -> AnyEvent:
    """Return the event that records `fact` as said by `source`."""
    server = source.server
    match fact:
        case facts.Ready():
            return HelperReady(
                server=server,
                user_id=source.uid,
                process_pid=source.pid,
                listen=source.listen,
                open_fds=fact.open_fds,
            )
        case facts.Refused():
            return HelperRefused(server=server, reason=fact.reason, peer_user_id=fact.peer_user_id)
        case facts.Request():
            return HelperRequest(
                server=server,
                http_request_method=fact.method,
                http_response_status_code=fact.status,
                error_type=fact.error_type,
                request_bytes=fact.request_bytes,
                response_bytes=fact.response_bytes,
                duration_ms=fact.duration_ms,
                response_start_ms=fact.response_start_ms,
                mcp_method_name=fact.mcp_method,
                mcp_name=fact.mcp_name,
            )
        case facts.PinMismatch():
            return PinMismatch(
                server=server,
                server_address=fact.address,
                expected=fact.expected,
                seen=fact.seen,
                refused=fact.refused,
            )
        case facts.UpstreamTrusted():
            return UpstreamTrusted(
                server=server,
                server_address=fact.address,
                tls_protocol_version=fact.tls_version,
                anchored_by=fact.anchored_by,
                anchor_sha256=fact.anchor_sha256,
                leaf_sha256=fact.leaf_sha256,
                leaf_not_after=fact.leaf_not_after,
                pins=fact.pins,
                credential=fact.credential,
            )
        case facts.UpstreamFailed():
            return UpstreamFailed(server=server, error_type=fact.error_type, detail=fact.detail)
        case facts.SecretsTaken():
            return HelperSecrets(server=server, names=fact.names, problem=fact.problem)
        case facts.Dropped():
            return FactsDropped(server=server, dropped=fact.count)
    assert_never(fact)
