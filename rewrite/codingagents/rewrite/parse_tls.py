"""CORE: `[mcp_servers.NAME.tls]`, from TOML to `TlsSpec`; its pins are read by `parse_pins`. No I/O."""

from __future__ import annotations

import pathlib
from typing import get_args

from codingagents.rewrite.addresses import is_ip, parse_host
from codingagents.rewrite.config import AnchorSource
from codingagents.rewrite.parse_pins import parse_pins
from codingagents.rewrite.specs import ClientCertificate, TlsSpec
from codingagents.rewrite.tables import Table
from codingagents.trust.errors import ConfigError
from codingagents.trust.vocabulary import MinVersion, Store, parse_secret_name

# Debian's and Ubuntu's bundle. A fixed path: SSL_CERT_FILE and its like never decide whom a helper trusts.
HOST_STORE = "/etc/ssl/certs/ca-certificates.crt"

_KEYS = (
    *("ca", "ca_file", "ca_overrides", "server_name", "min_version", "strict_x509"),
    *("client_cert", "client_key", "pins"),
)
_STORES: tuple[Store, ...] = get_args(Store)
_MIN_VERSIONS: tuple[MinVersion, ...] = get_args(MinVersion)


def parse_tls(table: Table, *, host: str, warnings: list[str]) -> tuple[TlsSpec, AnchorSource]:
    """Return how `host` is to be trusted, without its anchors, and where these come from.

    Appends to `warnings` what is allowed and doubtful. Raises `ConfigError`.
    """
    table.only(_KEYS)
    server_name = table.text("server_name")
    if server_name is None and is_ip(host):
        raise table.error("server_name is missing; a URL with an IP address must say which name the certificate has")
    try:
        server_name = parse_host(server_name or host)
    except ValueError as error:
        raise table.error(f"server_name {error}") from None
    anchors = _anchors(table, server_name)
    pins = parse_pins(table, server_name, warnings)
    if anchors.store == "pinned-only" and pins.mode != "enforce":
        raise table.error('ca = "pinned-only" needs pins with mode = "enforce"')
    if pins.mode == "report" and anchors.store == "host":
        warnings.append(table.sentence("any CA of this machine can vouch for the server: its pins are not enforced"))
    spec = TlsSpec(
        server_name=server_name,
        anchors_pem="",
        store=anchors.store,
        min_version=table.choice("min_version", _MIN_VERSIONS, "1.2"),
        pin_mode=pins.mode,
        pins=pins.pins,
        pins_expire=None if pins.expires is None else pins.expires.isoformat(),
        credential_without_pin=pins.credential_without_pin,
        strict_x509=table.flag("strict_x509", default=False),
        client_certificate=_client_certificate(table),
    )
    return spec, anchors


def _client_certificate(table: Table) -> ClientCertificate | None:
    """Return the secrets of `client_cert` and `client_key`: both or neither, each written `secret:NAME`."""
    names: list[str | None] = []
    for key in ("client_cert", "client_key"):
        text = table.text(key)
        try:
            if text is not None and not text.startswith("secret:"):
                raise ValueError
            names.append(None if text is None else parse_secret_name(text.removeprefix("secret:")))
        except (ValueError, ConfigError):
            raise table.error(f'{key} must be "secret:NAME"') from None
    chain, private = names
    if (chain is None) != (private is None):
        raise table.error("client_cert and client_key belong together; set both or neither")
    return None if chain is None or private is None else ClientCertificate(chain=chain, key=private)


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
