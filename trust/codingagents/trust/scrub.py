"""CORE: takes a session's secret values out of untrusted bytes before they are recorded, and caps what is left.

It guards against accidents (a token on a command line ends up in the log), not against someone who encodes a secret
in a way of their own. Time is linear in the input for each secret; megabytes take tens of milliseconds, so a loop
that must not stall scrubs them elsewhere. No I/O.
"""

from __future__ import annotations

import base64
import hashlib
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from codingagents.trust.events import escape_bytes
from codingagents.trust.vocabulary import Secret

MAX_ARG = 512  # bytes of one argument that are recorded
MAX_ARGS = 64
MAX_ARGV = 8 * 1024  # bytes of all arguments that are recorded

# Shorter values stand in too many innocent places: marking them would wreck the record and show where they are not.
_MIN_LENGTH = 4
_MIN_BASE64 = 6  # characters of a base64 fragment; shorter ones, of 4-byte values, turn up by chance


class ScrubbedArgv(msgspec.Struct, frozen=True, kw_only=True):
    """An argv as it may be recorded."""

    args: list[str]  # scrubbed, capped, `escape_bytes` text
    total_bytes: int  # of the NUL-joined argv before scrubbing; 0 where it was not read to its end
    sha256: str  # of the NUL-joined argv after scrubbing, before capping
    truncated: bool  # something is missing from `args`


class Scrubber:
    """Replaces each occurrence of a secret (raw, URL-quoted or in base64) by `[secret NAME]`.

    A value under 4 bytes is replaced only where it stands alone, between characters that are no letters or digits.
    """

    def __init__(self, secrets: Mapping[str, Secret]) -> None:
        """Take the session's secrets by name."""
        self._forms: list[tuple[bytes, str]] = []
        self._values: list[bytes] = []  # the forms alone
        self._short: list[tuple[re.Pattern[bytes], str]] = []
        self.learn(secrets)

    def learn(self, secrets: Mapping[str, Secret]) -> None:
        """Take more secrets, or new values of the same; what was a secret stays one. Also while others scrub."""
        forms, short = list(self._forms), list(self._short)
        for name, secret in secrets.items():
            value = secret.reveal().encode("utf-8", "surrogateescape")
            if len(value) < _MIN_LENGTH:
                alone = rb"(?<![A-Za-z0-9])" + re.escape(value) + rb"(?![A-Za-z0-9])"
                short.append((re.compile(alone), name))
            else:
                forms += [(form, name) for form in _forms(value)]
        # The values last: who scrubs meanwhile may look for what is no form yet, but misses none that was.
        self._forms, self._short, self._values = forms, short, [form for form, _ in forms]

    def scrub_bytes(self, raw: bytes, *, truncated: bool = False) -> bytes:
        """Return `raw` with every secret replaced; occurrences that overlap become one mark with all names.

        `truncated` says that `raw` is the beginning of something: then its end counts as a secret where it is the
        beginning of one.
        """
        spans = sorted([*self._find(raw), *(self._find_cut(raw) if truncated else ())])
        if not spans:
            return raw
        out, copied, index = bytearray(), 0, 0
        while index < len(spans):
            start, end, name = spans[index]
            names = [name]
            index += 1
            while index < len(spans) and spans[index][0] < end:
                end = max(end, spans[index][1])
                if spans[index][2] not in names:
                    names.append(spans[index][2])
                index += 1
            out += raw[copied:start] + f"[secret {','.join(names)}]".encode()
            copied = end
        return bytes(out + raw[copied:])

    def scrub_text(self, text: str) -> str:
        """Return `text`, which may be `escape_bytes` text, with every secret replaced."""
        return self.scrub_bytes(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")

    def scrub_argv(self, argv: Sequence[bytes], *, truncated: bool = False) -> ScrubbedArgv:
        """Return `argv` scrubbed, hashed and capped, in this order; `truncated` as in `scrub_bytes`.

        The cap comes last, so that a secret which straddles it leaves no beginning. The hash is of the scrubbed
        bytes: a hash of what was read would let anyone who sees the log test guesses of a weak secret.
        """
        joined = b"\0".join(argv)
        scrubbed = self.scrub_bytes(joined, truncated=truncated)
        whole = scrubbed.split(b"\0", MAX_ARGS) if argv else []
        args, left = [], MAX_ARGV
        for arg in whole[:MAX_ARGS]:
            kept = arg[: min(MAX_ARG, left)]
            args.append(escape_bytes(kept))
            left -= len(kept)
        return ScrubbedArgv(
            args=args,
            total_bytes=0 if truncated else len(joined),
            sha256=hashlib.sha256(scrubbed).hexdigest(),
            truncated=truncated or len(whole) > MAX_ARGS or MAX_ARGV - left < sum(map(len, whole)),
        )

    def _find(self, raw: bytes) -> Iterator[tuple[int, int, str]]:
        for form, name in self._forms if any(map(raw.__contains__, self._values)) else ():  # nearly always none
            # One byte further each time: a value that repeats itself may overlap itself.
            start = raw.find(form)
            while start >= 0:
                yield start, start + len(form), name
                start = raw.find(form, start + 1)
        for pattern, name in self._short:
            for match in pattern.finditer(raw):
                yield match.start(), match.end(), name

    def _find_cut(self, raw: bytes) -> Iterator[tuple[int, int, str]]:
        for form, name in self._forms:
            start = raw.find(form[:1], max(0, len(raw) - len(form) + 1))
            while start >= 0:
                if form.startswith(raw[start:]):
                    yield start, len(raw), name
                    break
                start = raw.find(form[:1], start + 1)


def _forms(value: bytes) -> set[bytes]:
    """Return the spellings under which `value` is looked for; each determined by the value alone."""
    forms = {value, escape_bytes(value).encode()}
    for quoted in (urllib.parse.quote(value, safe=""), urllib.parse.quote(value), urllib.parse.quote_plus(value)):
        forms.add(quoted.encode())
        forms.add(re.sub("%[0-9A-F]{2}", lambda hexed: hexed[0].lower(), quoted).encode())
    # Base64 of a text that holds the value at each of the three alignments, without the characters it shares.
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + value)
        fragment = encoded[-(-shift * 8 // 6) : (shift + len(value)) * 8 // 6]
        if len(fragment) >= _MIN_BASE64:
            forms |= {fragment, fragment.translate(bytes.maketrans(b"+/", b"-_"))}
    return forms
