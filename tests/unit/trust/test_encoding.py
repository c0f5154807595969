from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from codingagents.trust import encoding
from codingagents.trust.encoding import decode_line, encode_event, event_kind, utc_text
from codingagents.trust.errors import EventLogError, WireError
from codingagents.trust.events import AnyEvent, HelperFailed, SessionEnded
from codingagents.trust.vocabulary import SessionId

SESSION = SessionId("s-1")
ENDED = SessionEnded(exit_code=0, reason="agent exited")
TIME = "2026-11-24T04:11:00.123456Z"


def line(event: AnyEvent = ENDED) -> bytes:
    return encode_event(event, session=SESSION, seq=7, prev="ab" * 32, time=TIME)


def test_a_line_is_the_documented_cloudevent() -> None:
    assert json.loads(line()) == {
        "specversion": "1.0",
        "id": "s-1-7",
        "source": "/coding-agents/sessions/s-1",
        "type": "dev.codingagents.session.ended",
        "time": TIME,
        "datacontenttype": "application/json",
        "seq": 7,
        "prev": "ab" * 32,
        "data": {"exit_code": 0, "reason": "agent exited"},
    }
    assert line().endswith(b"}\n")


def test_decoding_gives_back_the_event_and_its_place() -> None:
    record = decode_line(line()[:-1])
    assert (record.session, record.seq, record.prev, record.time) == (SESSION, 7, "ab" * 32, TIME)
    assert record.event == ENDED
    assert event_kind(record.event) == "session.ended"


def test_times_are_utc_with_microseconds() -> None:
    moment = datetime(2026, 11, 24, 5, 11, tzinfo=timezone(timedelta(hours=1)))
    assert utc_text(moment) == "2026-11-24T04:11:00.000000Z"
    assert utc_text(moment.replace(microsecond=123456)) == TIME
    with pytest.raises(ValueError, match="time zone"):
        utc_text(moment.replace(tzinfo=None))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"{", b"", "not an event"),
        (b"agent exited", b"\xff", "not an event"),
        (b'"exit_code":0', b'"exit_code":true', "not an event"),
        (b'"exit_code":0,', b"", "not an event"),
        (b'"exit_code":0', b'"exit_code":0,"more":1', "not an event"),
        (b'"seq":7', b'"seq":7,"subject":"x"', "not an event"),
        (b'"specversion":"1.0"', b'"specversion":"0.3"', "not an event"),
        (b'"reason":"agent exited"', b'"kind":"session.ended","reason":"agent exited"', "canonical"),
        (b'"exit_code":0', b'"exit_code":1,"exit_code":0', "canonical"),
        (b'"exit_code":0', b'"exit_code": 0', "canonical"),
        (b'"exit_code":0', b'"exit_code":-0', "canonical"),
        (b"agent exited", b"agent\\u0020exited", "canonical"),
        (b'"id":"s-1-7"', b'"id":"s-1-8"', "canonical"),
        (b"session.ended", b"session.exploded", "type"),
        (b"dev.codingagents", b"com.example", "type"),
        (b"/sessions/s-1", b"/sessions/S_1", "source"),
        (b'"seq":7', b'"seq":-1', "seq or prev"),
        (b'"seq":7', b'"seq":9007199254740992', "seq or prev"),
        (b"ababab", b"ABabab", "seq or prev"),
        (b".123456Z", b".123Z", "time"),
        (b".123456Z", b".123456", "time"),
        (b".123456Z", b".123456+00:00", "time"),
        (b"2026-11-24", b"2026-11-31", "time"),
        (TIME.encode(), b"0001-01-01T00:00:00.000000+14:00", "time"),
        (b"}", b"}\n", "canonical"),
    ],
)
def test_a_line_that_we_would_not_have_written_is_refused(old: bytes, new: bytes, says: str) -> None:
    good = line()[:-1]
    bad = good.replace(old, new, 1)
    assert bad != good
    with pytest.raises(WireError, match=says):
        decode_line(bad)


def test_deep_nesting_is_refused_not_a_crash() -> None:
    deep = line()[:-1].replace(b'"agent exited"', b"[" * 100_000 + b"]" * 100_000)
    with pytest.raises(WireError):
        decode_line(deep)


def test_both_ends_hold_to_the_length_limit() -> None:
    room = encoding.MAX_EVENT_LINE - len(line(HelperFailed(server="s", reason=""))) + 1
    exact = line(HelperFailed(server="s", reason="x" * room))
    assert len(exact) == encoding.MAX_EVENT_LINE + 1
    assert decode_line(exact[:-1]).event == HelperFailed(server="s", reason="x" * room)
    with pytest.raises(EventLogError, match=r"helper\.failed.*limit"):
        line(HelperFailed(server="s", reason="x" * (room + 1)))
    with pytest.raises(WireError, match="limit"):
        decode_line(exact[:-1] + b" ")


def test_text_that_is_not_utf_8_is_an_error_that_names_the_event() -> None:
    with pytest.raises(EventLogError, match=r"helper\.failed.*UTF-8"):
        line(HelperFailed(server="s", reason="\udcff"))
