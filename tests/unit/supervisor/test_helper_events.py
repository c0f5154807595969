"""Each fact becomes one event, whole, in the name of the channel that it came by."""

from typing import get_args

import pytest

from codingagents.supervisor.helper_events import RecordedFact, Source, stamp
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

SOURCE = Source(server="github", uid=1234, pid=77, listen="http://127.0.0.1:4567")
STAMPED: list[tuple[RecordedFact, AnyEvent]] = [
    (
        facts.Ready(open_fds=["socket"]),
        HelperReady(server="github", user_id=1234, process_pid=77, listen="http://127.0.0.1:4567", open_fds=["socket"]),
    ),
    (
        facts.Refused(reason="uid", peer_user_id=5),
        HelperRefused(server="github", reason="uid", peer_user_id=5),
    ),
    (
        facts.Request(
            method="POST",
            status=502,
            error_type="tls",
            request_bytes=1,
            response_bytes=2,
            duration_ms=3,
            response_start_ms=2,
            mcp_method="tools/call",
            mcp_name="echo",
        ),
        HelperRequest(
            server="github",
            http_request_method="POST",
            http_response_status_code=502,
            error_type="tls",
            request_bytes=1,
            response_bytes=2,
            duration_ms=3,
            response_start_ms=2,
            mcp_method_name="tools/call",
            mcp_name="echo",
        ),
    ),
    (
        facts.PinMismatch(address="192.0.2.1:443", expected=["sha256/a"], seen=["sha256/b"]),
        PinMismatch(server="github", server_address="192.0.2.1:443", expected=["sha256/a"], seen=["sha256/b"]),
    ),
    (
        facts.PinMismatch(address="192.0.2.1:443", expected=["sha256/a"], seen=["sha256/b"], refused=False),
        PinMismatch(
            server="github",
            server_address="192.0.2.1:443",
            expected=["sha256/a"],
            seen=["sha256/b"],
            refused=False,
        ),
    ),
    (
        facts.UpstreamTrusted(
            address="192.0.2.1:443",
            tls_version="TLSv1.3",
            anchored_by="override corp",
            anchor_sha256="aa",
            leaf_sha256="bb",
            leaf_not_after="2027-01-01T00:00:00Z",
            pins=["sha256/a"],
            credential="pinned",
        ),
        UpstreamTrusted(
            server="github",
            server_address="192.0.2.1:443",
            tls_protocol_version="TLSv1.3",
            anchored_by="override corp",
            anchor_sha256="aa",
            leaf_sha256="bb",
            leaf_not_after="2027-01-01T00:00:00Z",
            pins=["sha256/a"],
            credential="pinned",
        ),
    ),
    (
        facts.UpstreamFailed(error_type="dns", detail="no such host"),
        UpstreamFailed(server="github", error_type="dns", detail="no such host"),
    ),
    (facts.Dropped(count=9), FactsDropped(server="github", dropped=9)),
    (
        facts.SecretsTaken(names=["TOKEN"], problem=None),
        HelperSecrets(server="github", names=["TOKEN"], problem=None),
    ),
]


@pytest.mark.parametrize(("fact", "event"), STAMPED)
def test_a_fact_is_stamped_with_its_source(fact: RecordedFact, event: AnyEvent) -> None:
    assert stamp(fact, SOURCE) == event


def test_every_fact_but_four_is_recorded_as_it_is() -> None:
    """`Failed` is the reason of the stop, `Pong` is for `helper list`, `UpstreamHealth` one of the causes of health.

    `TrustTaken` answers an offer, and what it is recorded as depends on that.
    """
    recorded = {type(fact) for fact, _ in STAMPED}
    others = {facts.Failed, facts.Pong, facts.UpstreamHealth, facts.TrustTaken}
    assert recorded == set(get_args(RecordedFact)) == set(get_args(facts.AnyFact)) - others
