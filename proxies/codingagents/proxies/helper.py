"""ENTRY: one helper process, from its channel to its end: reads the spec, drops everything, serves, drains.

Called in a clone of the zygote (`codingagents.proxies.zygote`), with two or three descriptors and nothing else. Holds
the upstream credential in memory only. EOF on the channel ends the process at once; SIGTERM lets requests in flight
finish first. Decides nothing about requests: `relay`, `gate` and `heads` do.
"""

from __future__ import annotations

import asyncio
import contextlib
import encodings.idna  # noqa: F401 -- getaddrinfo loads it at the first dial, when root-only paths can no longer be read
import os
import signal
import socket
import ssl
from dataclasses import dataclass

from codingagents.proxies import compiled, confinement, descriptors
from codingagents.proxies.commands import EXIT_FAILED, Commands
from codingagents.proxies.facts_out import FactsOut
from codingagents.proxies.listening import tls_context
from codingagents.proxies.loops import new_event_loop
from codingagents.proxies.needs import needs_of
from codingagents.proxies.server import Server
from codingagents.rewrite.specs import AnyHelperCommand, HelperSpec
from codingagents.trust import wire
from codingagents.trust.errors import AgentError, WireError
from codingagents.trust.events import Layer
from codingagents.trust.facts import Failed, Ready
from codingagents.trust.selftest import self_test

DRAIN_SECONDS = 5.0
_MAX_REASON = 500


def preload() -> None:
    """Do once, in the zygote, what every helper would do: build decoders, try the pin check, load what loads late.

    Raises `TrustError` where this machine's TLS library does not refuse a wrong pin, and `ConfigError` where what is
    compiled is not what the sources say: no helper may serve then.
    """
    compiled.check()
    for kind in (HelperSpec, AnyHelperCommand):
        with contextlib.suppress(WireError):
            wire.decode(kind, b"{}")
    wire.encode_lines([Ready(open_fds=[])])
    confinement.preload()
    self_test()


def report_failure(channel: int, error: BaseException) -> None:
    """Tell the supervisor why this process is about to end; best effort, since the channel may be what failed."""
    # An AgentError is written to be shown; another exception's text is not known to be free of secrets.
    text = str(error) if isinstance(error, AgentError) else f"internal error: {_where(error)}"
    with contextlib.suppress(OSError):
        os.set_blocking(channel, False)
        os.write(channel, wire.encode(Failed(reason=text[:_MAX_REASON])))


def _where(error: BaseException) -> str:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f"{os.path.basename(frame.tb_frame.f_code.co_filename)}:{frame.tb_lineno}" if frame else "unknown place"
    return f"{type(error).__name__} at {place}"


@dataclass(slots=True)
class _Told:
    """What the supervisor sent until now."""

    spec: HelperSpec
    rest: wire.LineBuffer  # what may have come of further lines
    commands: list[bytes]


def main(channel: int, listener: int, sock_diag: int | None = None) -> int:
    """Be the helper; return the exit code. Every failure is told on the channel before.

    `sock_diag` is a netlink socket of the listener's network namespace, where that is not this process's own.
    """
    try:
        told = _read_spec(channel)
        if told is None:
            return 0
        listen_tls = tls_context(told.spec)
        layers = confinement.confine(
            told.spec.uid, told.spec.gid, needs_of(told.spec.remote), sock_diag=sock_diag is not None
        )
        diag = None if sock_diag is None else socket.socket(fileno=sock_diag)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            sockets = socket.socket(fileno=channel), socket.socket(fileno=listener)
            runner.run(_serve(told, layers, *sockets, listen_tls=listen_tls, sock_diag=diag))
    except Exception as error:  # the last place that can say why
        report_failure(channel, error)
        return EXIT_FAILED
    return 0


def _read_spec(channel: int) -> _Told | None:
    """Return the spec and what came with it, or None where the supervisor went away before it sent one."""
    lines = wire.LineBuffer()
    while data := os.read(channel, 1 << 16):
        complete = lines.feed(data)
        if complete:
            spec: HelperSpec = wire.decode(HelperSpec, complete[0])
            return _Told(spec, lines, complete[1:])
    return None


async def _serve(
    told: _Told,
    layers: list[Layer],
    channel: socket.socket,
    listener: socket.socket,
    *,
    listen_tls: ssl.SSLContext | None,
    sock_diag: socket.socket | None,
) -> None:
    loop = asyncio.get_running_loop()
    channel.setblocking(False)
    facts = FactsOut(loop, channel)
    terminated = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, terminated.set)
    server = Server(loop, told.spec, facts, listen_tls=listen_tls, sock_diag=sock_diag)
    del told.spec  # with the text of the trust anchors
    await server.start(listener)
    listing = [f"{number} {target}" for number, target in descriptors.open_descriptors().items()]
    trust = server.trust
    if trust is None:
        facts.put(Ready(open_fds=listing, layers=layers))
    else:
        pins = trust.layer(server.config.server)
        facts.put(Ready(open_fds=listing, layers=[*layers, pins], store_sha256=trust.store_sha256))
    commands = Commands(channel, told.rest, server, facts, os._exit)
    commands.obey(told.commands)
    loop.add_reader(channel, commands.readable)
    await terminated.wait()
    await server.drain(DRAIN_SECONDS)
    facts.flush()
