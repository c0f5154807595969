"""CORE: one `[mcp_servers.NAME]` table, from TOML to `RemoteServer` or `CommandServer`. No I/O, no clock."""

from __future__ import annotations

from typing import Literal, get_args

from codingagents.rewrite import codex_keys
from codingagents.rewrite.addresses import Url, is_loopback, parse_host_port, parse_url
from codingagents.rewrite.check import check_credential
from codingagents.rewrite.config import AnchorSource, CommandServer, RemoteServer, Sandbox
from codingagents.rewrite.headers import header_templates, template_names
from codingagents.rewrite.parse_tls import parse_tls
from codingagents.rewrite.placeholders import names
from codingagents.rewrite.specs import ClientAuth, LimitsSpec, RemoteSpec, TlsSpec
from codingagents.rewrite.tables import Table, quoted
from codingagents.trust.errors import ConfigError
from codingagents.trust.vocabulary import LAYER_NAMES, LayerWish, ServerName, parse_secret_name

_REMOTE_KEYS = frozenset(
    {
        "allow_plaintext",
        "allow_private",
        "bearer_token_env_var",
        "client_auth",
        "connect_to",
        "env_http_headers",
        "headers",
        "http_headers",
        "limits",
        "listen",
        "proxy",
        "tls",
        "transport",
        "url",
    }
)
_COMMAND_KEYS = frozenset({"args", "command", "env", "sandbox"})
_FOR_REMOTE = _REMOTE_KEYS | codex_keys.REMOTE_SERVER | {"enabled"}
_FOR_COMMAND = _COMMAND_KEYS | codex_keys.COMMAND_SERVER | {"enabled"}
_LISTENS: tuple[Literal["http", "https", "unix", "stdio"], ...] = ("http", "https", "unix", "stdio")
_MIB = 1024 * 1024


def parse_server(
    table: Table, name: ServerName, warnings: list[str], *, unpinned_credentials: bool
) -> RemoteServer | CommandServer:
    """Return the server that `table` describes; append to `warnings` what is allowed and doubtful.

    `unpinned_credentials`: as `parse.parse_config` has it.
    """
    if not {"url", "command"} & table.values.keys():
        table.only(_FOR_REMOTE | _FOR_COMMAND)  # a misspelled url or command is named as such
    if ("url" in table.values) == ("command" in table.values):
        raise table.error("must have either url (a remote server) or command (a local one)")
    remote = "url" in table.values
    known, other = (_FOR_REMOTE, _FOR_COMMAND) if remote else (_FOR_COMMAND, _FOR_REMOTE)
    for key in table.values:
        if key in other - known:
            raise table.error(f"{key} has no meaning for a server with {'url' if remote else 'command'}; remove it")
    table.only(known)
    if not remote:
        return _command(table, name)
    server = _remote(table, name, warnings)
    if not unpinned_credentials:
        check_credential(server, table)
    return server


def parse_layers(table: Table) -> dict[str, LayerWish]:
    """Return a `layers = { NAME = "require" | "prefer" | "off" }` table."""
    table.only(LAYER_NAMES)
    wishes: tuple[LayerWish, ...] = get_args(LayerWish)
    return {name: table.choice(name, wishes, "prefer") for name in LAYER_NAMES if name in table.values}


def _remote(table: Table, name: ServerName, warnings: list[str]) -> RemoteServer:
    url = _url(table)
    headers = header_templates(table)
    tls: TlsSpec | None = None
    anchors: AnchorSource | None = None
    if url.scheme == "https":
        tls, anchors = parse_tls(table.table("tls"), host=url.host, warnings=warnings)
    else:
        if "tls" in table.values:
            raise table.error("tls has no meaning for an http URL; remove it or use https")
        if any(names(header.template) for header in headers):
            warnings.append(table.sentence("sends a credential in clear text to whoever holds that loopback port"))
    listen = table.choice("listen", _LISTENS, "http")
    if "?" in url.path:
        warnings.append(table.sentence("url has a query, which the agent sees; put credentials into headers"))
    if "http_headers_helper" in table.values:
        warnings.append(
            table.sentence(
                "http_headers_helper runs as the agent, which then holds what it prints; use headers instead"
            )
        )
    return RemoteServer(
        name=name,
        spec=RemoteSpec(
            name=name,
            scheme="https" if url.scheme == "https" else "http",
            host=url.host,
            port=url.port,
            path=url.path,
            transport=table.choice("transport", ("http", "sse"), "http"),
            listen="http" if listen == "stdio" else listen,
            proxy=_proxy(table, url),
            connect_to=_connect_to(table, url),
            # An http URL names a loopback address, which is what this allows.
            allow_private=table.flag("allow_private", default=False) or url.scheme == "http",
            client_auth=_client_auth(table, listen),
            headers=headers,
            tls=tls,
            limits=_limits(table.table("limits")),
        ),
        enabled=table.flag("enabled", default=True),
        bridged=listen == "stdio",
        anchors=anchors,
        codex=_codex(table, codex_keys.REMOTE_SERVER),
    )


def _client_auth(table: Table, listen: str) -> list[ClientAuth]:
    # No client's configuration names a unix socket, so there is no place that its bearer could be read from.
    default: tuple[ClientAuth, ...] = ("uid",) if listen == "unix" else ("uid", "bearer")
    return list(table.choices("client_auth", ("uid", "bearer"), default))


def _url(table: Table) -> Url:
    try:
        url = parse_url(table.text("url") or "")
    except ValueError as error:
        raise table.error(f"url {error}") from None
    if url.scheme == "http":
        if not is_loopback(url.host):
            raise table.error("url must start with https://; http is for loopback addresses only")
        if not table.flag("allow_plaintext", default=False):
            raise table.error("url must start with https://, or set allow_plaintext = true for this loopback address")
    return url


def _connect_to(table: Table, url: Url) -> str | None:
    text = table.text("connect_to")
    if text is None:
        return None
    if url.scheme == "http":
        raise table.error("connect_to needs an https URL")
    try:
        return parse_host_port(text)
    except ValueError as error:
        raise table.error(f"connect_to {error}") from None


def _proxy(table: Table, url: Url) -> str | None:
    text = table.text("proxy")
    if text is None:
        return None
    if url.scheme == "http":
        raise table.error("proxy needs an https URL")
    try:
        proxy = parse_url(text)
    except ValueError:
        proxy = None
    if proxy is None or proxy.scheme != "http" or proxy.path != "/":
        raise table.error("proxy must be http://HOST:PORT without user name and path")
    return f"[{proxy.host}]:{proxy.port}" if ":" in proxy.host else f"{proxy.host}:{proxy.port}"


def _limits(table: Table) -> LimitsSpec:
    table.only(("request_bytes", "header_bytes", "connections", "connect_seconds", "idle_seconds"))
    default = LimitsSpec()
    return LimitsSpec(
        request_bytes=table.integer("request_bytes", 1024, 4096 * _MIB, default.request_bytes),
        header_bytes=table.integer("header_bytes", 1024, _MIB, default.header_bytes),
        connections=table.integer("connections", 1, 65536, default.connections),
        connect_seconds=table.number("connect_seconds", 0.1, 300, default.connect_seconds),
        idle_seconds=table.number("idle_seconds", 1, 86400, default.idle_seconds),
    )


def _command(table: Table, name: ServerName) -> CommandServer:
    env = table.strings("env")
    for variable, template in env.items():
        below = table.table("env")
        try:
            parse_secret_name(variable)
        except ConfigError:
            raise below.error(f"{quoted(variable)} is not the name of an environment variable") from None
        if "\0" in template:
            raise below.error(f"{variable} must not hold a NUL character")
        template_names(below, variable, template)
    return CommandServer(
        name=name,
        command=table.text("command") or "",
        args=table.texts("args"),
        env=env,
        enabled=table.flag("enabled", default=True),
        sandbox=_sandbox(table.table("sandbox")),
        codex=_codex(table, codex_keys.COMMAND_SERVER),
    )


def _sandbox(table: Table) -> Sandbox:
    table.only(("write", "network", "memory", "pids", "seconds", "layers"))

    def limit(key: str, low: int, high: int) -> int | None:
        return table.integer(key, low, high, low) if key in table.values else None

    return Sandbox(
        write=table.texts("write"),
        network=table.choice("network", ("none", "host"), "host"),
        memory=limit("memory", 16 * _MIB, 2**50),
        pids=limit("pids", 1, 2**22),
        seconds=limit("seconds", 1, 7 * 86400),
        layers=parse_layers(table.table("layers")),
    )


def _codex(table: Table, keys: frozenset[str]) -> dict[str, object]:
    return {key: value for key, value in table.values.items() if key in keys}
