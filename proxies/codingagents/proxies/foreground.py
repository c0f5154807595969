"""ENTRY: `python -I -m codingagents.proxies.foreground --fd N`: one helper in the foreground, without a supervisor.

`rewrite.foreground` starts it and hands it a `ForegroundSpec` in descriptor N. It is a session's helper in all that
meets clients and the server (`server`), with a console instead of a supervisor at the other end of its facts. SIGINT
and SIGTERM drain it, SIGHUP reads the files of its secrets and of its trust again. Standard output is written as a
terminal is: a reader who stops reading stops the helper.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import uvloop

from codingagents.proxies import console, helper
from codingagents.proxies.facts_out import FactsOut
from codingagents.proxies.foreground_io import Console, bearer_file, confine, listening
from codingagents.proxies.server import Server
from codingagents.proxies.upstream_trust import Trust
from codingagents.rewrite.clients.base import loopback_url
from codingagents.rewrite.foreground_plan import ForegroundSpec
from codingagents.rewrite.foreground_trust import read_trust
from codingagents.rewrite.renewal import SecretFiles
from codingagents.rewrite.secrets import SecretSource
from codingagents.trust import wire
from codingagents.trust.errors import EXIT_OK, EXIT_REFUSED, EXIT_USAGE, AgentError
from codingagents.trust.facts import AnyFact, SecretsTaken, TrustTaken
from codingagents.trust.terminal import printable
from codingagents.trust.vocabulary import SecretName

_EXIT_INTERRUPTED = 130


def main(arguments: list[str]) -> int:
    """Take `--fd N`, be the helper, and return the exit code."""
    if len(arguments) != 2 or arguments[0] != "--fd" or not arguments[1].isdecimal():
        return _fail("this is started by: coding-agents helper run", EXIT_USAGE)
    try:
        spec = _read_spec(int(arguments[1]))
        helper.preload()
        confined = confine()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(spec, confined))
    except AgentError as error:
        return _fail(str(error), error.exit_code)


def _fail(sentence: str, code: int) -> int:
    sys.stderr.write(f"coding-agents: {printable(sentence)}\n")
    return code


def _read_spec(descriptor: int) -> ForegroundSpec:
    with open(descriptor, "rb") as file:
        spec: ForegroundSpec = wire.decode(ForegroundSpec, file.read())
    return spec


async def _run(spec: ForegroundSpec, confined: str) -> int:
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        stop = _Stop()
        listener = stack.enter_context(listening(spec))
        port = 0 if spec.socket_path else listener.getsockname()[1]
        told = msgspec.structs.replace(spec.helper, listen_port=port)
        screen = Console(spec, lambda: stop.ask(EXIT_REFUSED))
        bearer = stack.enter_context(bearer_file(spec))
        # The facts of this very process, read off the other end of their channel as a supervisor would.
        ours, theirs = map(stack.enter_context, socket.socketpair())
        ours.setblocking(False)
        theirs.setblocking(False)
        facts_out = FactsOut(loop, theirs)
        lines = wire.LineBuffer()

        def hear() -> None:
            with contextlib.suppress(BlockingIOError):
                for line in lines.feed(ours.recv(1 << 20)):
                    screen.fact(wire.decode(AnyFact, line))

        loop.add_reader(ours, hear)
        server = Server(loop, told, facts_out, alone=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.ask)
        renewing = _Renewing(spec, server)
        loop.add_signal_handler(signal.SIGHUP, lambda: renewing.renew(screen.fact))
        await server.start(listener)
        url = f"http://localhost{told.remote.path}" if spec.socket_path else loopback_url(told.remote, port)
        screen.introduce(console.Reached(url, spec.socket_path, bearer), confined)
        code = await stop.asked()
        draining = loop.create_task(server.drain(helper.DRAIN_SECONDS))
        stop.hurry = draining.cancel
        with contextlib.suppress(asyncio.CancelledError):
            await draining
        facts_out.flush()
        hear()
        return _EXIT_INTERRUPTED if draining.cancelled() else code


class _Stop:
    """The end, once it is asked for; asked for again, it does not wait for what is in flight."""

    def __init__(self) -> None:
        self._asked: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.hurry: Callable[[], object] = lambda: None

    def ask(self, code: int = EXIT_OK) -> None:
        if self._asked.done():
            self.hurry()
        else:
            self._asked.set_result(code)

    async def asked(self) -> int:
        return await self._asked


class _Renewing:
    """Reads the files of secrets and of trust again; a session's helper is told by its supervisor instead."""

    def __init__(self, spec: ForegroundSpec, server: Server) -> None:
        self._spec = spec
        self._server = server
        self._secrets = dict(spec.helper.secrets)
        sources = [SecretSource(name=SecretName(each.name), kind=each.kind, place=each.place) for each in spec.sources]
        self._files = SecretFiles(
            self._secrets, sources=sources, env_file=Path(spec.env_file), headers=spec.helper.remote.headers
        )

    def renew(self, tell: Callable[[AnyFact], None]) -> None:
        """Do so, and `tell` what came of it."""
        tell(self._renew_secrets())
        if self._server.trust is not None:
            tell(self._renew_trust(self._server.trust))

    def _renew_trust(self, former: Trust) -> TrustTaken:
        try:
            tls = read_trust(Path(self._spec.config), Path(self._spec.overrides), self._spec.helper.remote)
            return self._server.renew_trust(tls)
        except AgentError as error:
            problem = str(error)
        except OSError as error:
            problem = f"{error.filename or self._spec.config}: {error.strerror}"
        return TrustTaken(store_sha256=former.store_sha256, problem=problem)

    def _renew_secrets(self) -> SecretsTaken:
        try:
            changed = self._files.changed()
            if changed:
                self._server.renew(self._secrets | changed)
        except AgentError as error:
            return SecretsTaken(names=sorted(self._secrets), problem=str(error))
        self._secrets |= changed
        return SecretsTaken(names=sorted(changed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
