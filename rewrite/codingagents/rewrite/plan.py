"""CORE: from a `Config` to a `SessionSpec`: everything that can be wrong is wrong here, before anything starts.

Reads no file and knows no clock: trust anchors, the day and the names of the secrets at hand are arguments. Nothing
here holds a secret's value.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from codingagents.rewrite.check import check_expiry, check_trust
from codingagents.rewrite.clients.codex import passed_through
from codingagents.rewrite.config import AnchorSource, CommandServer, Config, RemoteServer
from codingagents.rewrite.overrides import Anchors
from codingagents.rewrite.specs import RemoteSpec, SessionSpec, UidPlan
from codingagents.rewrite.tables import Table
from codingagents.trust.errors import ConfigError, UsageError
from codingagents.trust.vocabulary import SecretName, parse_session_id

Engine = Literal["local", "podman", "docker"]

# 65534 is nobody; above 2^31 tools disagree about the sign. Below 1000 are the system's own accounts.
_UID_LOW, _UID_HIGH = 1000, 2**31 - 2

_LAYERS_NOT_YET = ("agent_netns",)
# Why a layer cannot be switched off: a report that said "disabled" of it would be untrue, or the session worthless.
_NEVER_OFF = {
    "uid_drop": "the agent would be root",
    "no_new_privs": "Landlock and the exec trap need it",
    "pidns": "the engine decides it",
    "limits": "what must not be bounded is left out of [session] limits",
    "mountns": "a session takes it wherever it can",
    "run_dirs": "a session needs its directories",
    "proc_hidden": "a session takes it wherever it can",
    "engine_seccomp": "the engine decides it",
    "apparmor": "the engine decides it",
}


def uid_plan(base: int, server_names: Iterable[str]) -> UidPlan:
    """Return identities counted up from `base`: agent, task, workspace group, then the servers in order of name.

    `ConfigError` where the range would leave 1000 to 2^31-2 or meet 65534 (nobody).
    """
    ordered = sorted(set(server_names))
    end = base + 3 + len(ordered)
    if base < _UID_LOW or end > _UID_HIGH or base <= 65534 < end:
        raise ConfigError(
            f"the UID range {base} to {end - 1} must lie within {_UID_LOW} to {_UID_HIGH - 1} without 65534; "
            "choose another start"
        )
    return UidPlan(
        agent=base,
        task=base + 1,
        workspace_gid=base + 2,
        servers={name: base + 3 + index for index, name in enumerate(ordered)},
    )


def required_secrets(config: Config) -> frozenset[SecretName]:
    """Return the names of all secrets that the active servers need."""
    return frozenset().union(*(server.secrets for server in config.active))


def anchor_sources(config: Config) -> dict[str, AnchorSource]:
    """Return, for each active https server, which store to read and pass to `plan_session` as `anchors`."""
    return {server.name: server.anchors for server in config.remotes if server.anchors is not None}


def plan_session(
    config: Config,
    *,
    session: str,
    agent: str,
    engine: Engine,
    uids: UidPlan,
    secret_names_available: Collection[str],
    anchors: Mapping[str, Anchors],
    command: Sequence[str],
    working_directory: str,
    environment: Mapping[str, str],
    public_key: str,
    config_sha256: str,
    today: datetime.date,
    workspace_owner: tuple[int, int] | None = None,
) -> SessionSpec:
    """Return the whole session as the supervisor is told it.

    `anchors` maps the name of each https server to what `anchors.read_anchors` found; `workspace_owner` is the UID and
    GID that `working_directory` belongs to. Raises `ConfigError` for what is not available yet, for a secret that is
    not there, for pins past their date and for empty anchors; `UsageError` for an empty `command`.
    """
    for sentence in not_available(config):
        raise ConfigError(sentence)
    check_expiry(config, today)
    check_secrets(config, secret_names_available)
    for server in config.remotes:
        if server.name not in uids.servers:
            raise ValueError(f"the UID plan has no {server.name}")
    if not command or not working_directory.startswith("/"):
        raise UsageError("a session needs a command and an absolute working directory")
    return SessionSpec(
        session=parse_session_id(session),
        agent=agent,
        engine=engine,
        config_sha256=config_sha256,
        uids=uids,
        remotes=[with_anchors(config, server, anchors) for server in config.remotes],
        exec=config.exec,
        layers=dict(config.session.layers),
        limits=config.session.limits,
        task_limits=config.session.task_limits,
        task_totals=config.session.task_totals,
        workspace=config.session.workspace_mode,
        workspace_acl=config.session.workspace_acl,
        task_owner=_task_owner(config, workspace_owner),
        codex_toml=passed_through(config),
        command=list(command),
        working_directory=working_directory,
        environment=dict(environment),
        public_key=public_key,
    )


def _task_owner(config: Config, workspace_owner: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return as whom tasks work where they get no rights of their own; never root, who would be unconfined."""
    shared = config.session.workspace_acl or config.session.workspace_mode != "direct"
    return None if shared or workspace_owner is None or workspace_owner[0] == 0 else workspace_owner


def with_anchors(
    config: Config, server: RemoteServer, anchors: Mapping[str, Anchors], *, may_misfit: bool = False
) -> RemoteSpec:
    """Return what a helper is told of `server`, its trust anchors included; `ConfigError` where they cannot do.

    `may_misfit` is for whoever shows or changes pins: that pins and anchors do not fit is then no error.
    """
    if server.spec.tls is None:
        return server.spec
    found = anchors.get(server.name)
    if found is None or "-----BEGIN CERTIFICATE-----" not in found.pem:
        path = server.anchors.path if server.anchors is not None else None
        raise _table(config, server, ".tls").error(
            f"has no trust anchors: {path or 'the certifi package'} holds no PEM certificate"
        )
    tls = msgspec.structs.replace(server.spec.tls, anchors_pem=found.pem, overrides=list(found.overrides))
    if not may_misfit:
        check_trust(tls, _table(config, server, ".tls"))
    return msgspec.structs.replace(server.spec, tls=tls)


def check_secrets(config: Config, available: Collection[str]) -> None:
    """Raise `ConfigError` for an active server that needs a secret whose name is not in `available`."""
    for server in config.active:
        missing = sorted(server.secrets - set(available))
        if missing:
            raise _table(config, server).error(
                f"needs the secret {missing[0]}; give it with --secret {missing[0]}=env:VARIABLE or in mcp-secrets.env"
            )


def not_available(config: Config) -> Iterator[str]:
    """Yield a sentence for each thing that config.toml may say and a session cannot do, or cannot do yet."""
    if config.session.network != "host":
        yield Table({}, config.file, "session").sentence('network = "helpers" is not available yet; use "host"')
    for name in _LAYERS_NOT_YET:
        # Nothing reports on them, so that a requirement would pass unmet.
        if config.session.layers.get(name, "off") != "off":
            yield Table({}, config.file, "session.layers").sentence(f"{name} is not available yet; remove it")
    for name, why in _NEVER_OFF.items():
        if config.session.layers.get(name) == "off":
            yield Table({}, config.file, "session.layers").sentence(f'{name} cannot be "off": {why}; remove it')
    for server in config.active:
        table = _table(config, server)
        if isinstance(server, CommandServer):
            yield table.sentence("command servers are not available yet; set enabled = false to leave it out")
        else:
            yield from map(table.sentence, _unavailable_in_a_session(server))


def _unavailable_in_a_session(server: RemoteServer) -> Iterator[str]:
    if server.bridged:
        yield 'listen = "stdio" is not available yet; use "http"'
    if not server.spec.client_auth:
        yield 'client_auth must not be empty; a session needs "uid" or "bearer"'
    if server.spec.listen == "unix" and "bearer" in server.spec.client_auth:
        yield 'client_auth must be ["uid"] where listen = "unix": nobody is told the bearer'


def _table(config: Config, server: RemoteServer | CommandServer, below: str = "") -> Table:
    return Table({}, config.file, f"mcp_servers.{server.name}{below}")
