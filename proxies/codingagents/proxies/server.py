"""SHELL: the helper's listening side: its clients, their number, their deadlines, and what they share.

No decision about content here. One timer for all connections: relays say when they want to be looked at (`deadline`).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import mmap
import socket
import ssl
import time
from collections.abc import Mapping
from typing import cast

from codingagents.proxies.clients import Client, PlainClient, TlsClient
from codingagents.proxies.departures import Departures
from codingagents.proxies.doorway import Doorway
from codingagents.proxies.facts_out import FactsOut
from codingagents.proxies.listening import Peers, check_family, listen
from codingagents.proxies.loops import give_back_memory
from codingagents.proxies.relay import HEAD_SECONDS
from codingagents.proxies.relay_config import PinsDate, relay_config
from codingagents.proxies.upstream import Upstream
from codingagents.proxies.upstream_trust import Trust, trust_of
from codingagents.rewrite.specs import HelperSpec, TlsSpec
from codingagents.trust.errors import ConfigError
from codingagents.trust.facts import Pong, Refused, TrustTaken
from codingagents.trust.vocabulary import Secret

_HANDSHAKES_BESIDES = 16  # TLS handshakes under way, besides as many as connections; `needs` has descriptors for these
_LAST_WORDS_SECONDS = 0.2  # for the answers to those who are given up
_BUFFER_BYTES = 256 * 1024  # as much as uvloop takes off a socket at once
_LARGE_STORE = 64 * 1024  # characters of PEM; reading it in leaves holes of twice its size behind
_SWEEP_SECONDS = 5.0  # the resolution of idle deadlines, where no shorter limit is set


class Server:
    """The helper's socket and everything behind it. Is the `House` of its clients."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        spec: HelperSpec,
        out: FactsOut,
        *,
        listen_tls: ssl.SSLContext | None = None,
        sock_diag: socket.socket | None = None,
        alone: bool = False,
    ) -> None:
        """Prepare all that can fail (`ConfigError`, `TrustError`) before the first client.

        `listen_tls` makes the listener one of https; `sock_diag` as in `peer_uid.PeerUid`. `alone`: there is no agent
        that the credential is kept from, and a plain http server may be the caller's own.
        """
        remote = spec.remote
        tls = remote.tls
        self.loop = loop
        self.out = out
        self._limits = remote.limits
        self._secrets = dict(spec.secrets)
        self._listen = remote.listen
        self._listen_tls = listen_tls
        self._pins_date = PinsDate(time.time, lambda: self.upstream.close_idle(all_of_them=True))
        self.config = relay_config(spec, self._pins_date.refusal)
        self.trust = None if tls is None else self._trusting(tls, spec.secrets)
        if self.trust is not None:
            self._pins_date.renew(self.trust.pinning)
        # Root is nobody to be kept from a secret, and no session's agent.
        keep_from = spec.agent_uid if spec.secrets and spec.agent_uid and not alone else None
        self.upstream = Upstream(loop, remote, self.trust, out, keep_from=keep_from)
        self.departures = Departures(loop)
        self.buffer = memoryview(mmap.mmap(-1, _BUFFER_BYTES))  # pages exist once they are used, unlike a bytearray's
        self._peers = Peers(spec, sock_diag) if self.config.gate.wants_uid else None
        self._clients: set[Client] = set()
        self._most_clients = 0  # since memory was given back
        self._all_gone = asyncio.Event()
        self._server: asyncio.Server | Doorway | None = None
        self._sweep_seconds = min(_SWEEP_SECONDS, HEAD_SECONDS / 4, remote.limits.idle_seconds / 4)
        self._sweeping = False

    async def start(self, listener: socket.socket) -> None:
        """Accept from now on; `ConfigError` where `listener` is not of the kind that was specified."""
        check_family(listener, self._listen)
        if self._listen_tls is None:
            self._server = await listen(self.loop, listener, lambda: cast("asyncio.Protocol", PlainClient(self)))
        else:
            most = self._limits.connections + _HANDSHAKES_BESIDES
            self._server = Doorway(
                self.loop,
                listener,
                self._listen_tls,
                lambda: cast("asyncio.BufferedProtocol", TlsClient(self)),
                self,
                most=most,
            )

    async def drain(self, seconds: float) -> None:
        """Accept no more, let what is in flight finish within `seconds`, then break off the rest.

        The listener lives on in the supervisor: who connects from now on waits there for the next helper.
        """
        if self._server is not None:
            self._server.close()
        for client in list(self._clients):
            client.relay.drain()
        await self._wait_for_clients(seconds)
        for client in list(self._clients):
            client.relay.give_up()
        await self._wait_for_clients(_LAST_WORDS_SECONDS)
        self.upstream.close_idle(all_of_them=True)

    async def _wait_for_clients(self, seconds: float) -> None:
        """Return when all are gone, or after `seconds`."""
        if self._clients:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_gone.wait(), seconds)

    def renew(self, secrets: Mapping[str, Secret]) -> None:
        """Attach and show new values from the next request on, on connections that never carried the former ones.

        Raises `ConfigError` where they are unfit; then nothing changes.
        """
        if secrets.keys() != self._secrets.keys():
            raise ConfigError("secrets are renewed under the names that the helper was started with")
        trust = self.trust
        if trust is not None and trust.spec.client_certificate is not None:
            trust = self._trusting(trust.spec, secrets)
        self.config.attachment.renew(secrets)
        self._secrets = dict(secrets)
        self.upstream.begin_epoch(None if trust is self.trust else trust)
        self.trust = trust

    def renew_trust(self, tls: TlsSpec) -> TrustTaken:
        """Trust the server as `tls` says from now on; what it would not accept is broken off at once.

        Raises `ConfigError` or `TrustError` where it is unfit; then nothing changes.
        """
        if self.trust is None:
            raise ConfigError("the server is reached by plain http, where there is nothing to trust")
        trust = self._trusting(tls, self._secrets)
        if trust.pinning.expired(datetime.datetime.now(datetime.UTC).date()):
            raise ConfigError("the pins are past the date on which they expire")
        self.trust = trust
        self._pins_date.renew(trust.pinning)
        kept, closed = self.upstream.renew_trust(trust)
        layers = [trust.layer(self.config.server)]
        return TrustTaken(store_sha256=trust.store_sha256, kept=kept, closed=closed, layers=layers)

    def _trusting(self, tls: TlsSpec, secrets: Mapping[str, Secret]) -> Trust:
        if len(tls.anchors_pem) > _LARGE_STORE:
            self.loop.call_soon(give_back_memory)  # once nobody holds the text any more, nor the former anchors
        return trust_of(tls, secrets, attaches=bool(self.config.attachment.description))

    def pong(self, number: int) -> Pong:
        """Return the counts of now, as the answer to ping `number`."""
        health = self.out.health()
        return Pong(
            number=number,
            connections=len(self._clients),
            upstream_connections=self.upstream.open,
            requests=health.requests,
            errors=health.errors,
            refused=health.refused,
        )

    def admit(self, client: Client) -> bool:
        """Count `client` in, or say that there are too many."""
        if len(self._clients) >= self._limits.connections and not self._make_room(client):
            return False
        self._clients.add(client)
        self._most_clients = max(self._most_clients, len(self._clients))
        self._all_gone.clear()
        if not self._sweeping:
            self._sweeping = True
            self.loop.call_later(self._sweep_seconds, self._sweep)
        return True

    def _make_room(self, newcomer: Client) -> bool:
        """Drop what other users opened, where there is no room for the agent: anybody on the machine can connect."""
        if self._peers is None or not newcomer.peer()[0]:
            return False
        for client in [client for client in self._clients if not client.peer()[0]]:
            client.relay.client_closed()
            self.discharge(client)
        return len(self._clients) < self._limits.connections

    def is_welcome(self, raw: socket.socket) -> bool:
        """Say whether a connection whose handshake is not over is the agent's; see `Doorway`."""
        return self._peers is not None and self._peers.is_agents(raw)

    def turned_away(self) -> None:
        """Take note of a connection that ended before its handshake, for want of room."""
        self.out.put(Refused(reason="too_many_connections", peer_user_id=None))

    def discharge(self, client: Client) -> None:
        """Count `client` out."""
        self._clients.discard(client)
        if not self._clients:
            self._all_gone.set()

    def _sweep(self) -> None:
        now = self.loop.time()
        for client in list(self._clients):
            client.relay.tick(now)
        self.upstream.close_idle()
        if len(self._clients) <= self._most_clients // 2:
            self._most_clients = len(self._clients)
            give_back_memory()
        self._sweeping = bool(self._clients or self.upstream.open)
        if self._sweeping:
            self.loop.call_later(self._sweep_seconds, self._sweep)

    def look(self, transport: asyncio.Transport) -> tuple[bool, int | None]:
        """Return (allowed, UID) of a peer as the kernel tells it now."""
        return self._peers.look(transport) if self._peers is not None else (False, None)
