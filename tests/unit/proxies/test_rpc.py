"""What is read of a request's body, and what is not."""

import json
from typing import Any

import pytest

from codingagents.proxies.rpc import MAX_NAME, names, request_id

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {"name": "x"}}}


def body(**changes: Any) -> bytes:
    return json.dumps(CALL | changes).encode()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (body(), ("tools/call", "echo")),
        (body(method="resources/read", params={"uri": "file:///a"}), ("resources/read", "file:///a")),
        (body(method="prompts/get", params={"uri": "u", "name": "n"}), ("prompts/get", "n")),
        (body(method="ping", params=None), ("ping", None)),
        (body(method="initialize", params={"clientInfo": {"name": "c"}}), ("initialize", None)),
        (b'{"method":"notifications/initialized"}', ("notifications/initialized", None)),
        (body(params=["echo"]), (None, None)),
        (body(params={"name": 7}), (None, None)),
        (body(method=7), (None, None)),
        (b'{"id":1,"result":{}}', (None, None)),
        (b"[" + body() + b"]", (None, None)),
        (b'"text"', (None, None)),
        (b"", (None, None)),
        (b'{"method":"a"', (None, None)),
        (b'{"method":"a"} {"method":"b"}', (None, None)),
        (b'{"method":"\xff"}', (None, None)),
        (b'{"method":"a","params":' + b"[" * 60_000, (None, None)),
        (b'{"method":"a","deep":' + b"[" * 60_000, (None, None)),
    ],
)
def test_names_are_read_where_the_body_is_one_request(data: bytes, expected: tuple[str | None, str | None]) -> None:
    """Whatever else it is, it has no name, and nothing breaks."""
    assert names(data, None, None) == expected


@pytest.mark.parametrize(
    ("method", "name", "agree"),
    [
        (b"tools/call", b"echo", True),
        (b"tools/call", None, True),
        (None, b"=?base64?ZWNobw==?=", True),
        (b"tools/list", b"echo", False),
        (b"Tools/call", None, False),
        (None, b"other", False),
        (None, b"", False),
        (None, b"echo,echo", False),
        (None, b"=?base64?ZWNobw?=", False),
        (None, b"=?base64?!!!!?=", False),
        (None, b"=?base64?b3RoZXI=?=", False),
    ],
)
def test_a_header_that_says_something_else_leaves_the_request_unnamed(
    method: bytes | None, name: bytes | None, agree: bool
) -> None:
    """The record must not say what an attacker wrote beside what the server does."""
    assert names(body(), method, name) == (("tools/call", "echo") if agree else (None, None))


def test_an_encoded_name_is_the_text_that_it_encodes() -> None:
    """MCP 2026-07-28 encodes what a header cannot hold."""
    data = json.dumps(CALL | {"params": {"name": "é"}}, ensure_ascii=False).encode()
    assert names(data, None, b"=?base64?w6k=?=") == ("tools/call", "é")
    assert names(data, None, b"=?base64?6Q==?=") == (None, None)


def test_a_header_that_names_what_the_body_does_not_is_another_thing() -> None:
    assert names(body(params={}), None, b"echo") == (None, None)


def test_names_are_short_in_the_record() -> None:
    found = names(body(method="m" * 1000, params={"name": "n" * 1000}), None, None)
    assert found == ("m" * MAX_NAME, "n" * MAX_NAME)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (body(), 1),
        (body(id='a"\u00e9'), 'a"é'),
        (body(id=2**70), 2**70),
        (body(id=-1.5), -1.5),
        (body(params=["positional"]), 1),
        (body(id=None), None),
        (body(id={"a": 1}), None),
        (body(id=True), None),
        (b'{"method":"notifications/x"}', None),
        (b'{"id":1,"result":{}}', None),
        (b"[" + body() + b"]", None),
        (b"no JSON", None),
        (b'{"id":1,"method":"a","deep":' + b"[" * 60_000, None),
    ],
)
def test_the_id_is_the_requests_own(data: bytes, expected: str | float | None) -> None:
    """A string or a number, as JSON-RPC has it; a notification has none."""
    assert request_id(data) == expected
