"""CORE: what one process tells another to be: session and helper specs, versioned, frozen.

A `SessionSpec` holds no secret and lies in the session directory. `SessionSecrets` and `HelperSpec` hold secrets and
travel over an inherited descriptor only. No I/O here.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from codingagents.trust.vocabulary import LayerWish, MinVersion, PinMode, PinPosition, Secret, Store
from codingagents.trust.wire import Message

ClientAuth = Literal["uid", "bearer"]
Listen = Literal["http", "https", "unix"]


class PinSpec(Message, frozen=True, kw_only=True):
    """One pin: the hash of a public key or else of a whole certificate, and where in the path it may stand."""

    spki: str = ""  # SHA-256 of the SubjectPublicKeyInfo, `sha256/<base64>`; "" where `cert_sha256` is set
    cert_sha256: str = ""  # of the certificate's DER, 64 hexadecimal digits
    at: PinPosition = "any"
    backup: bool = False
    note: str = ""


class OverrideSpec(Message, frozen=True, kw_only=True):
    """A CA that `coding-agents trust add` put into this server's store."""

    name: str
    # SHA-256 of the DER of each certificate that it adds to the store, hexadecimal; with `override_pins`, of all of its
    # certificates, whether the store has them anyway or not. They stand in `TlsSpec.anchors_pem`.
    anchors: list[str]
    override_pins: bool = False  # a path that ends there needs no pin, and gets no credential for it
    # SHA-256 of its roots, whether the store has them anyway or not: beside them its other certificates only help.
    roots: list[str] = msgspec.field(default_factory=list)


class ClientCertificate(Message, frozen=True, kw_only=True):
    """What a helper shows to its server: the names of the secrets that hold the chain and its key, as PEM."""

    chain: str
    key: str


class TlsSpec(Message, frozen=True, kw_only=True):
    """How a helper trusts its upstream. `anchors_pem` is the whole store: the helper opens no file for it."""

    server_name: str
    anchors_pem: str  # the snapshot: `store` and the overrides, each certificate once
    store: Store
    min_version: MinVersion = "1.2"
    pin_mode: PinMode = "enforce"
    pins: list[PinSpec] = msgspec.field(default_factory=list)
    pins_expire: str | None = None  # ISO date; past it the helper refuses
    credential_without_pin: bool = False
    overrides: list[OverrideSpec] = msgspec.field(default_factory=list)
    strict_x509: bool = False
    client_certificate: ClientCertificate | None = None


class LimitsSpec(Message, frozen=True, kw_only=True):
    """Bounds of one helper; seconds and bytes."""

    request_bytes: int = 64 * 1024 * 1024
    header_bytes: int = 32 * 1024
    connections: int = 512
    connect_seconds: float = 10.0
    idle_seconds: float = 900.0


class HeaderTemplate(Message, frozen=True, kw_only=True):
    """A header that the helper attaches; `${NAME}` parts are filled from secrets in the helper, `$$` is `$`."""

    name: str
    template: str


class RemoteSpec(Message, frozen=True, kw_only=True):
    """A remote server without its secrets: what the supervisor needs to make its helper."""

    name: str
    scheme: Literal["https", "http"]
    host: str
    port: int
    path: str  # the URL's path and query; clients are given the same path on the helper's origin
    transport: Literal["http", "sse"] = "http"
    listen: Listen = "http"
    proxy: str | None = None  # "HOST:PORT" of an HTTP proxy to CONNECT through; the pins hold inside the tunnel
    connect_to: str | None = None  # "HOST:PORT" to dial instead; never changes SNI, Host or the name check
    allow_private: bool = False
    client_auth: list[ClientAuth] = msgspec.field(default_factory=lambda: ["uid", "bearer"])
    headers: list[HeaderTemplate] = msgspec.field(default_factory=list)
    tls: TlsSpec | None = None  # None only for http to loopback
    limits: LimitsSpec = LimitsSpec()


class ListenCertificate(Message, frozen=True, kw_only=True):
    """What a helper that listens on https shows to its clients, signed by the session's own CA."""

    chain_pem: str
    key_pem: Secret


class HelperSpec(Message, frozen=True, kw_only=True):
    """All a helper is told at first, over its own descriptor, secrets included; `AnyHelperCommand` lines may follow."""

    version: Literal[2] = 2
    remote: RemoteSpec
    uid: int
    gid: int
    agent_uid: int  # whose loopback connections the uid gate lets through
    listen_port: int  # of the inherited listening socket, Host and Origin are checked against it; 0 on a unix socket
    certificate: ListenCertificate | None = None  # exactly where remote.listen is "https"
    bearer: Secret  # the local bearer
    secrets: dict[str, Secret]  # only those that `remote.headers` names


class NewSecrets(Message, frozen=True, kw_only=True, tag_field="command", tag="new-secrets"):
    """Supervisor to helper: from the next request on, attach these; the same names as in the `HelperSpec`."""

    secrets: dict[str, Secret]


class Ping(Message, frozen=True, kw_only=True, tag_field="command", tag="ping"):
    """Supervisor to helper: answer with `facts.Pong` of the same number. Nothing upstream is contacted for it."""

    number: int


class NewTrust(Message, frozen=True, kw_only=True, tag_field="command", tag="new-trust"):
    """Supervisor to helper: a new trust epoch; answered by `facts.TrustTaken`.

    Connections that the new anchors and pins would accept live on, all others are closed at once. A set that cannot be
    used is refused, and the former one stays.
    """

    tls: TlsSpec


AnyHelperCommand = NewSecrets | NewTrust | Ping


class ExecRule(Message, frozen=True, kw_only=True):
    """One `[exec]` rule, first match wins."""

    action: Literal["allow", "deny"]
    path: str  # an absolute glob; `*` stays inside one component, `**` crosses them
    role: str | None = None
    argv: list[str] = msgspec.field(default_factory=list)  # prefix that argv must start with


# Whether what the agent spawns must go through the task runner: where its command is a client that we know; whatever
# it is; or not at all.
Route = Literal["auto", "always", "never"]


class ExecSpec(Message, frozen=True, kw_only=True):
    """The exec policy of a session."""

    mode: Literal["observe", "enforce"] = "observe"
    rules: list[ExecRule] = msgspec.field(default_factory=list)
    trees: list[str] = msgspec.field(default_factory=lambda: ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt"])
    digest_bytes: int = 256 * 1024 * 1024  # programs above are not hashed; 0: none is
    route: Route = "auto"
    # Where tasks may execute files, besides `trees`; None: the workspace, the tasks' home and /tmp.
    task_trees: list[str] | None = None
    # Variables of the requester that a task gets besides the usual ones: names, or prefixes that end in `*`.
    task_environment: list[str] = msgspec.field(default_factory=list)


# How the agent gets its workspace: the tree itself, a copy of it, or a git clone.
WorkspaceMode = Literal["direct", "copy", "clone"]


class RoleLimits(Message, frozen=True, kw_only=True):
    """Bounds on what one role takes of the machine, by setrlimit(2); None: what the supervisor has."""

    processes: int | None = 4096  # RLIMIT_NPROC: processes and threads of the role's UID together
    memory: int | None = None  # RLIMIT_AS, bytes of address space of each process
    open_files: int | None = None  # RLIMIT_NOFILE, of each process


class TaskTotals(Message, frozen=True, kw_only=True):
    """Bounds on all tasks of a session together, by a control group of their own; None: no more than their engine's."""

    memory: int | None = None  # bytes, swap included
    processes: int | None = None  # and threads


class UidPlan(Message, frozen=True, kw_only=True):
    """Numeric identities of one session; no two alike."""

    agent: int
    task: int
    workspace_gid: int
    servers: dict[str, int]


class SessionSpec(Message, frozen=True, kw_only=True):
    """One session, without its secrets: `session.json` in the session directory."""

    version: Literal[1] = 1
    session: str
    agent: str  # agent's name, e.g. "claude"
    engine: Literal["local", "podman", "docker"]
    config_sha256: str
    uids: UidPlan
    remotes: list[RemoteSpec]
    exec: ExecSpec = ExecSpec()
    layers: dict[str, LayerWish] = msgspec.field(default_factory=dict)
    limits: RoleLimits = RoleLimits()  # of the agent
    task_limits: RoleLimits = RoleLimits()  # of each task
    task_totals: TaskTotals = TaskTotals()
    workspace: WorkspaceMode = "direct"
    workspace_acl: bool = False  # the launcher gave agent and task their rights by POSIX ACLs
    # UID and GID that tasks run as in a tree that they have no other rights in: its owner's. None: uids.task. It is a
    # person's, who has other processes: what kills every process of a role must not take it for one.
    task_owner: tuple[int, int] | None = None
    codex_toml: str = ""  # what config.toml holds for Codex itself; `clients.codex` adds the endpoints
    command: list[str]
    working_directory: str
    environment: dict[str, str]  # the agent's whole environment, client switches excluded
    public_key: str  # base64 Ed25519 key that the event log will verify against


class SessionSecrets(Message, frozen=True, kw_only=True):
    """First line on the control descriptor, launcher to supervisor."""

    version: Literal[1] = 1
    secrets: dict[str, Secret]
    signing_key: Secret  # base64 of the 32-byte Ed25519 private key


class RenewedSecrets(Message, frozen=True, kw_only=True, tag_field="renewal", tag="secrets"):
    """A later line on the control descriptor, launcher to supervisor: new values of secrets that the session has."""

    version: Literal[1] = 1
    secrets: dict[str, Secret]


class RenewedTrust(Message, frozen=True, kw_only=True, tag_field="renewal", tag="trust"):
    """A later line likewise: how these servers are to be trusted from now on; answered by a `ControlTrust` for each."""

    version: Literal[1] = 1
    servers: dict[str, TlsSpec]


AnyRenewal = RenewedSecrets | RenewedTrust


class ControlCheckpoint(Message, frozen=True, kw_only=True, tag_field="control", tag="checkpoint"):
    """Supervisor to launcher: a signed checkpoint, to be kept outside the session."""

    note: str


class ControlTrust(Message, frozen=True, kw_only=True, tag_field="control", tag="trust"):
    """Supervisor to launcher: what became of a `RenewedTrust` for one server; on a problem the former trust stays."""

    server: str
    store_sha256: str  # of the snapshot that holds now
    kept: int = 0  # connections that satisfy the new trust, and live on
    closed: int = 0
    problem: str | None = None


AnyControl = ControlCheckpoint | ControlTrust


class CloneRequest(Message, frozen=True, kw_only=True):
    """Supervisor to zygote, one SOCK_SEQPACKET message, with SCM_RIGHTS.

    The descriptors are the helper's channel, its listening socket, and, where the listening socket belongs to another
    network namespace than the zygote, a NETLINK_SOCK_DIAG socket of that namespace, this helper's alone: answers go to
    whoever reads first. The channel is a stream socket: the supervisor writes one `HelperSpec` line and later
    `AnyHelperCommand` lines, the helper writes `facts.AnyFact` lines. EOF on it means die.
    """

    version: Literal[2] = 2
    server: str


class Cloned(Message, frozen=True, kw_only=True):
    """Zygote's answer, with SCM_RIGHTS: [pidfd] where `pid` is set. `pid` is the supervisor's own child."""

    pid: int | None
    error: str = ""
