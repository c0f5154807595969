"""CORE: what a person wants to know about a config.toml before a session: `coding-agents config check`.

No I/O, no clock: the day is an argument.
"""

from __future__ import annotations

import dataclasses
import datetime
import shlex

from codingagents.rewrite.config import CommandServer, Config, RemoteServer
from codingagents.rewrite.pin_rules import rules_of
from codingagents.rewrite.specs import TlsSpec
from codingagents.rewrite.tables import Table, quoted
from codingagents.trust.errors import TrustError
from codingagents.trust.pem import parse_pem

MAX_PIN_DAYS = 400
_WARN_DAYS = 30


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One server, for a table or for JSON: what it is, whom it trusts and what it is given. Names only, no values."""

    server: str
    kind: str  # remote | command
    enabled: bool
    target: str  # origin and path, or the command
    reached: str  # by what transport, and through which proxy; "" for a command
    listen: str  # what its helper listens on; "" for a command
    trust: str
    secrets: tuple[str, ...]
    client_auth: tuple[str, ...]


def rows_of(config: Config) -> tuple[Row, ...]:
    """Return one row a server, in the file's order, the switched-off ones included."""
    return tuple(_command(s) if isinstance(s, CommandServer) else _remote(s) for s in config.servers)


def check_expiry(config: Config, today: datetime.date) -> tuple[str, ...]:
    """Return a warning for each active server whose pins end within 30 days of `today`.

    Raises `ConfigError` for pins that are past (the server would be refused) or set for more than 400 days ahead.
    """
    warnings = []
    for server in config.remotes:
        tls = server.spec.tls
        if tls is None or tls.pins_expire is None or tls.pin_mode == "off":
            continue
        table = Table({}, config.file, f"mcp_servers.{server.name}.tls.pins")
        days = (datetime.date.fromisoformat(tls.pins_expire) - today).days
        remedy = "check that they are still the server's and set a new date"
        if days < 0:
            raise table.error(f"expires {tls.pins_expire} is past, so the server is refused; {remedy}")
        if days > MAX_PIN_DAYS:
            raise table.error(f"expires must be at most {MAX_PIN_DAYS} days ahead, not {days}")
        if days <= _WARN_DAYS:
            warnings.append(table.sentence(f"expires in {days} day{'' if days == 1 else 's'}; {remedy}"))
    return tuple(warnings)


def check_credential(server: RemoteServer, table: Table) -> None:
    """Raise `ConfigError`, which names `table`, where a credential would go to a server that no enforced pin guards."""
    if server.unpinned_credential:
        raise table.error(
            "sends a credential without enforced pins; write its pins with: coding-agents trust rotate "
            f"{server.name} --config {shlex.quote(table.file)} (or, without any: tls.pins = "
            '{ mode = "off", credential_without_pin = true })'
        )


def check_trust(tls: TlsSpec, table: Table) -> None:
    """Raise `ConfigError`, which names `table`, where pins and anchors, which `tls` holds now, cannot do their job."""
    rules = rules_of(tls)
    try:
        rules.narrow(parse_pem(tls.anchors_pem), pinned_only=tls.store == "pinned-only")
    except TrustError as error:
        raise table.error(str(error)) from None
    if tls.client_certificate is not None and rules.bypasses and not rules.may_show_certificate:
        raise table.error(
            f"client_cert would be shown without a pin below the override {quoted(min(rules.bypasses.values()))}; "
            "remove it from ca_overrides, or set pins.credential_without_pin = true"
        )


def _remote(server: RemoteServer) -> Row:
    spec = server.spec
    host = f"[{spec.host}]" if ":" in spec.host else spec.host
    default_port = spec.port == (443 if spec.scheme == "https" else 80)
    return Row(
        server=server.name,
        kind="remote",
        enabled=server.enabled,
        target=f"{spec.scheme}://{host}{'' if default_port else f':{spec.port}'}{spec.path}",
        reached=server.spec.transport + (f" via {spec.proxy}" if spec.proxy else ""),
        listen="stdio" if server.bridged else spec.listen,
        trust=_trust(server),
        secrets=tuple(sorted(server.secrets)),
        client_auth=tuple(spec.client_auth),
    )


def _trust(server: RemoteServer) -> str:
    tls = server.spec.tls
    if tls is None:
        return "plain text, loopback"
    overrides = server.anchors.overrides if server.anchors is not None else ()
    store = " + ".join((tls.store, *overrides))
    if tls.pin_mode == "off":
        return f"{store}, no pins"
    return f"{store}, {len(tls.pins)} pins ({tls.pin_mode}) until {tls.pins_expire}"


def _command(server: CommandServer) -> Row:
    return Row(
        server=server.name,
        kind="command",
        enabled=server.enabled,
        target=" ".join((server.command, *server.args)),
        reached="",
        listen="",
        trust=f"own UID, network {server.sandbox.network}",
        secrets=tuple(sorted(server.secrets)),
        client_auth=(),
    )
