"""SHELL: which server a `coding-agents trust` command means, and what its helper would be told.

Reads the configuration and the trust stores; contacts nobody.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from pathlib import Path

import msgspec

from codingagents.launcher.terminal import say
from codingagents.launcher.trust_shared import base, store
from codingagents.rewrite.addresses import Url, is_ip, parse_host_port, parse_url
from codingagents.rewrite.anchors import MAX_STORE, certificates, read_anchors
from codingagents.rewrite.config import AnchorSource, Config, RemoteServer
from codingagents.rewrite.parse import parse_config
from codingagents.rewrite.parse_tls import HOST_STORE
from codingagents.rewrite.plan import with_anchors
from codingagents.rewrite.private_files import read_plain
from codingagents.rewrite.reading import read_config
from codingagents.rewrite.specs import RemoteSpec
from codingagents.trust.errors import AgentError, NotFoundError, UsageError

MADE_UP = "command line"  # the file of a configuration that is in none
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]+")


def chosen(options: argparse.Namespace) -> tuple[Config, RemoteServer]:
    """Return the server that the command line means, and the configuration that it is of, or that is made up for it.

    Reads `options.server`, `config`, `connect_to`, `ca` and `ca_override`. Raises `AgentError`.
    """
    config, server = _named(options) if "://" not in options.server else _at(options)
    return config, _changed(server, options)


def configuration(path: Path | None) -> Config:
    """Return the configuration, the usual one for None, whose servers may lack pins. Raises `AgentError`."""
    config, _ = read_config(path or base() / "config.toml", unpinned_credentials=True)
    return config


def spec_of(config: Config, server: RemoteServer) -> RemoteSpec:
    """Return what a helper would be told of the server, its anchors included, whether they fit its pins or not.

    Raises `AgentError`.
    """
    assert server.anchors is not None
    anchors = read_anchors({server.name: server.anchors}, config.file, store())
    return with_anchors(config, server, anchors, may_misfit=True)


def https_server(config: Config, name: str) -> RemoteServer:
    """Return the server of that name; `NotFoundError` where there is none, `UsageError` where it is not https."""
    for server in config.servers:
        if server.name == name:
            if isinstance(server, RemoteServer) and server.anchors is not None:
                return server
            raise UsageError(f"{config.file}: [mcp_servers.{name}] is no https server, so there is no TLS to look at")
    raise NotFoundError(f"{config.file} has no server {name}; see: coding-agents config check {config.file}")


def _named(options: argparse.Namespace) -> tuple[Config, RemoteServer]:
    config = configuration(options.config)
    return config, https_server(config, options.server)


def _at(options: argparse.Namespace) -> tuple[Config, RemoteServer]:
    try:
        url = parse_url(options.server)
        if url.scheme != "https":
            raise ValueError("must start with https://")
    except ValueError as error:
        raise UsageError(f"URL {error}") from None
    if found := _known(url, options.config):
        return found
    if is_ip(url.host):
        raise UsageError(
            "URL has an IP address, and no certificate is judged without a name: give https://NAME, and the address "
            "with --connect-to"
        )
    return _made_up(url, options.server)


def _known(url: Url, path: Path | None) -> tuple[Config, RemoteServer] | None:
    try:
        config = configuration(path)
    except AgentError as error:
        if path is not None:
            raise
        if not isinstance(error, NotFoundError):
            say(f"warning: the configuration is left aside: {error}")
        return None
    for server in config.servers:
        if isinstance(server, RemoteServer) and server.anchors is not None:
            spec = server.spec
            if (spec.host, spec.port) == (url.host, url.port):
                return config, server
    return None


def _made_up(url: Url, text: str) -> tuple[Config, RemoteServer]:
    name = _NO_NAME.sub("-", url.host)[:32]
    toml = f"[mcp_servers.{name}]\nurl = {json.dumps(text)}\nallow_private = true\n"
    config = parse_config(toml, MADE_UP)
    return config, https_server(config, name)


def _changed(server: RemoteServer, options: argparse.Namespace) -> RemoteServer:
    """Return the server as the command line has it otherwise."""
    spec, anchors = server.spec, server.anchors
    assert spec.tls is not None
    assert anchors is not None
    if options.ca is not None:
        anchors = _anchors(options.ca, anchors)
        spec = msgspec.structs.replace(spec, tls=msgspec.structs.replace(spec.tls, store=anchors.store))
    if options.connect_to is not None:
        try:
            spec = msgspec.structs.replace(spec, connect_to=parse_host_port(options.connect_to))
        except ValueError as error:
            raise UsageError(f"--connect-to {error}") from None
    for name in options.ca_override:
        store().get(name)  # else the configuration would be said to name it
    if options.ca_override:
        anchors = dataclasses.replace(anchors, overrides=(*anchors.overrides, *options.ca_override))
    return dataclasses.replace(server, spec=spec, anchors=anchors)


def _anchors(ca: str, old: AnchorSource) -> AnchorSource:
    if ca == "host":
        return dataclasses.replace(old, store="host", path=HOST_STORE)
    if ca == "certifi":
        return dataclasses.replace(old, store="certifi", path=None)
    try:
        certificates(read_plain(Path(ca), limit=MAX_STORE), ca)
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {ca}; --ca is host, certifi, or a file of certificates") from None
    return dataclasses.replace(old, store="custom", path=ca)
