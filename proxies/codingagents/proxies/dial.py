"""SHELL: TCP connections to an upstream: resolves once, dials what was judged, asks a proxy for a tunnel.

Several addresses are raced (RFC 8305; PyPI `aiohappyeyeballs`). What comes out is a connected socket that has carried
nothing but, through a proxy, the CONNECT request. Trusts nobody: `upstream` does TLS on it. Addresses are judged by
`reach`, the proxy's answer by `tunnel`.

Through a proxy, the *proxy* resolves the target and the address rule cannot hold for what it finds; it holds for a
target that is an address already. The proxy's own address may be a private one: it was configured.
"""

from __future__ import annotations

import asyncio
import socket
from typing import NamedTuple

import aiohappyeyeballs

from codingagents.proxies.sockets import set_options
from codingagents.rewrite import tunnel
from codingagents.rewrite.reach import Reach, is_address, may_dial, split_host_port

STAGGER_SECONDS = 0.25  # "Connection Attempt Delay", RFC 8305 5
_MAX_DETAIL = 200


class DialFailed(Exception):  # noqa: N818 -- an outcome with a code, not an error of ours
    """No connection; `code` is a key of `answers.ANSWERS`, `detail` is for the record and holds no secret."""

    def __init__(self, code: str, detail: str) -> None:
        """Fail for `code`."""
        super().__init__(code)
        self.code = code
        self.detail = detail[:_MAX_DETAIL]


class Target(NamedTuple):
    """Where to, which addresses may be dialed for it, and the "HOST:PORT" of a proxy on the way."""

    host: str
    port: int
    reach: Reach
    proxy: str | None = None


async def connected(loop: asyncio.AbstractEventLoop, target: Target) -> tuple[socket.socket, str]:
    """Return a connected socket, and what its other end is called in the record; or raise `DialFailed`."""
    if target.proxy is None:
        return await _dialed(loop, target)
    if is_address(target.host) and not may_dial(target.host, target.reach):
        raise DialFailed("address_refused", f"{target.host} is no address that may be asked of the proxy")
    try:
        raw, _ = await _dialed(loop, Target(*split_host_port(target.proxy), "any"))
    except DialFailed as failure:
        raise DialFailed("proxy_failed", f"the proxy cannot be reached: {failure.detail}") from None
    try:
        await _tunnelled(loop, raw, target)
    except BaseException:
        raw.close()
        raise
    return raw, f"{target.host} port {target.port} through the proxy"


async def _tunnelled(loop: asyncio.AbstractEventLoop, raw: socket.socket, target: Target) -> None:
    answer = tunnel.Answer()
    try:
        await loop.sock_sendall(raw, tunnel.request(target.host, target.port))
        while not answer.feed(await loop.sock_recv(raw, tunnel.MAX_ANSWER)):
            pass
    except tunnel.TunnelError as error:
        raise DialFailed(error.code, str(error)) from None
    except OSError as error:
        raise DialFailed("proxy_failed", f"the proxy broke off: {error.strerror or type(error).__name__}") from None


async def _dialed(loop: asyncio.AbstractEventLoop, target: Target) -> tuple[socket.socket, str]:
    """Connect to one of the addresses of `target` that are within its reach; the fastest, or the only one."""
    try:
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise DialFailed("dns_failed", f"{target.host}: {error}") from None
    infos = list(dict.fromkeys(info for info in found if may_dial(str(info[4][0]), target.reach)))
    if not infos:
        raise DialFailed("address_refused", f"{target.host} resolves to no address that may be dialed")
    try:
        raw = await aiohappyeyeballs.start_connection(
            infos, happy_eyeballs_delay=STAGGER_SECONDS, loop=loop, socket_factory=_open
        )
    except (OSError, RuntimeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        addresses = ", ".join(str(info[4][0]) for info in infos)
        raise DialFailed("connect_failed", f"{addresses} port {target.port}: {reason}") from None
    return raw, f"{raw.getpeername()[0]} port {target.port}"


def _open(info: aiohappyeyeballs.AddrInfoType) -> socket.socket:
    raw = socket.socket(info[0], info[1], info[2])
    set_options(raw)
    return raw
