"""CORE: `[mcp_servers.NAME.tls.pins]`, from TOML to `Pins`: whatever makes a set of pins unfit is an error here.

Dates are only read: whether pins are past is decided by `check.check_expiry`, which is told the day. Whether an anchor
fits the pins is decided by `check.check_trust`, which is given the anchors. No I/O.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from codingagents.rewrite.addresses import is_ip, is_public_suffix, parse_host
from codingagents.rewrite.specs import PinSpec
from codingagents.rewrite.tables import Table
from codingagents.trust.errors import ConfigError
from codingagents.trust.pins import Pin, parse_fingerprint, parse_pin
from codingagents.trust.vocabulary import PinMode, PinPosition

_KEYS = ("mode", "expires", "pin", "credential_without_pin", "host", "include_subdomains")
_PIN_MODES: tuple[PinMode, ...] = get_args(PinMode)
_POSITIONS: tuple[PinPosition, ...] = get_args(PinPosition)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """A set of pins, fit for its mode."""

    mode: PinMode
    pins: list[PinSpec]
    expires: datetime.date | None
    credential_without_pin: bool


def parse_pins(tls: Table, server_name: str, warnings: list[str]) -> Pins:
    """Return the pins below `tls` for the server of that name; append to `warnings` what is allowed and doubtful."""
    table = tls.table("pins")
    table.only(_KEYS)
    default: PinMode = "enforce" if "pins" in tls.values else "off"
    mode = table.choice("mode", _PIN_MODES, default)
    pins = [_pin(entry) for entry in table.tables("pin")]
    expires = table.date("expires")
    _check_host(table, server_name)
    if mode != "off":
        _check_set(table, pins)
        if expires is None:
            raise table.error("expires is missing; set a date at most 400 days ahead, for example in half a year")
        if all(pin.at == "leaf" for pin in pins):
            warnings.append(
                table.sentence(
                    "pins only leaf keys, which change with each renewal; pin an intermediate or root as backup"
                )
            )
    if mode == "report":
        warnings.append(table.sentence('mode = "report" only reports a pin mismatch; nothing is refused'))
    return Pins(
        mode=mode,
        pins=pins,
        expires=expires,
        credential_without_pin=table.flag("credential_without_pin", default=False),
    )


def _pin(table: Table) -> PinSpec:
    table.only(("spki", "cert_sha256", "at", "backup", "note"))
    if ("spki" in table.values) == ("cert_sha256" in table.values):
        raise table.error("must have either spki (of a key) or cert_sha256 (of a certificate)")
    spki = _digest(table, "spki", parse_pin, "must be sha256/<base64> of 32 bytes; no other hash is accepted")
    certificate = _digest(
        table,
        "cert_sha256",
        parse_fingerprint,
        "must be the SHA-256 of a certificate, 64 hexadecimal digits with or without colons",
    )
    return PinSpec(
        spki=spki,
        cert_sha256=certificate,
        at=table.choice("at", _POSITIONS, "any"),
        backup=table.flag("backup", default=False),
        note=table.text("note") or "",
    )


def _digest(table: Table, key: str, parse: Callable[[str], Pin], must: str) -> str:
    text = table.text(key)
    try:
        return "" if text is None else parse(text).digest
    except ConfigError:
        raise table.error(f"{key} {must}") from None


def _check_set(table: Table, pins: list[PinSpec]) -> None:
    if len({(pin.spki, pin.cert_sha256) for pin in pins}) < 2:
        raise table.error("pin must list at least two different keys, one of them a backup that is not in use yet")
    if not any(pin.backup for pin in pins):
        raise table.error("pin has no entry with backup = true; add the key you would change to")


def _check_host(table: Table, server_name: str) -> None:
    """Refuse pins that were made for another server than `server_name`: pinned by mistake is not pinned."""
    below = table.flag("include_subdomains", default=False)
    try:
        host = parse_host(table.text("host") or server_name)
    except ValueError as error:
        raise table.error(f"host {error}") from None
    if below and (is_ip(host) or is_public_suffix(host)):
        raise table.error(
            "include_subdomains needs a host of one owner; below a public suffix (com, co.uk, github.io) anybody can "
            "have a name, and an IP address has none"
        )
    if server_name != host and not (below and server_name.endswith(f".{host}")):
        raise table.error(
            "host is not the name that the server is verified by (server_name, or the URL's host), so the pins are "
            "another server's; correct it, or set include_subdomains = true if the server lies below it"
        )
