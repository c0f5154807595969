"""CORE: config.toml, from text to `Config`: the one place where a user's configuration enters, checked at once.

Every problem is a `ConfigError` of one sentence that names file, table and key; any text whatever gives a `Config` or a
`ConfigError`. No I/O, no clock: files that the configuration names are read by a shell, dates are judged by `check`.
"""

from __future__ import annotations

import re
import tomllib
from typing import get_args

from codingagents.rewrite import codex_keys
from codingagents.rewrite.config import Config, Network, SessionConfig
from codingagents.rewrite.parse_servers import parse_layers, parse_server
from codingagents.rewrite.specs import ExecRule, ExecSpec, RoleLimits, Route, TaskTotals, WorkspaceMode
from codingagents.rewrite.tables import Table, quoted
from codingagents.trust.errors import ConfigError
from codingagents.trust.vocabulary import Role, parse_agent_name, parse_server_name

MAX_BYTES = 1024 * 1024
# tomllib needs time that grows with the square of the parts of a dotted key: 8000 parts take a second.
_MAX_DOTS = 200
# Deep enough for any real configuration, shallow enough for every recursive writer that the values meet later.
_MAX_DEPTH = 32

_VARIABLES = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}(_\*)?")  # "*" alone would let every secret through

_TOTALS = ("total_memory", "total_processes")
_ROLES = tuple(role for role in Role if role is not Role.SUPERVISOR)


def parse_config(text: str, file: str, *, unpinned_credentials: bool = False) -> Config:
    """Return `text`, the content of `file`, as a `Config`, or raise `ConfigError`.

    `unpinned_credentials` is for whoever writes the pins: servers that lack them, and would be sent a credential, pass.
    """
    top = Table(_read_toml(text, file), file)
    top.only({"mcp_servers", "session", "exec"} | codex_keys.TOP_LEVEL)
    warnings: list[str] = []
    servers = top.table("mcp_servers")
    parsed = []
    for name in servers.values:
        try:
            server_name = parse_server_name(name)
        except ConfigError:
            raise servers.error(f"server name {quoted(name)} must be 1 to 32 of A-Z a-z 0-9 _ -") from None
        server = parse_server(servers.table(name), server_name, warnings, unpinned_credentials=unpinned_credentials)
        parsed.append(server)
    return Config(
        file=file,
        servers=tuple(parsed),
        session=_session(top.table("session")),
        exec=_exec(top.table("exec")),
        codex={key: value for key, value in top.values.items() if key in codex_keys.TOP_LEVEL},
        warnings=tuple(warnings),
    )


def _read_toml(text: str, file: str) -> dict[str, object]:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ConfigError(f"{file}: is not UTF-8 text") from None
    if size > MAX_BYTES:
        raise ConfigError(f"{file}: is over {MAX_BYTES} bytes")
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > _MAX_DOTS:
            raise ConfigError(f"{file}: line {number} has more than {_MAX_DOTS} dots; break it up")
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{file}: is nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        # tomllib names a position, at most one character or key, and never a value.
        raise ConfigError(f"{file}: is not valid TOML: {str(error)[:200]}") from None
    except ValueError:
        raise ConfigError(f"{file}: holds a number that is too long to read") from None
    if _deeper_than(values, _MAX_DEPTH):
        raise ConfigError(f"{file}: is nested more than {_MAX_DEPTH} levels deep")
    return values


def _deeper_than(value: object, limit: int) -> bool:
    level: list[object] = [value]
    for _ in range(limit):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below += item.values()
            elif isinstance(item, list):
                below += item
        if not below:
            return False
        level = below
    return True


def _session(table: Table) -> SessionConfig:
    table.only(("agent", "workspace", "workspace_mode", "workspace_acl", "limits", "task_limits", "network", "layers"))
    agent = table.text("agent")
    try:
        agent = None if agent is None else parse_agent_name(agent)
    except ConfigError as error:
        raise table.error(str(error)) from None
    networks: tuple[Network, ...] = get_args(Network)
    modes: tuple[WorkspaceMode, ...] = get_args(WorkspaceMode)
    mode = table.choice("workspace_mode", modes, "direct")
    acl = table.flag("workspace_acl", default=False)
    if acl and mode != "direct":
        raise table.error(f'workspace_acl has no meaning with workspace_mode = "{mode}"; remove it')
    return SessionConfig(
        agent=agent,
        workspace=table.text("workspace"),
        workspace_mode=mode,
        workspace_acl=acl,
        limits=_limits(table.table("limits")),
        task_limits=_limits(table.table("task_limits"), *_TOTALS),
        task_totals=_totals(table.table("task_limits")),
        network=table.choice("network", networks, "host"),
        layers=parse_layers(table.table("layers")),
    )


def _limits(table: Table, *others: str) -> RoleLimits:
    table.only(("processes", "memory", "open_files", *others))
    default = RoleLimits()
    return RoleLimits(
        processes=_limit(table, "processes", 16, 2**22, default.processes),
        memory=_limit(table, "memory", 64 * 1024 * 1024, 2**48, default.memory),
        open_files=_limit(table, "open_files", 64, 2**20, default.open_files),
    )


def _totals(table: Table) -> TaskTotals:
    memory, processes = _TOTALS
    return TaskTotals(
        memory=_limit(table, memory, 64 * 1024 * 1024, 2**48, None),
        processes=_limit(table, processes, 16, 2**22, None),
    )


def _limit(table: Table, key: str, low: int, high: int, otherwise: int | None) -> int | None:
    return table.integer(key, low, high, low) if key in table.values else otherwise


def _exec(table: Table) -> ExecSpec:
    table.only(("mode", "rules", "trees", "digest_bytes", "route", "task_trees", "task_environment"))
    trees, task_trees = table.texts("trees"), table.texts("task_trees")
    for key, paths in (("trees", trees), ("task_trees", task_trees)):
        for path in paths:
            _check_path(table, key, path)
    routes: tuple[Route, ...] = get_args(Route)
    if "trees" in table.values and not trees:
        raise table.error("trees must not be empty: nothing at all could run")
    return ExecSpec(
        mode=table.choice("mode", ("observe", "enforce"), "observe"),
        rules=[_rule(rule) for rule in table.tables("rules")],
        trees=list(trees) or ExecSpec().trees,
        digest_bytes=table.integer("digest_bytes", 0, 2**40, ExecSpec().digest_bytes),
        route=table.choice("route", routes, "auto"),
        task_trees=list(task_trees) if "task_trees" in table.values else None,
        task_environment=[_variable(table, name) for name in table.texts("task_environment")],
    )


def _variable(table: Table, name: str) -> str:
    if not _VARIABLES.fullmatch(name):
        raise table.error("task_environment must hold names of variables, or PREFIX_*")
    return name


def _rule(table: Table) -> ExecRule:
    table.only(("allow", "deny", "role", "argv"))
    if ("allow" in table.values) == ("deny" in table.values):
        raise table.error("must have either allow or deny, a path or a glob")
    action = "allow" if "allow" in table.values else "deny"
    path = table.text(action) or ""
    _check_path(table, action, path)
    role = table.choice("role", _ROLES, _ROLES[0]) if "role" in table.values else None
    return ExecRule(
        action="allow" if action == "allow" else "deny",
        path=path,
        role=None if role is None else role.value,
        argv=list(table.texts("argv")),
    )


def _check_path(table: Table, key: str, path: str) -> None:
    if not path.startswith("/") or any(part in ("", ".", "..") for part in path[1:].split("/")):
        raise table.error(f"{key} must hold absolute paths without empty, . and .. parts")
