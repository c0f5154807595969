"""CORE: what a changed config.toml means for a session that runs: which trust it takes, and what needs a new session.

Also what `coding-agents trust reload` and the launcher say to each other. Reads nothing and judges no trust. No I/O.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from codingagents.rewrite.config import CommandServer, Config, RemoteServer
from codingagents.rewrite.specs import ClientCertificate, ControlTrust, TlsSpec
from codingagents.rewrite.tables import Table
from codingagents.trust.wire import Message


class ReloadRequest(Message, frozen=True, kw_only=True):
    """The one line that a caller sends."""

    version: Literal[1] = 1
    reload: Literal["trust"] = "trust"


class ServerReload(Message, frozen=True, kw_only=True):
    """What became of one server. On a problem the former trust holds."""

    server: str
    outcome: Literal["taken", "unchanged", "refused"]
    kept: int = 0  # open connections that satisfy the new trust
    closed: int = 0  # and those that did not
    problem: str | None = None


class ReloadReport(Message, frozen=True, kw_only=True):
    """The one line that a caller is answered. With a `problem` nothing was sent to any helper."""

    version: Literal[1] = 1
    session: str
    problem: str | None = None
    servers: list[ServerReload] = msgspec.field(default_factory=list)
    needs_session: list[str] = msgspec.field(default_factory=list)  # what changed and is not taken
    warnings: list[str] = msgspec.field(default_factory=list)

    @property
    def refused(self) -> bool:
        """Whether anything was not taken that should have been."""
        return self.problem is not None or any(server.outcome == "refused" for server in self.servers)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What a session must do for a changed configuration."""

    trust: Mapping[str, TlsSpec]  # of the servers whose trust is another now
    unchanged: tuple[str, ...]
    needs_session: tuple[str, ...]


def remotes_in_common(then: Config, now: Config) -> Iterator[RemoteServer]:
    """Yield the servers of `now` whose trust a session of `then` can take: those that it reaches at the same place.

    What `now` says of one that is elsewhere is how to trust it there.
    """
    there = {server.name: _place(server) for server in then.remotes}
    return (
        server for server in now.remotes if server.spec.tls is not None and there.get(server.name) == _place(server)
    )


def compare(then: Config, now: Config, held: Mapping[str, TlsSpec | None], found: Mapping[str, TlsSpec]) -> Difference:
    """Return what `now` asks of a session that was started with `then`.

    `held` is what each of its servers is trusted by, None where that is not known, and `found` what `now` says of those
    that are in it, anchors included. A client certificate stays what it was: its secrets came with the session.
    """
    wanted = {
        name: msgspec.structs.replace(tls, client_certificate=_certificates(then)[name]) for name, tls in found.items()
    }
    trust = {name: tls for name, tls in wanted.items() if tls != held[name]}
    return Difference(
        trust=trust,
        unchanged=tuple(name for name in wanted if name not in trust),
        needs_session=tuple(_other_changes(then, now)),
    )


def without_pin(config: Config) -> Iterator[str]:
    """Yield a warning for each server that gets its credential though no pin is demanded."""
    for server in config.remotes:
        tls = server.spec.tls
        if server.secrets and tls is not None and tls.pin_mode != "enforce" and tls.credential_without_pin:
            table = Table({}, config.file, f"mcp_servers.{server.name}.tls.pins")
            yield table.sentence(
                "credential_without_pin = true: whoever has a certificate for the server's name is sent its credential"
            )


def outcome(answer: ControlTrust) -> ServerReload:
    """Return what the session said of one server, as a caller is told."""
    return ServerReload(
        server=answer.server,
        outcome="taken" if answer.problem is None else "refused",
        kept=answer.kept,
        closed=answer.closed,
        problem=answer.problem,
    )


def sentences(report: ReloadReport) -> Iterator[str]:
    """Yield the report for a person, a line each."""
    if report.problem is not None:
        yield f"nothing was changed: {report.problem}"
    for server in report.servers:
        match server.outcome:
            case "taken":
                yield f"{server.server}: taken, {server.kept} connections kept, {server.closed} closed"
            case "unchanged":
                yield f"{server.server}: unchanged"
            case "refused":
                yield f"{server.server}: refused, and the former trust holds: {server.problem}"
    for change in report.needs_session:
        yield f"needs a new session: {change}"


def _certificates(config: Config) -> dict[str, ClientCertificate | None]:
    return {server.name: server.spec.tls.client_certificate for server in config.remotes if server.spec.tls is not None}


def _place(server: RemoteServer) -> tuple[str, str, int, str | None, str | None]:
    spec = server.spec
    return spec.scheme, spec.host, spec.port, spec.connect_to, spec.proxy


def _other_changes(then: Config, now: Config) -> Iterator[str]:
    """Yield what differs beside trust, by the names of the file."""
    before = {server.name: server for server in then.active}
    after = {server.name: server for server in now.active}
    for name in sorted(before.keys() - after.keys()):
        yield f"[mcp_servers.{name}] is gone, or not enabled"
    for name in sorted(after.keys() - before.keys()):
        yield f"[mcp_servers.{name}] is new"
    for name in sorted(before.keys() & after.keys()):
        if _without_trust(before[name]) != _without_trust(after[name]):
            yield f"[mcp_servers.{name}] has other changes than in its trust"
    for table, old, new in (
        ("[session]", then.session, now.session),
        ("[exec]", then.exec, now.exec),
        ("what is Codex's own", then.codex, now.codex),
    ):
        if old != new:
            yield f"{table} changed"


def _without_trust(server: RemoteServer | CommandServer) -> RemoteServer | CommandServer:
    """Return `server` with all that a running session can take left out."""
    if isinstance(server, CommandServer) or server.spec.tls is None:
        return server
    kept = TlsSpec(server_name="", anchors_pem="", store="host", client_certificate=server.spec.tls.client_certificate)
    return dataclasses.replace(server, spec=msgspec.structs.replace(server.spec, tls=kept), anchors=None)
