"""What facts add up to."""

import pytest

from codingagents.proxies.health import FAILURES, Health
from codingagents.trust.facts import AnyFact, Dropped, Refused, Request, UpstreamHealth


def request(code: str | None) -> Request:
    return Request(method="POST", status=200, error_type=code, request_bytes=0, response_bytes=0, duration_ms=1)


def test_the_upstream_fails_after_several_failures_in_a_row_and_works_with_the_first_success() -> None:
    """Each change is told once, with the last failure's code."""
    health = Health()
    assert health.take([request("dns_failed")] * (FAILURES - 1)) == []
    assert health.take([request("pin_mismatch")]) == [UpstreamHealth(state="failing", error_type="pin_mismatch")]
    assert health.take([request("dns_failed")] * FAILURES) == []
    assert health.take([request(None)]) == [UpstreamHealth(state="ok", error_type=None)]
    assert health.take([request(None)]) == []


def test_a_success_in_between_starts_the_count_anew() -> None:
    """Only failures in a row count."""
    failures = [request("upstream_closed")] * (FAILURES - 1)
    assert Health().take([*failures, request(None), *failures]) == []


@pytest.mark.parametrize("code", ["client_closed", "body_too_large", "bad_chunk", "request_timeout"])
def test_what_the_client_did_says_nothing_about_the_upstream(code: str) -> None:
    """It neither makes the upstream failing nor ends a row of failures."""
    health = Health()
    assert health.take([request(code)] * (2 * FAILURES)) == []
    assert len(health.take([request("dns_failed"), request(code)] * FAILURES)) == 1


def test_everything_is_counted() -> None:
    """Requests, those with an error, and refusals; other facts are none of these."""
    health = Health()
    facts: list[AnyFact] = [
        request(None), request("client_closed"), Refused(reason="uid_refused", peer_user_id=1), Dropped(count=3),
    ]  # fmt: skip
    health.take(facts)
    assert (health.requests, health.errors, health.refused) == (2, 1, 1)
