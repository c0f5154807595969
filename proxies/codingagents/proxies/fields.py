"""CORE: header lines: one grammar (RFC 9110 5.5, RFC 9112 5), and what a line means to us, looked up in a cache.

What a line means is a pure function of its bytes, and a head's `Shape` is what its lines mean, in order: whatever a
helper decides about a head it decides from the shape, so that heads which differ only in lines that mean nothing to us
(ids, dates, traces), or in the number of a Content-Length, are decided once (`heads`). Of a name that has many values
only the first are remembered: the next is a new one again. The caches are bounded, and emptied when full: a hostile
peer costs time but no memory. Knows nothing of first lines and bodies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias, TypeVar

from codingagents.proxies.errors import Refusal

MAX_CACHED: Final = 256  # entries of one cache
MAX_CACHED_KEY: Final = 512  # bytes; together at most 128 KiB per cache
MAX_VALUES: Final = 16  # lines of one name that are remembered

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_NAME: Final = re.compile(TOKEN)
_BAD: Final = 0  # what `_MARK` makes of a byte that no value has: a control character but TAB
_MARK: Final = bytes(1 if byte == 0x09 or 0x20 <= byte != 0x7F else _BAD for byte in range(256))
_MAX_DIGITS: Final = 15
_TIMEOUT: Final = re.compile(rb"(?:^|[ ,])timeout=([0-9]{1,6})(?:$|[ ,])")

# The kinds of lines. What is looked at and not passed on, each in one spelling already (`Fields`): what can
# be done once for all messages with the same line is not done for each.
PASS: Final = 0
DROP: Final = 1
HOST: Final = 2
LENGTH: Final = 3
AUTHORIZATION: Final = 4
CONNECTION: Final = 5
CODING: Final = 6
ORIGIN: Final = 7
EXPECT: Final = 8
KEEP_ALIVE: Final = 9
LOCATION: Final = 10
# What is looked at and passed on.
MCP_METHOD: Final = 20
MCP_NAME: Final = 21
EVENT_STREAM: Final = 22
ENCODED: Final = 23
OTHER_SITE: Final = 24
_FIRST_PASSED_ON: Final = MCP_METHOD

# (kind, value), None where the line is passed on unlooked, or why a message with this line is refused. The value of a
# line whose kind is in `_READ_ANEW` is not here, but read from each line.
Meaning: TypeAlias = tuple[int, bytes] | Refusal | None
Shape: TypeAlias = tuple[Meaning, ...]

LENGTH_NAME: Final = b"Content-Length: "
LENGTH_VALUE: Final = len(b"content-length:")  # where the value begins in a line
AS_OURS: Final = b"="  # the value of a LENGTH that is spelled as we spell it
_OUR_LENGTH: Final = (LENGTH, AS_OURS)
_HOP_BY_HOP: Final = frozenset({b"keep-alive", b"te", b"trailer", b"upgrade", b"http2-settings"})  # and proxy-*
_PERSISTENCE: Final = frozenset({b"", b"close", b"keep-alive"})  # what a Connection header may name besides headers
_OUR_SITES: Final = (b"same-origin", b"none")  # a page of ours, or no page; browsers say it, and no page can change it
_AS_IT_IS: Final = frozenset({AUTHORIZATION, LOCATION})  # values that are not compared in lower case
_READ_ANEW: Final = frozenset({MCP_METHOD, MCP_NAME})  # as many values as there are tools, and nothing depends on them

_T = TypeVar("_T")


class Cache(dict[bytes, _T]):
    """bytes -> what `read` makes of them, remembered; what it raises for is not."""

    def __init__(self, read: Callable[[bytes], _T]) -> None:
        """Start empty."""
        super().__init__()
        self._read = read

    def __missing__(self, key: bytes) -> _T:
        """Read `key`, and remember what was found."""
        found = self._read(key)
        if len(key) <= MAX_CACHED_KEY:
            if len(self) >= MAX_CACHED:
                self.clear()
            self[key] = found
        return found


class _Name:
    """What is known of the lines of one name, in the case it came in."""

    __slots__ = ("kind", "left")

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.left = MAX_VALUES  # lines that may still be remembered


class Sorted(NamedTuple):
    """The lines of one shape, by their places in the head."""

    kept: list[int]  # to be passed on
    known: dict[int, bytes]  # what was looked at: {kind: value}
    places: dict[int, list[int]]  # and where


class Fields(dict[bytes, Meaning]):
    """Reads the header lines of one direction: line -> meaning."""

    def __init__(
        self, code: str, kinds: Mapping[bytes, int], dropped: Callable[[bytes], bool], twice: Mapping[int, str]
    ) -> None:
        """Refuse malformed lines for `code`.

        `kinds` has what is looked at, by lower-case name, `dropped` says of other names whether they end here, and
        `twice` has the kinds that may stand once only, and the code of the refusal.
        """
        super().__init__()
        self._code = code
        self._kinds = kinds
        self._dropped = dropped
        self._twice = twice
        self._names = Cache(self._name)

    def __missing__(self, line: bytes) -> Meaning:
        """Read `line`; remember what it means, if it may come again."""
        name, colon, value = line.partition(b":")
        if not colon or _BAD in value.translate(_MARK):
            return Refusal(self._code)
        try:
            known = self._names[name]
            kind = known.kind
            if kind == PASS:
                meaning: Meaning = None
            elif kind == LENGTH:
                meaning = self._length(line, value.strip(b" \t"))
            else:
                meaning = _looked_at(kind, value.strip(b" \t"))
        except Refusal as refusal:
            return refusal
        if known.left and len(line) <= MAX_CACHED_KEY:
            if len(self) >= MAX_CACHED:
                self.clear()
                self._names.clear()
            known.left -= 1
            self[line] = meaning
        return meaning

    def sort(self, shape: Shape) -> Sorted:
        """Return what the lines of a head are, or raise the first `Refusal` that one of them is reason for."""
        kept: list[int] = []
        known: dict[int, bytes] = {}
        places: dict[int, list[int]] = {}
        for place, meaning in enumerate(shape):
            if meaning is None:
                kept.append(place)
                continue
            if isinstance(meaning, Refusal):
                raise meaning
            kind, value = meaning
            if kind == DROP:
                continue
            if kind >= _FIRST_PASSED_ON:
                kept.append(place)
            if kind in known:
                if kind in self._twice:
                    raise Refusal(self._twice[kind])
                value = known[kind] + b"," + value
            known[kind] = value
            places.setdefault(kind, []).append(place)
        return Sorted(kept, known, places)

    def _name(self, name: bytes) -> _Name:
        """Return what lines of this `name` are, in whatever case it came; raises `Refusal` where it is no token."""
        if not _NAME.fullmatch(name):
            raise Refusal(self._code)
        name = name.lower()
        if name in self._kinds:
            return _Name(self._kinds[name])
        dropped = name in _HOP_BY_HOP or name.startswith(b"proxy-") or self._dropped(name)
        return _Name(DROP if dropped else PASS)

    def _length(self, line: bytes, digits: bytes) -> Meaning:
        """Return the meaning of a Content-Length line."""
        if not digits.isdigit() or len(digits) > _MAX_DIGITS:
            raise Refusal(self._code if self._code == "bad_response" else "bad_framing")
        if line == LENGTH_NAME + digits and (digits == b"0" or not digits.startswith(b"0")):
            return _OUR_LENGTH
        return LENGTH, b""


def _looked_at(kind: int, value: bytes) -> Meaning:
    """Return the meaning of another line that is looked at, its value in the one spelling that is looked for."""
    if kind == DROP or kind in _READ_ANEW:
        return kind, b""
    if kind not in _AS_IT_IS:
        value = value.lower()
    if kind == KEEP_ALIVE:
        hint = _TIMEOUT.search(value)
        return (kind, hint[1]) if hint else (DROP, b"")
    if kind == EVENT_STREAM:
        return (kind, b"") if value.split(b";")[0].rstrip(b" \t") == b"text/event-stream" else None
    if kind == ENCODED:
        return (kind, b"") if value not in (b"", b"identity") else None
    if kind == OTHER_SITE:
        return (kind, b"") if value not in _OUR_SITES else None
    return kind, value


def values(lines: Sequence[bytes], places: Sequence[int]) -> bytes | None:
    """Return what the lines at `places` say, those of one name being one list; None where there is no place."""
    if not places:
        return None
    return b",".join(lines[place].split(b":", 1)[1].strip(b" \t") for place in places)


def connection(value: bytes) -> tuple[bool, frozenset[bytes]]:
    """Return (close, names of headers to leave out) of a Connection header's value in lower case.

    Those that are left out anyway are not among the names.
    """
    options = frozenset(option.strip(b" \t") for option in value.split(b","))
    return b"close" in options, options - _PERSISTENCE - _HOP_BY_HOP


def without(kept: list[int], lines: Sequence[bytes], names: frozenset[bytes]) -> list[int]:
    """Return the places of `kept` but those of lines of the lower-case `names`."""
    return [place for place in kept if lines[place].split(b":", 1)[0].lower() not in names]
