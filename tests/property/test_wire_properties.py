from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codingagents.trust.errors import WireError
from codingagents.trust.facts import AnyFact
from codingagents.trust.vocabulary import Secret
from codingagents.trust.wire import LineBuffer, Message, decode, encode
from strategies import of_struct, texts

any_fact: st.SearchStrategy[AnyFact] = st.one_of(*map(of_struct, get_args(AnyFact)))


class Sealed(Message, frozen=True, kw_only=True):
    values: dict[str, Secret]


@given(any_fact)
def test_every_message_comes_back(fact: AnyFact) -> None:
    line = encode(fact)
    assert line.count(b"\n") == 1
    assert decode(AnyFact, line) == fact


@given(any_fact, st.text(st.characters(codec="utf-8"), min_size=1, max_size=8))
def test_an_unknown_key_is_refused(fact: AnyFact, key: str) -> None:
    message: dict[str, Any] = json.loads(encode(fact))
    if key not in message:
        with pytest.raises(WireError):
            decode(AnyFact, json.dumps({**message, key: None}).encode())


@given(st.dictionaries(texts, texts.filter(bool), min_size=1, max_size=3))
def test_secrets_come_back_and_stay_out_unless_revealed(values: dict[str, str]) -> None:
    sealed = Sealed(values={name: Secret(value) for name, value in values.items()})
    assert decode(Sealed, encode(sealed, reveal_secrets=True)) == sealed
    with pytest.raises(TypeError):
        encode(sealed)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_a_message_or_a_wire_error(data: bytes) -> None:
    try:
        decode(AnyFact, data)
    except WireError:
        return
    raise AssertionError("no random bytes are a fact")


@given(st.lists(st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b""))), st.lists(st.integers(1, 9)))
def test_chunking_does_not_matter(lines: list[bytes], sizes: list[int]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    buffer, found, at = LineBuffer(), list[bytes](), 0
    for size in [*sizes, len(data) + 1]:
        found += buffer.feed(data[at : at + size])
        at += size
    assert found == lines
