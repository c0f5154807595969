"""CORE: the only codec between our own processes: one JSON object a line, bounded, strictly typed.

Messages are frozen `msgspec.Struct`s; an unknown key, a missing key or a wrong type is a `WireError`,
so two processes of different versions find out at once. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from codingagents.trust.errors import WireError
from codingagents.trust.vocabulary import Secret

MAX_LINE = 16 * 1024 * 1024  # bytes; a helper spec carries a whole CA bundle, about 220 kB

_T = TypeVar("_T")


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every message: immutable, named fields only, nothing unknown accepted."""


def _encode_secret(value: object) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    raise TypeError(f"{type(value).__name__} has no wire form")


def _decode_secret(kind: type, value: Any) -> Any:  # noqa: ANN401 -- msgspec's own hook signature
    if kind is Secret and isinstance(value, str):
        if not value:
            raise ValueError("a secret must not be empty")
        return Secret(value)
    raise TypeError("unexpected type on the wire")


_PLAIN = msgspec.json.Encoder(order="sorted")
_REVEALING = msgspec.json.Encoder(order="sorted", enc_hook=_encode_secret)
_DECODERS: dict[Any, msgspec.json.Decoder[Any]] = {}


def encode(message: object, *, reveal_secrets: bool = False) -> bytes:
    """Return `message` as one line, newline included.

    A message that holds a `Secret` needs `reveal_secrets=True`: it is only for a channel whose other end is
    the process that the secret is for. Otherwise `TypeError`: that is a bug, not bad data.
    """
    try:
        line = (_REVEALING if reveal_secrets else _PLAIN).encode(message) + b"\n"
    except UnicodeEncodeError:
        raise WireError(f"a message {type(message).__name__} holds text that is not UTF-8") from None
    if len(line) > MAX_LINE:
        raise WireError(f"a message of {len(line)} bytes is over the limit of {MAX_LINE}")
    return line


def encode_lines(messages: Sequence[object]) -> bytes:
    """Return what `encode` returns for each of `messages`, one after the other; none of them may hold a `Secret`."""
    try:
        return _PLAIN.encode_lines(messages)
    except UnicodeEncodeError:
        raise WireError("a message holds text that is not UTF-8") from None


def decode(kind: type[_T] | Any, line: bytes | bytearray | memoryview) -> _T:  # noqa: ANN401 -- unions are not types to mypy
    """Return the `kind` (a Message or a union of Messages) that `line` holds, or raise `WireError`."""
    if len(line) > MAX_LINE:
        raise WireError(f"a message of {len(line)} bytes is over the limit of {MAX_LINE}")
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.json.Decoder(kind, dec_hook=_decode_secret)
    try:
        result: _T = decoder.decode(line)
    except msgspec.DecodeError as error:
        # msgspec names the path and the expected type, never the value: safe to show.
        raise WireError(f"malformed message: {error}") from None
    except UnicodeDecodeError:
        raise WireError("malformed message: not UTF-8") from None
    except RecursionError:
        raise WireError("malformed message: nested too deeply") from None
    return result


class LineBuffer:
    """Splits a byte stream into lines; a line over `limit` bytes raises `WireError` instead of growing."""

    def __init__(self, limit: int = MAX_LINE) -> None:
        """Start empty; `limit` bounds one line in bytes."""
        self._limit = limit
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Add `data` and return the lines that are now complete, without their newlines."""
        self._pending += data
        if b"\n" not in data:
            if len(self._pending) > self._limit:
                raise WireError(f"a line is over the limit of {self._limit} bytes")
            return []
        *lines, rest = bytes(self._pending).split(b"\n")
        self._pending = bytearray(rest)
        if len(rest) > self._limit or any(len(line) > self._limit for line in lines):
            raise WireError(f"a line is over the limit of {self._limit} bytes")
        return lines
