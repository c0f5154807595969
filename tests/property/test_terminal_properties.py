from __future__ import annotations

from hypothesis import given

from codingagents.trust.encoding import Record
from codingagents.trust.events import AnyEvent
from codingagents.trust.terminal import MAX_WIDTH, render
from codingagents.trust.vocabulary import SessionId
from strategies import any_event


@given(any_event)
def test_every_event_is_one_printable_line(event: AnyEvent) -> None:
    record = Record(session=SessionId("s"), seq=0, prev="0" * 64, time="2026-11-24T04:11:00.123456Z", event=event)
    line = render(record)
    assert line.isprintable()
    assert len(line) <= MAX_WIDTH
