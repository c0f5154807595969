"""CORE: overrides: CAs that `coding-agents trust add` put beside a trust store, each for the hosts that it names.

What one is, its TOML form, and which hosts lie in its scope. Does not know where overrides are kept (`override_store`),
nor whether a certificate deserves one (the command asks a person). No I/O, no clock.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

import tomli_w

from codingagents.rewrite.addresses import is_ip, is_public_suffix, parse_host
from codingagents.rewrite.specs import OverrideSpec
from codingagents.rewrite.tables import Table
from codingagents.trust.errors import ConfigError, UsageError
from codingagents.trust.pins import parse_pin

EVERYWHERE = "*"
MAX_SCOPE = 64  # hosts of one override

# Also a file's name: no dot, so that NAME.toml and NAME.pem say which NAME.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_DIGESTS = ("pem_sha256", "sha256", "spki")
_KEYS = (*_DIGESTS, "subject", "issuer", "not_after", "scope", "added", "source", "override_pins")
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One override. Its certificates are kept beside it; these facts are of the top one."""

    name: str
    sha256: str  # of the DER, 64 hexadecimal digits
    spki: str  # `sha256/<base64>`
    subject: str  # RFC 4514, as the certificate says it
    issuer: str
    not_after: datetime.datetime  # UTC; the first of all its certificates to end
    scope: tuple[str, ...]  # hosts, see `in_scope`
    added: datetime.datetime  # UTC
    source: str  # the file or URL that it came from
    override_pins: bool = False  # a path that ends here needs no pin, and gets no credential for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """The trust anchors of one server, put together: one snapshot."""

    pem: str  # each certificate once: the store's, then the overrides'
    overrides: tuple[OverrideSpec, ...] = ()
    warnings: tuple[str, ...] = ()


def parse_name(text: str) -> str:
    """Return `text` as an override's name, or raise `UsageError`."""
    if not _NAME.fullmatch(text):
        raise UsageError("an override's name must be 1 to 64 of A-Z a-z 0-9 _ - and start with a letter or digit")
    return text


def parse_scope(text: str) -> str:
    """Return one host of a scope in lower case: a name, an IP address, `*.` and a name, or `*`; else `UsageError`."""
    wildcard = text.startswith("*.")
    try:
        if text == EVERYWHERE:
            return text
        host = parse_host(text.removeprefix("*."))
        if wildcard and is_ip(host):
            raise ValueError
    except ValueError:
        raise UsageError("--scope must be a host name, an IP address, *.DOMAIN, or * for every host") from None
    return f"*.{host}" if wildcard else host


def in_scope(override: Override, host: str) -> bool:
    """Return whether `host` lies in the scope.

    A name or address covers itself. `*.example.com` covers whatever stands left of it, in one label or more, and not
    `example.com`. `*` covers every host.
    """
    host = host.lower()
    return any(
        each in (EVERYWHERE, host) or (each.startswith("*.") and host.endswith(each[1:]) and not is_ip(host))
        for each in override.scope
    )


def is_wide(override: Override) -> bool:
    """Return whether the scope has hosts of more than one owner: every host, or all below a public suffix."""
    return any(
        each == EVERYWHERE or (each.startswith("*.") and is_public_suffix(each.removeprefix("*.")))
        for each in override.scope
    )


def to_toml(override: Override, pem_sha256: str) -> str:
    """Return the file that stands for `override`; `pem_sha256` is of the file with its certificates."""
    return tomli_w.dumps(
        {
            "pem_sha256": pem_sha256,
            "sha256": override.sha256,
            "spki": override.spki,
            "subject": override.subject,
            "issuer": override.issuer,
            "not_after": override.not_after,
            "scope": list(override.scope),
            "added": override.added,
            "source": override.source,
            "override_pins": override.override_pins,
        }
    )


def from_toml(table: Table, name: str) -> tuple[Override, str]:
    """Return the override that `table`, a whole file, stands for, and the SHA-256 of its certificates' file.

    Raises `ConfigError` that names the file.
    """
    table.only(_KEYS)
    scope = table.texts("scope")
    try:
        scope = tuple(map(parse_scope, scope))
        spki = parse_pin(_needed(table, "spki")).digest
    except (UsageError, ConfigError):
        raise table.error("scope and spki must be as `coding-agents trust add` writes them") from None
    if not 1 <= len(scope) <= MAX_SCOPE:
        raise table.error(f"scope must list 1 to {MAX_SCOPE} hosts")
    override = Override(
        name=name,
        sha256=_digest(table, "sha256"),
        spki=spki,
        subject=_words(table, "subject"),
        issuer=_words(table, "issuer"),
        not_after=_time(table, "not_after"),
        scope=scope,
        added=_time(table, "added"),
        source=_words(table, "source"),
        override_pins=table.flag("override_pins", default=False),
    )
    return override, _digest(table, "pem_sha256")


def _needed(table: Table, key: str) -> str:
    text = table.text(key)
    if text is None:
        raise table.error(f"{key} is missing")
    return text


def _words(table: Table, key: str) -> str:
    value = table.values.get(key)  # not `Table.text`: a certificate may say anything, and nothing
    if not isinstance(value, str):
        raise table.error(f"{key} must be a string")
    return value


def _digest(table: Table, key: str) -> str:
    text = _needed(table, key)
    if not _SHA256.fullmatch(text):
        raise table.error(f"{key} must be 64 hexadecimal digits")
    return text


def _time(table: Table, key: str) -> datetime.datetime:
    value = table.values.get(key)
    if not isinstance(value, datetime.datetime) or value.tzinfo is None:
        raise table.error(f"{key} must be a time with a time zone")
    return value.astimezone(datetime.UTC)
