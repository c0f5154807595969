"""SHELL: the helper's listening side: accepts clients, gives each a `Relay`, executes what it decides.

No decision about content here. One timer for all connections: relays say when they want to be looked at (`deadline`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import cast

from codingagents.proxies.facts_out import FactsOut
from codingagents.proxies.peer_uid import Address, PeerUid, allowed
from codingagents.proxies.relay import HEAD_SECONDS, Relay
from codingagents.proxies.relay_config import relay_config, rules_of
from codingagents.proxies.upstream import Connection, DialFailed, Upstream
from codingagents.rewrite.specs import HelperSpec, TlsSpec
from codingagents.trust.answers import render
from codingagents.trust.context import PinnedContext, pinned_context
from codingagents.trust.facts import AnyFact, Refused

_BACKLOG = 512
_SWEEP_SECONDS = 5.0  # the resolution of idle deadlines, where no shorter limit is set


class Server:
    """The helper's socket and everything behind it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, spec: HelperSpec, out: FactsOut) -> None:
        """Prepare all that can fail (`ConfigError`, `TrustError`) before the first client."""
        remote = spec.remote
        self.loop = loop
        self.facts = out
        self._limits = remote.limits
        self._agent_uid = spec.agent_uid
        self._context = None if remote.tls is None else _context(remote.tls)
        # Root is nobody to be kept from a secret, and no session's agent.
        keep_from = spec.agent_uid if spec.secrets and spec.agent_uid else None
        self.upstream = Upstream(loop, remote, self._context, out, keep_from=keep_from)
        self.config = relay_config(spec, time.time, lambda: self.upstream.close_idle(all_of_them=True))
        self._peers = PeerUid() if self.config.gate.wants_uid else None
        self._clients: set[_Client] = set()
        self._all_gone = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._sweep_seconds = min(_SWEEP_SECONDS, HEAD_SECONDS / 4, remote.limits.idle_seconds / 4)
        self._sweeping = False

    async def start(self, listener: socket.socket) -> None:
        """Accept from now on."""
        self._server = await self.loop.create_server(lambda: _Client(self), sock=listener, backlog=_BACKLOG)

    async def drain(self, seconds: float) -> None:
        """Accept no more, let what is in flight finish within `seconds`, then break off the rest."""
        if self._server is not None:
            self._server.close()
        for client in list(self._clients):
            client.relay.drain()
        if self._clients:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_gone.wait(), seconds)
        for client in list(self._clients):
            client.relay.client_closed()
        self.upstream.close_idle(all_of_them=True)

    def admit(self, client: _Client) -> bool:
        """Count `client` in, or say that there are too many."""
        if len(self._clients) >= self._limits.connections and not self._make_room(client):
            return False
        self._clients.add(client)
        self._all_gone.clear()
        if not self._sweeping:
            self._sweeping = True
            self.loop.call_later(self._sweep_seconds, self._sweep)
        return True

    def _make_room(self, newcomer: _Client) -> bool:
        """Drop what other users opened, where there is no room for the agent: anybody on the machine can connect."""
        if self._peers is None or not newcomer.peer()[0]:
            return False
        for client in [client for client in self._clients if not client.peer()[0]]:
            client.relay.client_closed()
            self.discharge(client)
        return len(self._clients) < self._limits.connections

    def discharge(self, client: _Client) -> None:
        """Count `client` out."""
        self._clients.discard(client)
        if not self._clients:
            self._all_gone.set()

    def _sweep(self) -> None:
        now = self.loop.time()
        for client in list(self._clients):
            client.relay.tick(now)
        self.upstream.close_idle()
        self._sweeping = bool(self._clients)
        if self._sweeping:
            self.loop.call_later(self._sweep_seconds, self._sweep)

    def peer(self, client: Address | None, server: Address | None) -> tuple[bool, int | None]:
        """Ask the kernel who `client` is; without an address it is gone already."""
        owner = self._peers.owner(client, server) if self._peers and client and server else None
        return allowed(owner, self._agent_uid), None if owner is None or not owner.inode else owner.uid


class _Client(asyncio.Protocol):
    """One client connection. Is the relay's `Surroundings`; its `ClientEnd` is the transport itself."""

    relay: Relay
    emit: Callable[[AnyFact], None]

    def __init__(self, server: Server) -> None:
        self._server = server
        self._dial: asyncio.Task[None] | None = None
        self._admitted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's derive from no class of asyncio
        self.emit = self._server.facts.put
        self.relay = Relay(self._server.config, self._transport, self, self._server.loop.time)
        self._admitted = self._server.admit(self)
        if not self._admitted:
            self.emit(Refused(reason="too_many_connections", peer_user_id=None))
            self._transport.write(render("too_many_connections", self._server.config.server, close=True))
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._admitted:
            self.relay.client_data(data)

    def eof_received(self) -> None:
        self.relay.client_closed()

    def connection_lost(self, exc: Exception | None) -> None:
        self.relay.client_closed()
        self._server.discharge(self)

    def pause_writing(self) -> None:
        self.relay.client_full(True)

    def resume_writing(self) -> None:
        self.relay.client_full(False)

    def peer(self) -> tuple[bool, int | None]:
        return self._server.peer(self._transport.get_extra_info("peername"), self._transport.get_extra_info("sockname"))

    def connect(self, *, fresh: bool) -> Connection | None:
        connection = None if fresh else self._server.upstream.take()
        if connection is None:
            self._dial = self._server.loop.create_task(self._dial_for_relay())
        else:
            connection.owner = self.relay
        return connection

    async def _dial_for_relay(self) -> None:
        try:
            connection = await self._server.upstream.dial()
        except DialFailed as failure:
            self.relay.upstream_failed(failure.code)
            return
        connection.owner = self.relay
        self.relay.upstream_ready(connection)

    def cancel_connect(self) -> None:
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None


def _context(tls: TlsSpec) -> PinnedContext:
    """Return the upstream's TLS context; `ConfigError` or `TrustError` where pins or anchors cannot do their job."""
    return pinned_context(
        tls.anchors_pem, rules_of(tls), min_version=tls.min_version, pinned_only=tls.store == "pinned-only"
    )
