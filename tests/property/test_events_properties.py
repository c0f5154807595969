from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from codingagents.trust.events import escape_bytes, unescape_bytes
from strategies import texts

mixed = st.lists(st.binary(max_size=3) | texts.map(str.encode) | st.just(b"\\"), max_size=6).map(b"".join)


@given(mixed)
def test_escaping_is_reversible_and_always_utf_8(raw: bytes) -> None:
    text = escape_bytes(raw)
    text.encode()
    assert unescape_bytes(text) == raw


@given(texts | st.text("\\x0123456789abcdefF", max_size=8))
def test_what_can_be_unescaped_is_what_escaping_makes(text: str) -> None:
    try:
        raw = unescape_bytes(text)
    except ValueError:
        return
    assert escape_bytes(raw) == text
