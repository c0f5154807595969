from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from codingagents.trust.encoding import decode_line, encode_event, utc_text
from codingagents.trust.errors import WireError
from codingagents.trust.events import AnyEvent
from codingagents.trust.vocabulary import SessionId
from strategies import any_event, moments, session_ids

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def rfc8785(value: Any) -> bytes:
    """An encoder of its own: for str, int, bool, None and ASCII keys this is RFC 8785."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


@given(any_event, session_ids, st.integers(0, 2**53 - 1), st.binary(min_size=32, max_size=32), moments)
def test_every_event_comes_back_from_canonical_bytes(
    event: AnyEvent, session: SessionId, seq: int, prev: bytes, moment: datetime
) -> None:
    line = encode_event(event, session=session, seq=seq, prev=prev.hex(), time=utc_text(moment))
    assert line.count(b"\n") == 1
    bare = line[:-1]
    assert bare == rfc8785(json.loads(bare))
    record = decode_line(bare)
    assert (record.event, record.session, record.seq, record.prev) == (event, session, seq, prev.hex())
    assert record.time == utc_text(moment)


@given(any_event, st.data())
def test_bytes_that_decode_are_exactly_the_bytes_that_encode(event: AnyEvent, data: st.DataObject) -> None:
    line = encode_event(event, session=SessionId("s"), seq=0, prev="0" * 64, time=utc_text(NOW))[:-1]
    at = data.draw(st.integers(0, len(line) - 1))
    mutated = line[:at] + data.draw(st.binary(max_size=3)) + line[at + data.draw(st.integers(0, 3)) :]
    try:
        record = decode_line(mutated)
    except WireError:
        return
    again = encode_event(record.event, session=record.session, seq=record.seq, prev=record.prev, time=record.time)
    assert again == mutated + b"\n"
