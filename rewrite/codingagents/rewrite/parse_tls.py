"""CORE: `[mcp_servers.NAME.tls]` and its pins, from TOML to `TlsSpec`; the load-time rules of pinning are errors here.

Dates are only read: whether pins are past is decided by `check.check_expiry`, which is told the day. No I/O.
"""

from __future__ import annotations

import pathlib
from typing import get_args

from codingagents.rewrite.addresses import is_ip, parse_host
from codingagents.rewrite.config import AnchorSource
from codingagents.rewrite.specs import PinSpec, TlsSpec
from codingagents.rewrite.tables import Table
from codingagents.trust.errors import ConfigError
from codingagents.trust.pins import parse_pin
from codingagents.trust.vocabulary import MinVersion, PinMode, PinPosition, SecretName, Store, parse_secret_name

# Debian's and Ubuntu's bundle. A fixed path: SSL_CERT_FILE and its like never decide whom a helper trusts.
HOST_STORE = "/etc/ssl/certs/ca-certificates.crt"

_STORES: tuple[Store, ...] = get_args(Store)
_PIN_MODES: tuple[PinMode, ...] = get_args(PinMode)
_POSITIONS: tuple[PinPosition, ...] = get_args(PinPosition)
_MIN_VERSIONS: tuple[MinVersion, ...] = get_args(MinVersion)


def parse_tls(table: Table, *, host: str, warnings: list[str]) -> tuple[TlsSpec, AnchorSource]:
    """Return how `host` is to be trusted, without its anchors, and where these come from.

    Appends to `warnings` what is allowed and doubtful. Raises `ConfigError`.
    """
    table.only(("ca", "ca_file", "ca_overrides", "server_name", "min_version", "client_cert", "client_key", "pins"))
    server_name = table.text("server_name")
    if server_name is None and is_ip(host):
        raise table.error("server_name is missing; a URL with an IP address must say which name the certificate has")
    try:
        server_name = parse_host(server_name or host)
    except ValueError as error:
        raise table.error(f"server_name {error}") from None
    anchors = _anchors(table, server_name)
    pins = table.table("pins")
    pins.only(("mode", "expires", "pin", "credential_without_pin"))
    default: PinMode = "enforce" if "pins" in table.values else "off"
    mode = pins.choice("mode", _PIN_MODES, default)
    parsed = _pins(pins)
    expires = pins.date("expires")
    if mode != "off":
        _check_pin_set(pins, parsed)
        if expires is None:
            raise pins.error("expires is missing; set a date at most 400 days ahead, for example in half a year")
        if all(pin.at == "leaf" for pin in parsed):
            warnings.append(
                pins.sentence(
                    "pins only leaf keys, which change with each renewal; pin an intermediate or root as backup"
                )
            )
    if mode == "report":
        warnings.append(pins.sentence('mode = "report" only reports a pin mismatch; nothing is refused'))
    if anchors.store == "pinned-only" and mode != "enforce":
        raise table.error('ca = "pinned-only" needs pins with mode = "enforce"')
    spec = TlsSpec(
        server_name=server_name,
        anchors_pem="",
        store=anchors.store,
        min_version=table.choice("min_version", _MIN_VERSIONS, "1.2"),
        pin_mode=mode,
        pins=parsed,
        pins_expire=None if expires is None else expires.isoformat(),
        credential_without_pin=pins.flag("credential_without_pin", default=False),
    )
    return spec, anchors


def parse_client_certificate(table: Table) -> tuple[SecretName | None, SecretName | None]:
    """Return the secrets of `client_cert` and `client_key`: both or neither, each written `secret:NAME`."""
    names: list[SecretName | None] = []
    for key in ("client_cert", "client_key"):
        text = table.text(key)
        try:
            if text is not None and not text.startswith("secret:"):
                raise ValueError
            names.append(None if text is None else parse_secret_name(text.removeprefix("secret:")))
        except (ValueError, ConfigError):
            raise table.error(f'{key} must be "secret:NAME"') from None
    if (names[0] is None) != (names[1] is None):
        raise table.error("client_cert and client_key belong together; set both or neither")
    return names[0], names[1]


def _anchors(table: Table, server_name: str) -> AnchorSource:
    store = table.choice("ca", _STORES, "host")
    ca_file = table.text("ca_file")
    if store == "custom" and ca_file is None:
        raise table.error('ca = "custom" needs ca_file, a PEM file')
    if ca_file is not None and store not in ("custom", "pinned-only"):
        raise table.error('ca_file needs ca = "custom" or "pinned-only"')
    # Relative to the config file, wherever the command runs.
    path = HOST_STORE if ca_file is None else str(pathlib.PurePosixPath(table.file).parent / ca_file)
    return AnchorSource(
        store=store,
        path=None if store == "certifi" else path,
        server_name=server_name,
        overrides=table.texts("ca_overrides"),
    )


def _pins(table: Table) -> list[PinSpec]:
    pins = []
    for entry in table.tables("pin"):
        entry.only(("spki", "at", "backup", "note"))
        text = entry.text("spki")
        if text is None:
            raise entry.error("spki is missing")
        try:
            spki = parse_pin(text).digest
        except ConfigError:
            raise entry.error("spki must be sha256/<base64> of 32 bytes; no other hash is accepted") from None
        pins.append(
            PinSpec(
                spki=spki,
                at=entry.choice("at", _POSITIONS, "any"),
                backup=entry.flag("backup", default=False),
                note=entry.text("note") or "",
            )
        )
    return pins


def _check_pin_set(table: Table, pins: list[PinSpec]) -> None:
    if len({pin.spki for pin in pins}) < 2:
        raise table.error("pin must list at least two different keys, one of them a backup that is not in use yet")
    if not any(pin.backup for pin in pins):
        raise table.error("pin has no entry with backup = true; add the key you would change to")
