"""The wire of the runner's socket, by tables; hypothesis goes on in tests/property/test_task_wire_properties.py."""

from __future__ import annotations

import pytest

from codingagents.supervisor.task_wire import (
    MAX_REQUEST,
    Request,
    RequestError,
    body_length,
    encode_request,
    parse_request,
    parse_signal,
)

PLAIN = Request(
    argv=[b"/bin/sh", b"-c", b""], cwd=b"/w", environment=[(b"A", b"1=2"), (b"B", b"")], named=[(b"C", b"=")]
)
BODY = encode_request(PLAIN).partition(b"\n")[2]


def test_a_request_for_pipes_reads_back() -> None:
    seen = parse_request(BODY)
    assert (seen.argv, seen.cwd, seen.environment) == (PLAIN.argv, PLAIN.cwd, PLAIN.environment)
    assert seen.named == PLAIN.named
    assert not seen.terminal


def test_the_head_says_how_long_the_body_is() -> None:
    head, _, body = encode_request(PLAIN).partition(b"\n")
    assert body_length(head) == len(body)


@pytest.mark.parametrize(
    "head", [b"", b"T1", b"T1 ", b"T1 -1", b"T1 1_0", b"T1 \xb2", b"T2 5", b"GET / HTTP/1.1", b"T1 9999999999"]
)
def test_what_is_no_head_is_refused(head: bytes) -> None:
    with pytest.raises(RequestError):
        body_length(head)


def test_a_request_that_is_too_long_is_refused_at_its_head_and_not_made() -> None:
    with pytest.raises(RequestError, match="over"):
        body_length(b"T1 %d" % (MAX_REQUEST + 1))
    with pytest.raises(RequestError, match="over"):
        encode_request(Request(argv=[b"x" * MAX_REQUEST], cwd=b"/", environment=[]))


def test_a_string_with_a_nul_is_not_sent() -> None:
    with pytest.raises(RequestError, match="NUL"):
        encode_request(Request(argv=[b"a\0b"], cwd=b"/", environment=[]))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not terminated"),
        (BODY[:-1], "not terminated"),
        (b"\0" * 200000, "too many"),
        (b"both\x000\x000\0/\x001\0x\0", "neither"),
        (b"pipes\x000\x000\0/\0", "neither"),
        (b"pipes\0-1\x000\0/\x001\0x\0", "a number"),
        (b"pipes\x000\x000\0/\x000\0x\0", "no program"),
        (b"pipes\x000\x000\0/\x002\0x\0", "no program"),
        (b"pipes\x000\x000\0/\x001\0\0", "no program"),
        (b"pipes\x000\x000\0w\x001\0x\0", "not absolute"),
        (b"pipes\x000\x000\0/\x001\0x\0A\0", "no name or no value"),
        (b"pipes\x000\x000\0/\x001\0x\0=1\0", "no name or no value"),
        (b"pipes\x000\x000\0/\x001\0x\0==1\0", "no name or no value"),
    ],
)
def test_what_is_no_request_is_refused_with_its_cause(body: bytes, why: str) -> None:
    with pytest.raises(RequestError, match=why):
        parse_request(body)


def test_a_window_is_bounded_to_what_the_kernel_takes() -> None:
    request = Request(argv=[b"x"], cwd=b"/", environment=[], terminal=True, rows=99999, columns=80)
    seen = parse_request(encode_request(request).partition(b"\n")[2])
    assert (seen.terminal, seen.rows, seen.columns) == (True, 0xFFFF, 80)


@pytest.mark.parametrize("line", [b"", b"signal", b"signal 0", b"signal 65", b"signal -9", b"SIGNAL 9", b"signal 9 "])
def test_what_is_no_signal_is_refused(line: bytes) -> None:
    with pytest.raises(RequestError):
        parse_signal(line)


def test_a_signal_is_read() -> None:
    assert parse_signal(b"signal 15") == 15
