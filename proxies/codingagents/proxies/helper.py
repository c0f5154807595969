"""ENTRY: one helper process, from its channel to its end: reads the spec, drops everything, serves, drains.

Called in a clone of the zygote (`codingagents.proxies.zygote`), with two descriptors and nothing else. Holds the
upstream credential in memory only. EOF on the channel ends the process at once; SIGTERM lets requests in flight finish
first. Decides nothing about requests: `relay`, `gate` and `heads` do.
"""

from __future__ import annotations

import asyncio
import contextlib
import encodings.idna  # noqa: F401 -- getaddrinfo loads it at the first dial, when root-only paths can no longer be read
import os
import signal
import socket
from typing import NoReturn

import uvloop

from codingagents.proxies import confinement
from codingagents.proxies.facts_out import FactsOut
from codingagents.proxies.server import Server
from codingagents.rewrite.specs import HelperSpec
from codingagents.trust import wire
from codingagents.trust.errors import AgentError, WireError
from codingagents.trust.facts import Failed, Ready
from codingagents.trust.selftest import self_test

DRAIN_SECONDS = 5.0
EXIT_FAILED = 1
_MAX_REASON = 500


def preload() -> None:
    """Do once, in the zygote, what every helper would do: build decoders, try the pin check, load what loads late.

    Raises `TrustError` where this machine's TLS library does not refuse a wrong pin: no helper may serve then.
    """
    with contextlib.suppress(WireError):
        wire.decode(HelperSpec, b"{}")
    wire.encode(Ready(open_fds=[]))
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


def main(channel: int, listener: int, sock_diag: int | None = None) -> int:
    """Be the helper; return the exit code. Every failure is told on the channel before.

    `sock_diag` is a netlink socket of the listener's network namespace, where that is not this process's own.
    """
    try:
        spec = _read_spec(channel)
        if spec is None:
            return 0
        confinement.assert_nothing_foreign(sock_diag=sock_diag is not None)
        confinement.drop(spec.uid, spec.gid)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(spec, socket.socket(fileno=channel), socket.socket(fileno=listener)))
    except Exception as error:  # the last place that can say why
        report_failure(channel, error)
        return EXIT_FAILED
    return 0


def _read_spec(channel: int) -> HelperSpec | None:
    """Return the spec, or None where the supervisor went away before it sent one."""
    lines = wire.LineBuffer()
    while data := os.read(channel, 1 << 16):
        match lines.feed(data):
            case []:
                continue
            case [line]:
                spec: HelperSpec = wire.decode(HelperSpec, line)
                return spec
            case _:
                raise WireError("the channel carries one spec, and nothing after it")
    return None


async def _serve(spec: HelperSpec, channel: socket.socket, listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    channel.setblocking(False)
    facts = FactsOut(loop, channel)
    loop.add_reader(channel, _channel_readable, channel)
    terminated = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, terminated.set)
    server = Server(loop, spec, facts)
    await server.start(listener)
    facts.put(Ready(open_fds=[f"{number} {target}" for number, target in confinement.open_descriptors().items()]))
    await terminated.wait()
    await server.drain(DRAIN_SECONDS)
    facts.flush()


def _channel_readable(channel: socket.socket) -> None:
    """End the process: at EOF as asked, at anything else because nothing may follow the spec."""
    try:
        data = channel.recv(1)
    except BlockingIOError:
        return
    except ConnectionError:
        data = b""
    if data:
        report_failure(channel.fileno(), WireError("the channel carries one spec, and nothing after it"))
    _end(EXIT_FAILED if data else 0)


def _end(status: int) -> NoReturn:
    os._exit(status)
