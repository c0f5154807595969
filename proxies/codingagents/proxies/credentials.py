"""CORE: the header lines that a helper attaches to every request, filled from its secrets. No I/O.

Which names may be attached, and what a template may hold, was decided when config.toml was parsed (`rewrite.headers`);
what a *value* may hold can only be known here. The lines are secrets themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from codingagents.rewrite.placeholders import expand_header, names
from codingagents.rewrite.specs import HeaderTemplate
from codingagents.trust.vocabulary import Secret


class Attached(NamedTuple):
    """What is attached; lines have their CRLF."""

    plain: bytes  # headers that name no secret
    secret: bytes  # the credential: headers that name one
    description: str  # of the credential, by name only: "Authorization from GITHUB_TOKEN"; "" where there is none


def attach(headers: Sequence[HeaderTemplate], secrets: Mapping[str, Secret]) -> Attached:
    """Return the lines of `headers`; `ConfigError` naming the header or secret that is unfit, never a value."""
    plain = secret = b""
    described = []
    for header in headers:
        line = f"{header.name}: {expand_header(header.name, header.template, secrets)}\r\n".encode("ascii")
        if needed := sorted(names(header.template)):
            secret += line
            described.append(f"{header.name} from {' and '.join(needed)}")
        else:
            plain += line
    return Attached(plain, secret, ", ".join(described))
