"""CORE: one server of a config.toml as a helper in the foreground: what is asked for, and the specification of it.

No I/O, no clock and no randomness; a secret goes in and out of here and is never looked at. A session's other tables
do not matter to a helper that is alone, and are not judged.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from codingagents.rewrite.config import Config, RemoteServer
from codingagents.rewrite.overrides import Anchors
from codingagents.rewrite.plan import check_secrets, with_anchors
from codingagents.rewrite.specs import ClientAuth, HelperSpec
from codingagents.rewrite.tables import did_you_mean, quoted
from codingagents.trust.errors import ConfigError, NotFoundError, UsageError
from codingagents.trust.vocabulary import Secret
from codingagents.trust.wire import Message

MAX_SOCKET_PATH = 107  # bytes, unix(7)
_TCP = re.compile(r"(?:127\.0\.0\.1|localhost):(0|[1-9][0-9]{0,4})", re.ASCII)
_AUTH: Mapping[str, tuple[ClientAuth, ...]] = {
    "none": (),
    "uid": ("uid",),
    "bearer": ("bearer",),
    "uid,bearer": ("uid", "bearer"),
}


class Address(NamedTuple):
    """Where to listen: a port of 127.0.0.1 (0: any that is free), or the absolute path of a unix socket."""

    port: int
    path: str = ""


class Source(Message, frozen=True, kw_only=True):
    """Where a secret came from, as `secrets.SecretSource` has it; the place of a file is absolute."""

    name: str
    kind: Literal["env", "file"]
    place: str


class ForegroundSpec(Message, frozen=True, kw_only=True):
    """All that `proxies.foreground` is told, secrets included, over a descriptor that it inherits."""

    version: Literal[1] = 1
    helper: HelperSpec  # its listen_port is the one to bind, 0: any that is free
    socket_path: str  # the unix socket to bind, "" for a port
    sources: list[Source]  # of the secrets, for those that can be read again
    env_file: str  # where they are looked for that no source gives
    config: str  # file and directory that said how to trust the server, to be read again
    overrides: str
    events: str | None  # the file that facts are appended to
    as_json: bool
    notes: list[str]  # what the person should know


def parse_listen(text: str) -> Address:
    """Return what `--listen` says; `UsageError` for what others than this machine could reach."""
    if text.startswith("unix:/"):
        path = text.removeprefix("unix:")
        if not path.isprintable() or len(path.encode()) > MAX_SOCKET_PATH:  # bytes that are no UTF-8 do not print
            raise UsageError(f"--listen: the path of a unix socket has at most {MAX_SOCKET_PATH} printable bytes")
        return Address(0, path)
    found = _TCP.fullmatch(text)
    if found is None or int(found[1]) > 65535:
        raise UsageError("--listen must be 127.0.0.1:PORT or unix:/PATH: a helper is for this machine alone")
    return Address(int(found[1]))


def parse_client_auth(text: str) -> tuple[ClientAuth, ...]:
    """Return what `--client-auth` says."""
    if text not in _AUTH:
        raise UsageError(f"--client-auth must be one of {' '.join(_AUTH)}")
    return _AUTH[text]


def only(config: Config, name: str) -> Config:
    """Return `config` with the one server `name`, switched on.

    `NotFoundError` where there is none, `ConfigError` for a command.
    """
    found = [server for server in config.servers if server.name == name]
    if not found:
        names = [server.name for server in config.servers]
        remedy = did_you_mean(name, names) if names else "; it has none"
        raise NotFoundError(f"{config.file} has no server {quoted(name)}{remedy}")
    (server,) = found
    if not isinstance(server, RemoteServer):
        raise ConfigError(f"{config.file}: [mcp_servers.{name}] has a command; a helper stands for a server with a url")
    return dataclasses.replace(config, servers=(dataclasses.replace(server, enabled=True),))


def plan_helper(
    config: Config,
    address: Address,
    client_auth: tuple[ClientAuth, ...] | None,
    *,
    secrets: Mapping[str, Secret],
    anchors: Mapping[str, Anchors],
    uid: int,
    gid: int,
    bearer: Secret,
) -> HelperSpec:
    """Return the specification of the one server of `config` (see `only`), served to `uid`, who also runs it.

    Raises `ConfigError` for a missing secret and for missing anchors.
    """
    (server,) = config.remotes
    check_secrets(config, secrets)
    remote = msgspec.structs.replace(
        with_anchors(config, server, anchors),
        listen="unix" if address.path else "http",
        client_auth=list(server.spec.client_auth if client_auth is None else client_auth),
    )
    needed = server.secrets
    return HelperSpec(
        remote=remote,
        uid=uid,
        gid=gid,
        agent_uid=uid,
        listen_port=address.port,
        bearer=bearer,
        secrets={name: secret for name, secret in sorted(secrets.items()) if name in needed},
    )


def warnings_about(config: Config, name: str) -> list[str]:
    """Return those of the file's warnings that are about server `name`."""
    label = f"[mcp_servers.{name}"
    return [text for text in config.warnings if f"{label}]" in text or f"{label}." in text]


def notes(config: Config) -> list[str]:
    """Return what is otherwise in the foreground than `config` says."""
    (server,) = config.remotes
    asked = "stdio" if server.bridged else server.spec.listen
    return [f'listen = "{asked}" is for sessions; --listen says where this helper is'] if asked != "http" else []
