from __future__ import annotations

import pytest

from codingagents.rewrite.specs import NewSecrets
from codingagents.trust import wire
from codingagents.trust.errors import WireError
from codingagents.trust.facts import AnyFact, Dropped, Failed, Pong
from codingagents.trust.vocabulary import Secret
from codingagents.trust.wire import MAX_LINE, LineBuffer, Message, decode, encode


class Point(Message, frozen=True, kw_only=True):
    x: int
    label: str = ""


class Sealed(Message, frozen=True, kw_only=True):
    name: str
    value: Secret


SECRET = "hunter2-\u00e9"


def test_a_message_is_one_line_with_sorted_keys() -> None:
    assert encode(Point(x=1, label="a\nb")) == b'{"label":"a\\nb","x":1}\n'
    assert decode(Point, b'{"label":"a\\nb","x":1}') == Point(x=1, label="a\nb")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"x":1,"y":2}',
        b'{"label":"a"}',
        b'{"x":"1"}',
        b'{"x":1.5}',
        b'{"x":true}',
        b'{"x":1}{"x":1}',
        b'{"x":1,"label":"\xff"}',
        b'{"\xff":1,"x":1}',
        b'{"x":1,"label":"\\ud800"}',
        b'{"x":1,"label":' + b"[" * 100_000,
    ],
)
def test_anything_but_the_message_is_a_wire_error(line: bytes) -> None:
    with pytest.raises(WireError, match="malformed message"):
        decode(Point, line)


def test_deep_nesting_is_a_wire_error() -> None:
    # A union looks for its tag past values that no field has asked for.
    with pytest.raises(WireError, match="nested too deeply"):
        decode(AnyFact, b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"fact":"dropped"}')


@pytest.mark.parametrize("count", [-1, 2**53, 10**30, int("9" * 4300)])
def test_a_number_that_no_reader_of_the_log_can_hold_is_no_fact(count: int) -> None:
    assert decode(AnyFact, encode(Dropped(count=2**53 - 1))) == Dropped(count=2**53 - 1)
    pong = encode(Pong(number=1, connections=0, upstream_connections=0, requests=count, errors=0, refused=0))
    request = b'{"fact":"request","method":"POST","status":200,"error_type":null,"request_bytes":%d,"response_bytes":0'
    for line in (encode(Dropped(count=count)), pong, request % count + b',"duration_ms":0}'):
        with pytest.raises(WireError, match="Expected `int`"):
            decode(AnyFact, line)


def test_a_secret_leaves_only_where_that_is_said() -> None:
    sealed = Sealed(name="n", value=Secret(SECRET))
    with pytest.raises(TypeError, match="type Secret is unsupported"):
        encode(sealed)
    line = encode(sealed, reveal_secrets=True)
    assert decode(Sealed, line) == sealed
    with pytest.raises(TypeError, match="object has no wire form"):
        encode(object(), reveal_secrets=True)


@pytest.mark.parametrize("value", [b'""', b"7", b"null", b'["hunter2"]', b'{"hunter2":1}'])
def test_a_secret_that_does_not_decode_is_not_shown(value: bytes) -> None:
    with pytest.raises(WireError) as refused:
        decode(Sealed, b'{"name":"n","value":' + value + b"}")
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_type_that_nothing_decodes_to_is_refused() -> None:
    with pytest.raises(WireError, match="unexpected type"):
        decode(complex, b'"1j"')


def test_text_that_is_not_utf_8_is_a_wire_error() -> None:
    with pytest.raises(WireError, match="Point holds text that is not UTF-8"):
        encode(Point(x=1, label="\udcff"))


def test_both_ends_hold_to_the_limit() -> None:
    room = MAX_LINE - len(encode(Point(x=1, label="")))
    line = encode(Point(x=1, label="y" * room))
    assert len(line) == MAX_LINE
    assert decode(Point, line) == Point(x=1, label="y" * room)
    with pytest.raises(WireError, match="over the limit"):
        encode(Point(x=1, label="y" * (room + 1)))
    with pytest.raises(WireError, match="over the limit"):
        decode(Point, line + b" ")


def test_lines_are_split_however_they_arrive() -> None:
    buffer = LineBuffer()
    assert buffer.feed(b"on") == []
    assert buffer.feed(b"e\n\ntwo\nthr") == [b"one", b"", b"two"]
    assert buffer.feed(b"") == []
    assert buffer.feed(b"ee\n") == [b"three"]


@pytest.mark.parametrize("pieces", [[b"12345", b"6"], [b"123456\n"], [b"1\n123456"], [b"1\n123456\n"]])
def test_a_line_over_the_buffers_limit_is_an_error(pieces: list[bytes]) -> None:
    buffer = LineBuffer(limit=5)
    assert LineBuffer(limit=5).feed(b"12345\n12345") == [b"12345"]
    *first, last = pieces
    for piece in first:
        assert buffer.feed(piece) == []
    with pytest.raises(WireError, match="limit of 5"):
        buffer.feed(last)


def test_decoders_are_made_once() -> None:
    decode(Point, b'{"x":1}')
    made = wire._DECODERS[Point]
    decode(Point, b'{"x":2}')
    assert wire._DECODERS[Point] is made


def test_lines_are_what_single_messages_would_be() -> None:
    """The same bytes, and the same refusals."""
    messages = [Dropped(count=1), Failed(reason="é")]
    assert wire.encode_lines(messages) == b"".join(wire.encode(each) for each in messages)
    assert wire.encode_lines([]) == b""
    with pytest.raises(WireError, match="not UTF-8"):
        wire.encode_lines([Failed(reason="\ud800")])
    with pytest.raises(TypeError):
        wire.encode_lines([NewSecrets(secrets={"A": Secret("value")})])
