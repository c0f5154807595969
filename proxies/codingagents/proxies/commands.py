"""SHELL: what the supervisor says to a running helper, line by line on the channel, and the helper's answers.

What a command means is done by `server`. A line that is none ends the helper: the two sides disagree on what they
speak. EOF ends it too, at once: the supervisor is gone, or wants it so.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import assert_never

from codingagents.proxies.facts_out import FactsOut
from codingagents.proxies.server import Server
from codingagents.rewrite.specs import AnyHelperCommand, NewSecrets, NewTrust, Ping
from codingagents.trust import wire
from codingagents.trust.errors import AgentError, WireError
from codingagents.trust.facts import Failed, SecretsTaken, TrustTaken

EXIT_FAILED = 1
_MAX_REASON = 500


class Commands:
    """The reading half of the channel, from after the spec on."""

    def __init__(
        self, channel: socket.socket, lines: wire.LineBuffer, server: Server, out: FactsOut, end: Callable[[int], None]
    ) -> None:
        """Read on where `lines` stopped; `end` ends the process with an exit code."""
        self._channel = channel
        self._lines = lines
        self._server = server
        self._out = out
        self._end = end

    def readable(self) -> None:
        """Read and obey what has come, or end at EOF."""
        try:
            data = self._channel.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(0)
            return
        try:
            self.obey(self._lines.feed(data))
        except WireError as error:
            self._out.put(Failed(reason=str(error)[:_MAX_REASON]))
            self._out.flush()
            self._end(EXIT_FAILED)

    def obey(self, lines: list[bytes]) -> None:
        """Do what `lines` say, in their order; `WireError` at the first that is no command."""
        for line in lines:
            command: AnyHelperCommand = wire.decode(AnyHelperCommand, line)
            match command:
                case Ping(number=number):
                    self._out.put(self._server.pong(number))
                case NewSecrets():
                    self._out.put(self._renew(command))
                case NewTrust():
                    self._out.put(self._renew_trust(command))
                case _:
                    assert_never(command)
        self._out.flush()

    def _renew(self, command: NewSecrets) -> SecretsTaken:
        names = sorted(command.secrets)
        try:
            self._server.renew(command.secrets)
        except AgentError as error:
            return SecretsTaken(names=names, problem=str(error))
        return SecretsTaken(names=names)

    def _renew_trust(self, command: NewTrust) -> TrustTaken:
        try:
            return self._server.renew_trust(command.tls)
        except AgentError as error:
            trust = self._server.trust
            return TrustTaken(store_sha256=trust.store_sha256 if trust else "", problem=str(error)[:_MAX_REASON])
