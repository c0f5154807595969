"""SHELL: the connections of one helper to its upstream: checks trust before a relay gets one, and keeps idle ones.

A connection whose path was not accepted never exists for the relay: the handshake itself fails (`trust.context`),
before any byte of a request. A connection takes requests in the epoch it was made in and no other (ADR 19). Their
number is not limited: every client has at most one, and clients are. Never repeats a request. Every failure is one
`DialFailed` with a code of `answers.ANSWERS`, and one fact.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import cast

from codingagents.proxies.connection import Connection
from codingagents.proxies.dial import DialFailed, Target, connected
from codingagents.proxies.facts_out import FactsOut
from codingagents.proxies.peer_uid import PeerUid
from codingagents.proxies.tls_connection import Handshake, TlsConnection
from codingagents.proxies.upstream_trust import Trust
from codingagents.rewrite.reach import Reach, split_host_port
from codingagents.rewrite.specs import RemoteSpec
from codingagents.trust import facts
from codingagents.trust.context import peer_trust
from codingagents.trust.errors import ConfigError
from codingagents.trust.pins import PinMismatchError

_ACCEPT_SECONDS = 0.001  # between two looks at whether the server has accepted


class Upstream:
    """Makes and keeps the connections of one helper; one trust for all of them."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        remote: RemoteSpec,
        trust: Trust | None,
        out: FactsOut,
        *,
        keep_from: int | None = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        """Dial `remote`; `trust` is None only for plain HTTP, which then reaches loopback addresses only.

        There a server that runs as the UID `keep_from` is refused: no pin shows who holds a loopback port. `now` is the
        clock of ages, in seconds; the loop's own where none is given.
        """
        if trust is None and remote.proxy is not None:
            raise ConfigError(f"[mcp_servers.{remote.name}] proxy goes with https only")
        self._loop = loop
        self._connect_seconds = remote.limits.connect_seconds
        self._trust = trust
        self._facts = out
        self._keep_from = keep_from
        self._peers = PeerUid() if trust is None and keep_from is not None else None
        self._standing: set[Connection] = set()
        self._idle: list[Connection] = []
        self._handshakes: set[asyncio.Future[TlsConnection | None]] = set()
        self.now = now or loop.time
        self.epoch = 0
        reach: Reach = "public"
        if trust is None:
            reach = "loopback"
        elif remote.allow_private or remote.connect_to is not None:
            reach = "any"
        host, port = (remote.host, remote.port) if remote.connect_to is None else split_host_port(remote.connect_to)
        self._target = Target(host, port, reach, remote.proxy)

    @property
    def open(self) -> int:
        """The number of connections that stand, idle ones included."""
        return len(self._standing)

    def take(self) -> Connection | None:
        """Return an idle connection that may be used, the latest first, or None."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable():
                return connection
            connection.close()
        return None

    def opened(self, connection: Connection) -> None:
        """Count a connection in."""
        self._standing.add(connection)

    def lost(self, connection: Connection) -> None:
        """Count a connection out."""
        self._standing.discard(connection)

    def keep(self, connection: Connection) -> None:
        """Take back a connection that is between requests."""
        if connection.epoch != self.epoch:
            connection.close()
            return
        connection.idle_since = self.now()
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """Drop a connection from the idle ones."""
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def close_idle(self, *, all_of_them: bool = False) -> None:
        """Close the idle connections that may not be used again."""
        for connection in list(self._idle):
            if all_of_them or not connection.usable():
                connection.close()

    def begin_epoch(self, trust: Trust | None = None) -> None:
        """Use no connection again that was made before now; those that are in use finish what they do.

        With a new `trust`, handshakes that are under way end, unfinished, and begin anew by it.
        """
        self.epoch += 1
        if trust is not None:
            self._trust = trust
            for secured in self._handshakes:
                if not secured.done():
                    secured.set_result(None)
        self.close_idle(all_of_them=True)

    def renew_trust(self, trust: Trust) -> tuple[int, int]:
        """Begin an epoch by `trust`, and break off what would not be accepted by it.

        Return how many of the connections that are in use live on, and how many were broken off.
        """
        self.begin_epoch(trust)
        used = [each for each in self._standing if isinstance(each, TlsConnection) and each.owner is not None]
        refused = [each for each in used if not trust.context.still_trusts(peer_trust(each.tls))]
        for connection in refused:
            if connection.owner is not None:
                connection.owner.upstream_failed("trust_withdrawn")
        return len(used) - len(refused), len(refused)

    async def dial(self) -> Connection:
        """Return a fresh, trusted connection within connect_seconds, or raise `DialFailed`, which was reported then."""
        try:
            async with asyncio.timeout(self._connect_seconds):
                return await self._dial()
        except DialFailed as failure:
            self._report(failure)
            raise
        except TimeoutError:
            late = DialFailed("connect_timeout", f"nothing within {self._connect_seconds:g} s")
            self._report(late)
            raise late from None

    def _report(self, failure: DialFailed) -> None:
        if failure.code != "pin_mismatch":  # that has a fact of its own
            self._facts.put(facts.UpstreamFailed(error_type=failure.code, detail=failure.detail))

    async def _dial(self) -> Connection:
        while (connection := await self._attempt()) is None:
            pass
        return connection

    async def _attempt(self) -> Connection | None:
        """Return a connection, or None where it took until another epoch began."""
        raw, name = await connected(self._loop, self._target)
        trust = self._trust
        try:
            connection = await (self._plain(raw, name) if trust is None else self._secured(raw, trust))
        except ssl.SSLError as error:
            raw.close()
            raise self._distrust(name, error) from None
        except OSError as error:
            raw.close()
            reason = error.strerror or type(error).__name__
            raise DialFailed("connect_failed", f"{name}: {reason}") from None
        except BaseException:
            raw.close()
            raise
        if connection is None:
            return None
        if connection.epoch != self.epoch:
            connection.close()
            return None
        if connection.ended:
            raise DialFailed("connect_failed", f"{name}: closed, or sent something, before anything was asked")
        if trust is not None and isinstance(connection, TlsConnection):
            for fact in trust.told(peer_trust(connection.tls), name):
                self._facts.put(fact)
        return connection

    async def _plain(self, raw: socket.socket, name: str) -> Connection:
        connection = Connection(self)
        await self._loop.create_connection(lambda: cast("asyncio.Protocol", connection), sock=raw)
        if self._peers is not None:
            try:
                await self._look_at_server(connection, name, self._peers)
            except BaseException:
                connection.close()
                raise
        connection.trusted = True  # there is nothing to pin: the configuration allowed plain HTTP to this machine
        return connection

    async def _secured(self, raw: socket.socket, trust: Trust) -> Connection | None:
        secured: asyncio.Future[TlsConnection | None] = self._loop.create_future()
        self._handshakes.add(secured)
        try:
            transport, _ = await self._loop.create_connection(lambda: Handshake(self, trust.context, secured), sock=raw)
            try:
                connection = await secured
            except BaseException:
                transport.abort()
                raise
        finally:
            self._handshakes.discard(secured)
        if connection is None:
            transport.abort()
            return None
        connection.trusted = peer_trust(connection.tls).allows_credential
        return connection

    async def _look_at_server(self, connection: Connection, name: str, peers: PeerUid) -> None:
        there, here = (connection.transport.get_extra_info(each)[:2] for each in ("peername", "sockname"))
        # Until it is accepted it is nobody's, and whoever waits with that must not be sent anything meanwhile.
        while (owner := peers.owner(there, here)) is not None and owner.established and not owner.inode:  # noqa: ASYNC110 -- the kernel announces nothing
            await asyncio.sleep(_ACCEPT_SECONDS)
        if owner is None or not owner.established:
            raise DialFailed("connect_failed", f"{name}: closed before anything was sent")
        if owner.uid == self._keep_from:
            raise DialFailed("server_is_agent", f"{name} is held by UID {owner.uid}, the agent's")

    def _distrust(self, name: str, error: ssl.SSLError) -> DialFailed:
        mismatch = error.__cause__
        if isinstance(mismatch, PinMismatchError):
            self._facts.put(facts.PinMismatch(address=name, expected=list(mismatch.expected), seen=list(mismatch.seen)))
            return DialFailed("pin_mismatch", "")
        if isinstance(error, ssl.SSLCertVerificationError):
            return DialFailed("tls_untrusted", f"{name}: {error.verify_message or error.reason}")
        return DialFailed("tls_failed", f"{name}: {error.reason or type(error).__name__}")
