"""SHELL: where `trust add` takes certificates from: a file, a URL, or a server of the configuration.

Of what a server shows, its topmost CA is taken, or with `leaf` its own certificate; nothing is verified or sent to it.
Whether any of it may be trusted is not decided here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from codingagents.launcher.dialing import Route, route_of
from codingagents.launcher.tls_probe import chain_sent
from codingagents.launcher.trust_rules import top_of_chain
from codingagents.rewrite.addresses import parse_url
from codingagents.rewrite.certificates import parse_certificates
from codingagents.rewrite.config import RemoteServer
from codingagents.rewrite.override_store import MAX_PEM
from codingagents.rewrite.private_files import read_plain
from codingagents.trust.errors import NotFoundError, UsageError


class Found(NamedTuple):
    """Certificates as DER, the file or URL that they came from, and the host that showed them, if one did."""

    certificates: list[bytes]
    source: str
    host: str | None = None


def from_file(file: str) -> Found:
    """Return what FILE holds, `-` being standard input. Raises `AgentError`."""
    if file == "-":
        content = sys.stdin.buffer.read(MAX_PEM + 1)
        if len(content) > MAX_PEM:
            raise UsageError(f"standard input is over the limit of {MAX_PEM} bytes")
        return Found(parse_certificates(content, "standard input"), "standard input")
    try:
        return Found(parse_certificates(read_plain(Path(file), limit=MAX_PEM), file), file)
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {file}") from None


def from_url(text: str, *, leaf: bool) -> Found:
    """Return what the server at an https URL shows. Raises `AgentError`."""
    try:
        url = parse_url(text)
        if url.scheme != "https":
            raise ValueError("must start with https://")
    except ValueError as error:
        raise UsageError(f"--from {error}") from None
    route = Route(url.host, url.port)
    return _chosen(chain_sent(route, url.host), f"https://{route.place}", url.host, leaf=leaf)


def from_server(server: RemoteServer, *, leaf: bool) -> Found:
    """Return what an https server shows, reached as its helper would reach it. Raises `AgentError`."""
    assert server.spec.tls is not None
    name = server.spec.tls.server_name
    origin = Route(server.spec.host, server.spec.port).place
    return _chosen(chain_sent(route_of(server.spec), name), f"https://{origin}", name, leaf=leaf)


def _chosen(chain: Sequence[bytes], source: str, host: str, *, leaf: bool) -> Found:
    return Found([chain[0] if leaf else top_of_chain(chain)], source, host)
