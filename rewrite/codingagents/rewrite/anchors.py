"""SHELL: trust anchors: the stores that a configuration names, read on the host and handed to helpers as text.

One snapshot a server: its store and its overrides, each certificate once. Where a store lies comes from the
configuration (fixed paths, or a `ca_file`), never from the environment: SSL_CERT_FILE and its like do not count. A
session's own authority is left out wherever it turns up. Does not decide which store a server uses, nor verify a peer.
"""

from __future__ import annotations

import datetime
import hashlib
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

import certifi

from codingagents.rewrite import places
from codingagents.rewrite.certificates import parse_certificates, to_pem
from codingagents.rewrite.config import AnchorSource
from codingagents.rewrite.override_store import OverrideStore, StoredOverride
from codingagents.rewrite.overrides import Anchors, Override, in_scope
from codingagents.rewrite.private_files import read_plain
from codingagents.rewrite.specs import OverrideSpec
from codingagents.rewrite.tables import Table, quoted
from codingagents.trust.der import self_issued
from codingagents.trust.errors import NotFoundError, TrustError

MAX_STORE = 4 * 1024 * 1024  # bytes; Debian's whole bundle is about 220 kB
WARN_DAYS = 30


def read_anchors(sources: Mapping[str, AnchorSource], file: str, store: OverrideStore) -> dict[str, Anchors]:
    """Return each server's anchors; `file` is the configuration that names the stores.

    Raises `ConfigError` or `TrustError` that names the store or the override, and `NotFoundError` for an override that
    there is not. The overrides' store is not touched where no server names one.
    """
    now = datetime.datetime.now(datetime.UTC)
    stores: dict[Path, list[bytes]] = {}
    result: dict[str, Anchors] = {}
    for server, source in sources.items():
        table = Table({}, file, f"mcp_servers.{server}.tls")
        path = Path(source.path or certifi.where())
        if path not in stores:
            stores[path] = _store(path, source, table)
        overrides = [_override(name, source, store, table, now) for name in source.overrides]
        result[server] = _join(stores[path], overrides, table, now)
    return result


def certificates(content: bytes, file: str) -> list[bytes]:
    """Return the certificates of a store's file, each once, in order, as OpenSSL can use them; `TrustError`."""
    found = parse_certificates(content, file)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=b"".join(found))
    except ssl.SSLError as error:
        raise TrustError(f"{file}: a certificate cannot be parsed ({error.reason or 'unknown format'})") from None
    return found


def is_session_authority(certificate: bytes) -> bool:
    """Return whether a DER certificate, by its names, is one that a session made for its own listeners."""
    return places.SESSION_AUTHORITY.encode() in certificate


def _store(path: Path, source: AnchorSource, table: Table) -> list[bytes]:
    try:
        return certificates(read_plain(path, limit=MAX_STORE), str(path))
    except FileNotFoundError:
        if source.store == "host":
            remedy = 'which does not exist; install the package ca-certificates or use ca = "certifi"'
            raise table.error(f"ca is the host's trust store {path}, {remedy}") from None
        raise table.error(f"ca_file is {path}, which does not exist") from None


def _override(
    name: str, source: AnchorSource, store: OverrideStore, table: Table, now: datetime.datetime
) -> StoredOverride:
    try:
        found = store.get(name)
    except NotFoundError as error:
        raise NotFoundError(table.sentence(f"ca_overrides: {error}")) from None
    override = found.override
    if not in_scope(override, source.server_name):
        raise table.error(
            f"ca_overrides: {quoted(name)} is for {', '.join(override.scope)} and not for {source.server_name}; "
            f"add it again with --replace and --scope {source.server_name}, or remove it here"
        )
    if override.not_after <= now:
        raise table.error(
            f"ca_overrides: {quoted(name)} has expired on {override.not_after:%Y-%m-%d}; "
            "get the CA's new certificate and add it with --replace"
        )
    return found


def _join(base: list[bytes], overrides: list[StoredOverride], table: Table, now: datetime.datetime) -> Anchors:
    everything = dict.fromkeys([*base, *(each for found in overrides for each in found.certificates)])
    kept = [each for each in everything if not is_session_authority(each)]
    warnings = [sentence for found in overrides for sentence in _warnings(found.override, table, now)]
    if len(kept) < len(everything):
        warnings.append(table.sentence("a session's own authority is in its trust store, and was left out"))
    return Anchors(
        pem=to_pem(kept),
        overrides=tuple(
            OverrideSpec(
                name=found.override.name,
                # What the store has anyway is the store's; a bypass of pins is named wherever it is one.
                anchors=[
                    hashlib.sha256(each).hexdigest()
                    for each in found.certificates
                    if found.override.override_pins or each not in base
                ],
                override_pins=found.override.override_pins,
                roots=[hashlib.sha256(each).hexdigest() for each in found.certificates if self_issued(each)],
            )
            for found in overrides
        ),
        warnings=tuple(warnings),
    )


def _warnings(override: Override, table: Table, now: datetime.datetime) -> Iterator[str]:
    if override.override_pins:
        yield table.sentence(
            f"ca_overrides: {quoted(override.name)} overrides pins: a path below it needs none, and gets no credential"
        )
    days = (override.not_after - now).days
    if days <= WARN_DAYS:
        yield table.sentence(f"ca_overrides: {quoted(override.name)} expires in {days} day{'' if days == 1 else 's'}")
