from __future__ import annotations

from typing import get_args

import pytest

from codingagents.trust import events
from codingagents.trust.encoding import event_kind
from codingagents.trust.events import AnyEvent, escape_bytes, unescape_bytes


def test_every_event_class_is_in_the_union_under_a_tag_of_its_own() -> None:
    declared = {
        value
        for value in vars(events).values()
        if isinstance(value, type) and issubclass(value, events.Event) and value is not events.Event
    }
    assert declared == set(get_args(AnyEvent))
    tags = [kind.__struct_config__.tag for kind in get_args(AnyEvent)]
    assert len(set(tags)) == len(tags)
    assert event_kind(events.Checkpoint(note="")) == "events.checkpoint"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain \t\x1b[2J", "plain \t\x1b[2J"),
        ("é\u2028\U0001f600".encode(), "é\u2028\U0001f600"),
        (b"back\\slash", "back\\\\slash"),
        (b"\\xff", "\\\\xff"),
        (b"\xff", "\\xff"),
        (b"\xc3", "\\xc3"),
        ("é".encode() + b"\x80", "é\\x80"),
        (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),  # a surrogate is not UTF-8
        (b"\0", "\0"),
    ],
)
def test_bytes_are_escaped_reversibly(raw: bytes, text: str) -> None:
    assert escape_bytes(raw) == text
    assert unescape_bytes(text) == raw


@pytest.mark.parametrize("text", ["\\", "a\\b", "\\x", "\\x4", "\\x41", "\\xFF", "\\xc3\\xa9", "\\x+1", "\udcff"])
def test_text_that_escaping_never_makes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"escape_bytes|surrogates"):
        unescape_bytes(text)
