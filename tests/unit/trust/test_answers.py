"""The helper's own answers: one table, one shape."""

import json

import pytest

from codingagents.trust.answers import ANSWERS, render

STATUSES = {400, 401, 403, 404, 408, 413, 417, 421, 431, 501, 502, 503, 504}


@pytest.mark.parametrize("code", ANSWERS)
def test_every_answer_is_a_json_rpc_error_with_a_remedy(code: str) -> None:
    """Code, server and remedy are data that a program can read; the message is a sentence for a person."""
    head, _, body = render(code, "srv", detail="more", close=True).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert int(lines[0].split(" ")[1]) == ANSWERS[code].status
    assert ANSWERS[code].status in STATUSES
    assert f"Content-Length: {len(body)}" in lines
    assert "Connection: close" in lines
    answer = json.loads(body)
    assert (answer["jsonrpc"], answer["id"]) == ("2.0", None)
    error = answer["error"]
    assert -32099 <= error["code"] <= -32000
    assert error["message"].endswith(": more")
    assert error["data"]["code"] == code
    assert error["data"]["server"] == "srv"
    assert error["data"]["remedy"]
    assert "{" not in error["data"]["remedy"]


def test_the_answer_to_head_has_no_body() -> None:
    """But it says how long the body would have been, RFC 9110 9.3.2."""
    plain = render("dns_failed", "srv", method="GET", close=False)
    bodiless = render("dns_failed", "srv", method="HEAD", close=False)
    assert bodiless == plain.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    assert b"Connection: keep-alive" in plain


@pytest.mark.parametrize("request_id", ['a"b', "", 7, 2**70, 1.5, None])
def test_the_answer_to_a_post_is_for_its_request(request_id: str | float | None) -> None:
    """A client that has several under way knows which one failed."""
    body = render("dns_failed", "srv", request_id=request_id, close=False).partition(b"\r\n\r\n")[2]
    assert json.loads(body)["id"] == request_id


def test_the_answer_to_another_method_is_a_plain_object() -> None:
    """There was no JSON-RPC request that it could be an error for."""
    body = render("dns_failed", "srv", method="GET", close=False).partition(b"\r\n\r\n")[2]
    assert json.loads(body) == {
        "code": "dns_failed",
        "message": ANSWERS["dns_failed"].message,
        "server": "srv",
        "remedy": ANSWERS["dns_failed"].remedy,
    }


def test_no_answer_challenges_the_client() -> None:
    """A WWW-Authenticate would start an OAuth flow that cannot succeed."""
    assert all(b"www-authenticate" not in render(code, "srv", close=True).lower() for code in ANSWERS)
