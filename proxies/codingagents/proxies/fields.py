"""CORE: header lines: one grammar (RFC 9110 5.5, RFC 9112 5), and what a line means to us, looked up in a cache.

What a line means is a pure function of its bytes. Real clients and servers repeat most lines, and a hit costs a
twentieth of the regular expression; of a line that is new, at least the name is known. The caches are bounded, and
emptied when full: a hostile peer costs time but no memory. Knows nothing of first lines and bodies (`heads`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias, TypeVar

from codingagents.proxies.errors import Refusal

MAX_CACHED = 512  # entries of one cache
MAX_CACHED_KEY = 512  # bytes; together at most a quarter megabyte per cache

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_FIELD = re.compile(rb"(" + TOKEN + rb"):([\t -~\x80-\xff]*)")
_DIGITS = re.compile(rb"[0-9]{1,15}")
_TIMEOUT = re.compile(rb"(?:^|[ ,])timeout=([0-9]{1,6})(?:$|[ ,])")

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
_FIRST_PASSED_ON: Final = MCP_METHOD

Meaning: TypeAlias = tuple[int, bytes] | None  # (kind, value), or None where the line is passed on unlooked

LENGTH_NAME = b"Content-Length: "
_HOP_BY_HOP = frozenset({b"keep-alive", b"te", b"trailer", b"upgrade", b"http2-settings"})  # and proxy-*
_PERSISTENCE = frozenset({b"", b"close", b"keep-alive"})  # what a Connection header may name besides headers
_NO_NAMES: frozenset[bytes] = frozenset()
_AS_IT_IS = frozenset({AUTHORIZATION, LOCATION, MCP_METHOD, MCP_NAME})  # values that are not compared in lower case

_T = TypeVar("_T")


class Cache(dict[bytes, _T]):
    """bytes -> what `read` makes of them, remembered; what it raises for is not."""

    def __init__(self, read: Callable[[bytes], _T], size: int = MAX_CACHED) -> None:
        """Start empty, and hold `size` entries at most."""
        super().__init__()
        self._read = read
        self._size = size

    def __missing__(self, key: bytes) -> _T:
        """Read `key`, and remember what was found."""
        found = self._read(key)
        if len(key) <= MAX_CACHED_KEY:
            if len(self) >= self._size:
                self.clear()
            self[key] = found
        return found


class Fields:
    """Reads the header lines of one direction."""

    def __init__(
        self, code: str, kinds: Mapping[bytes, int], dropped: Callable[[bytes], bool], twice: Mapping[int, str]
    ) -> None:
        """Refuse malformed lines for `code`.

        `kinds` has what is looked at, by lower-case name, `dropped` says of other names whether they end here, and
        `twice` has the kinds that may stand once only, and the code of the refusal.
        """
        self._code = code
        self._kinds = kinds
        self._dropped = dropped
        self._twice = twice
        self._names = Cache(self._kind)
        self.meanings = Cache(self._meaning)

    def sort(self, lines: list[bytes]) -> tuple[list[bytes], dict[int, bytes]]:
        """Return (lines to pass on, {kind: value} of those looked at), or raise `Refusal`."""
        kept: list[bytes] = []
        known: dict[int, bytes] = {}
        meanings = self.meanings
        for line in lines:
            meaning = meanings[line]
            if meaning is None:
                kept.append(line)
                continue
            kind, value = meaning
            if kind == DROP:
                continue
            if kind >= _FIRST_PASSED_ON:
                kept.append(line)
            if kind in known:
                if kind in self._twice:
                    raise Refusal(self._twice[kind])
                value = known[kind] + b"," + value
            known[kind] = value
        return kept, known

    def _kind(self, name: bytes) -> int:
        """Return the kind of lines of this `name`, which is a token in whatever case it came."""
        name = name.lower()
        if name in self._kinds:
            return self._kinds[name]
        return DROP if name in _HOP_BY_HOP or name.startswith(b"proxy-") or self._dropped(name) else PASS

    def _meaning(self, line: bytes) -> Meaning:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise Refusal(self._code)
        kind = self._names[match[1]]
        if kind == PASS:
            return None
        return (DROP, b"") if kind == DROP else self._looked_at(kind, match[2].strip(b" \t"))

    def _looked_at(self, kind: int, value: bytes) -> Meaning:
        """Return the meaning of a line that is looked at, its value in the one spelling that is looked for."""
        if kind not in _AS_IT_IS:
            value = value.lower()
        if kind == LENGTH:
            if not _DIGITS.fullmatch(value):
                raise Refusal(self._code if self._code == "bad_response" else "bad_framing")
            value = LENGTH_NAME + b"%d" % int(value)
        elif kind == KEEP_ALIVE:
            hint = _TIMEOUT.search(value)
            return (kind, hint[1]) if hint else (DROP, b"")
        elif kind == EVENT_STREAM:
            return (kind, value) if value.split(b";")[0].rstrip(b" \t") == b"text/event-stream" else None
        elif kind == ENCODED:
            return (kind, value) if value not in (b"", b"identity") else None
        return kind, value


def connection(value: bytes) -> tuple[bool, frozenset[bytes]]:
    """Return (close, header names to leave out) of a Connection header's value in lower case."""
    if value == b"keep-alive":
        return False, _NO_NAMES
    options = frozenset(option.strip(b" \t") for option in value.split(b","))
    return b"close" in options, options - _PERSISTENCE


def without(lines: list[bytes], names: frozenset[bytes]) -> list[bytes]:
    """Return `lines` but those of the lower-case `names`."""
    return [line for line in lines if line.split(b":", 1)[0].lower() not in names]
