"""CORE: request targets and the references that lead to them: what a server may send a client, or us, to.

RFC 3986 and RFC 9112 3.2. Nothing here knows whether a target is on the helper's route (`gate`), or what happens to one
that is refused.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import NamedTuple

from codingagents.rewrite.specs import RemoteSpec

_DECODINGS = 3  # times a path may be percent-encoded and still be understood
_DEFAULT_PORTS = {"https": 443, "http": 80}
# With scheme and authority, with authority, or neither. No backslash, which browsers read as a slash, no third slash,
# which they overlook, and no "https:path"; nothing that a parser could strip or that ends a line.
_REFERENCE = re.compile(rb"(?i:(?:https?:)?//(?!/)|(?![a-z][a-z0-9+.\-]*:|//))[!-\[\]-~]+")


class Origin(NamedTuple):
    """Of the upstream: scheme, host and port, RFC 6454."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """What the upstream is sent as Host, RFC 9110 7.2: without a port that is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def resolve(self, base: bytes, reference: bytes) -> bytes | None:
        """Return the target that `reference` leads to from the target `base`, or None where it leads elsewhere.

        None is for another origin, for user information, and for what two parsers could read in two ways.
        """
        if not _REFERENCE.fullmatch(reference):
            return None
        try:
            url = urllib.parse.urlsplit(
                urllib.parse.urljoin(
                    f"{self.scheme}://{self.authority}{base.decode('ascii')}", reference.decode("ascii")
                )
            )
            origin = Origin(url.scheme, url.hostname or "", url.port or _DEFAULT_PORTS.get(url.scheme, 0))
        except ValueError:
            return None
        if origin != (self.scheme, self.host.lower(), self.port) or "@" in url.netloc:
            return None
        path = (url.path or "/").encode("ascii")
        if path.startswith(b"//") or is_well_known(path) or climbs(path):
            return None
        return path + b"?" + url.query.encode("ascii") if url.query else path


def origin_of(remote: RemoteSpec) -> Origin:
    """Return the origin of the upstream."""
    return Origin(remote.scheme, remote.host, remote.port)


def climbs(path: bytes) -> bool:
    """Say whether some server could read a `.` or `..` segment in `path`, however it is encoded."""
    for _ in range(_DECODINGS):
        segments = path.replace(b"\\", b"/").split(b"/")
        if any(segment.split(b";", 1)[0] in (b".", b"..") for segment in segments):
            return True
        decoded = urllib.parse.unquote_to_bytes(path)
        if decoded == path:
            return False
        path = decoded
    return True


def is_well_known(path: bytes) -> bool:
    """Say whether some server could read `path` as one of `/.well-known/` (RFC 8615), however it is encoded."""
    for _ in range(_DECODINGS):
        path = urllib.parse.unquote_to_bytes(path).replace(b"\\", b"/")
    return path.lstrip(b"/").split(b"/", 1)[0].split(b";", 1)[0].lower() == b".well-known"
