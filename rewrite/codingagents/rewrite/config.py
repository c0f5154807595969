"""CORE: config.toml as frozen values: what `parse.parse_config` returns and `plan`, `check` and the clients read.

Where a value is the same as in a spec for another process it *is* that spec type (`RemoteSpec`, `ExecSpec`), so that no
second set of types has to be kept in step. Nothing here knows TOML, and nothing holds a secret: only names of secrets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from codingagents.rewrite.placeholders import names
from codingagents.rewrite.specs import ExecSpec, RemoteSpec, RoleLimits, TaskTotals, WorkspaceMode
from codingagents.trust.vocabulary import LayerWish, SecretName, ServerName, Store

Network = Literal["host", "helpers"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AnchorSource:
    """Where the trust anchors of one upstream come from; a shell reads them.

    `path` is None for `certifi`, whose file lies inside a Python package. `pinned-only` reads the file of `host`, or
    `ca_file` where one is given; the pins decide which of its certificates count. `server_name` is the name that is
    verified, and so the one that must lie in the scope of each of the `overrides`.
    """

    store: Store
    path: str | None
    server_name: str
    overrides: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RemoteServer:
    """An `[mcp_servers.NAME]` with a `url`.

    `spec` is complete but for `spec.tls.anchors_pem`, which is empty until `plan.plan_session` fills it in.
    """

    name: ServerName
    spec: RemoteSpec
    enabled: bool
    bridged: bool  # listen = "stdio": clients would start a stub that bridges to the helper
    anchors: AnchorSource | None  # None exactly where spec.tls is None: http to loopback
    codex: Mapping[str, object]  # Codex's own keys, as TOML values

    @property
    def secrets(self) -> frozenset[SecretName]:
        """The names of the secrets that its helper needs."""
        tls = self.spec.tls
        shown = None if tls is None else tls.client_certificate
        of_certificate = () if shown is None else (SecretName(shown.chain), SecretName(shown.key))
        return frozenset(of_certificate).union(*(names(header.template) for header in self.spec.headers))

    @property
    def unpinned_credential(self) -> bool:
        """Whether it would have a credential that no enforced pin guards, without having said so."""
        tls = self.spec.tls
        return bool(self.secrets and tls and tls.pin_mode != "enforce" and not tls.credential_without_pin)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """`[mcp_servers.NAME.sandbox]` of a command server; None means no limit of our own."""

    write: tuple[str, ...]
    network: Literal["none", "host"]
    memory: int | None  # bytes
    pids: int | None
    seconds: int | None
    layers: Mapping[str, LayerWish]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CommandServer:
    """An `[mcp_servers.NAME]` with a `command`. `env` maps variables to `${NAME}` templates."""

    name: ServerName
    command: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    enabled: bool
    sandbox: Sandbox
    codex: Mapping[str, object]

    @property
    def secrets(self) -> frozenset[SecretName]:
        """The names of the secrets that its process needs."""
        return frozenset().union(*map(names, self.env.values()))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """The `[session]` table."""

    agent: str | None
    workspace: str | None
    workspace_mode: WorkspaceMode
    workspace_acl: bool  # only where the mode is "direct"
    limits: RoleLimits  # of the agent
    task_limits: RoleLimits
    task_totals: TaskTotals
    network: Network
    layers: Mapping[str, LayerWish]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One config.toml. `file` is its path as it was given; messages and relative paths start from it."""

    file: str
    servers: tuple[RemoteServer | CommandServer, ...]
    session: SessionConfig
    exec: ExecSpec
    codex: Mapping[str, object]  # Codex's own top-level keys, as TOML values
    warnings: tuple[str, ...]

    @property
    def active(self) -> tuple[RemoteServer | CommandServer, ...]:
        """The servers that are not switched off by `enabled = false`."""
        return tuple(server for server in self.servers if server.enabled)

    @property
    def remotes(self) -> tuple[RemoteServer, ...]:
        """The active servers that have a helper."""
        return tuple(server for server in self.active if isinstance(server, RemoteServer))
