"""SHELL: how somebody vouches for a certificate: its fingerprint on the command line, or digits of it that are typed.

Which certificate it is, and whether that is enough, is for the command. Prints no question.
"""

from __future__ import annotations

import re
import sys

from codingagents.trust.errors import UsageError

DIGITS = 16  # of a fingerprint, to be typed at least: nobody makes a certificate whose first 64 bits are these


def fingerprint_option(text: str | None) -> str | None:
    """Return 64 hexadecimal digits from how tools write a SHA-256: colons, capitals, `sha256:` and the like."""
    if text is None:
        return None
    digits = re.sub(r"^sha-?256( fingerprint)?[:=/ ]*", "", text.strip().lower()).replace(":", "").replace(" ", "")
    if not re.fullmatch(r"[0-9a-f]{64}", digits, re.ASCII):
        raise UsageError("--fingerprint must be the SHA-256 of the certificate: 64 hexadecimal digits")
    return digits


def somebody_is_there() -> bool:
    """Whether a person can read a question, and answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def typed_line() -> str:
    """Return what a person types at the terminal, in small letters, whatever bytes a terminal sends."""
    return sys.stdin.buffer.readline().decode("ascii", "replace").strip().lower()


def is_start_of(sha256: str, typed: str) -> bool:
    """Whether `typed` is at least the first `DIGITS` digits of a fingerprint; colons, spaces and capitals are free."""
    digits = re.sub(r"[:\s]", "", typed).lower()
    return len(digits) >= DIGITS and sha256.startswith(digits)
