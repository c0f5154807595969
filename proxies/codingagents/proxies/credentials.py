"""CORE: the header lines that a helper attaches to every request, filled from its secrets. No I/O.

Which names may be attached, and what a template may hold, was decided when config.toml was parsed (`rewrite.headers`);
what a *value* may hold can only be known here. The lines are secrets themselves. The values are the one thing of a
helper that changes while it serves, so they live in a holder that every relay reads once per request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from codingagents.rewrite.placeholders import expand_header, names
from codingagents.rewrite.specs import HeaderTemplate
from codingagents.trust.vocabulary import Secret


class Attached(NamedTuple):
    """What is attached, line by line."""

    plain: list[bytes]  # headers that name no secret
    secret: list[bytes]  # the credential: headers that name one
    description: str  # of the credential, by name only: "Authorization from GITHUB_TOKEN"; "" where there is none


def attach(headers: Sequence[HeaderTemplate], secrets: Mapping[str, Secret]) -> Attached:
    """Return the lines of `headers`; `ConfigError` naming the header or secret that is unfit, never a value."""
    plain, secret, described = [], [], []
    for header in headers:
        line = f"{header.name}: {expand_header(header.name, header.template, secrets)}".encode("ascii")
        if needed := sorted(names(header.template)):
            secret.append(line)
            described.append(f"{header.name} from {' and '.join(needed)}")
        else:
            plain.append(line)
    return Attached(plain, secret, ", ".join(described))


class Attachment:
    """What the requests of one helper get now; never half of the former and half of the new."""

    __slots__ = ("_headers", "_host", "always", "attached", "description")

    always: bytes  # Host and the headers that hold no secret, lines joined with CRLF
    attached: bytes  # the same and the credential's lines
    description: str  # which headers from which secrets, by name; "" where there is no credential

    def __init__(self, authority: str, headers: Sequence[HeaderTemplate], secrets: Mapping[str, Secret]) -> None:
        """Attach `headers` to requests for `authority`; raises `ConfigError` as `attach`."""
        self._host = f"Host: {authority}".encode("ascii")
        self._headers = tuple(headers)
        self.renew(secrets)

    def renew(self, secrets: Mapping[str, Secret]) -> None:
        """Attach new values from the next request on; `ConfigError` where they are unfit, and the former stay."""
        plain, secret, self.description = attach(self._headers, secrets)
        self.always = b"\r\n".join([self._host, *plain])
        self.attached = b"\r\n".join([self._host, *plain, *secret])
