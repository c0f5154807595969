"""Dialing on real sockets: which addresses, in which order, and what is left open."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
import uvloop

from codingagents.proxies.dial import STAGGER_SECONDS, DialFailed, Target, connected
from descriptors import sockets

Info = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int]]


class Resolver:
    """A loop that answers each name with the addresses that the test gives; everything else is the loop's own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *addresses: str) -> None:
        self.asked = 0
        self._loop = loop
        self._addresses = addresses

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)

    async def getaddrinfo(self, host: str, port: int, **_: object) -> list[Info]:
        self.asked += 1
        if not self._addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        kind = socket.SOCK_STREAM
        return [
            (socket.AF_INET6 if ":" in each else socket.AF_INET, kind, 6, "", (each, port)) for each in self._addresses
        ]


def in_a_loop(test: Callable[[asyncio.AbstractEventLoop], Awaitable[None]]) -> None:
    """Run `test`, and see that it left no socket open."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        before = sockets()
        async with asyncio.timeout(20):
            await test(loop)
        await asyncio.sleep(0)
        assert sockets() <= before

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@contextmanager
def listening(address: str = "127.0.0.1", port: int = 0) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family) as server:
        server.setblocking(False)
        yield server


@contextmanager
def full(address: str, port: int) -> Iterator[None]:
    """Listen on `address` with a backlog that is full: who connects waits, like for a machine that does not answer."""
    with socket.socket() as server, socket.socket() as first, socket.socket() as second:
        server.bind((address, port))
        server.listen(0)
        first.connect((address, port))
        second.setblocking(False)
        second.connect_ex((address, port))
        yield


def test_the_sockets_have_keep_alive_and_no_delay() -> None:
    """As the kernel has it, and before anything is sent."""

    async def test(loop: asyncio.AbstractEventLoop) -> None:
        with listening() as server:
            raw, name = await connected(loop, Target("127.0.0.1", server.getsockname()[1], "any"))
            with raw:
                assert name == f"127.0.0.1 port {server.getsockname()[1]}"
                options = [
                    (socket.SOL_SOCKET, socket.SO_KEEPALIVE), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL), (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
                    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
                ]  # fmt: skip
                assert [raw.getsockopt(*option) for option in options] == [1, 60, 15, 4, 1]

    in_a_loop(test)


def test_a_silent_address_does_not_hold_up_the_next() -> None:
    """RFC 8305: after the stagger the next is tried, and the first to answer is taken; the loser is closed."""

    async def test(loop: asyncio.AbstractEventLoop) -> None:
        with listening("127.0.0.2") as server:
            port = server.getsockname()[1]
            with full("127.0.0.1", port):
                resolver = Resolver(loop, "127.0.0.1", "127.0.0.2")
                begin = loop.time()
                raw, _ = await connected(resolver, Target("two.test", port, "loopback"))  # type: ignore[arg-type]  # see Resolver
                with raw:
                    assert raw.getpeername() == ("127.0.0.2", port)
                    assert loop.time() - begin >= STAGGER_SECONDS * 0.9
                assert resolver.asked == 1

    in_a_loop(test)


def test_an_address_that_refuses_gives_way_at_once() -> None:
    """No stagger is waited for; IPv6 and IPv4 alternate."""

    async def test(loop: asyncio.AbstractEventLoop) -> None:
        with listening() as server:
            port = server.getsockname()[1]
            resolver = Resolver(loop, "::1", "127.0.0.1")
            raw, _ = await connected(resolver, Target("two.test", port, "loopback"))  # type: ignore[arg-type]  # see Resolver
            with raw:
                assert raw.getpeername() == ("127.0.0.1", port)

    in_a_loop(test)


def test_only_addresses_within_reach_are_raced() -> None:
    """A name that resolves to a public address and into the machine reaches nothing in the machine."""

    async def test(loop: asyncio.AbstractEventLoop) -> None:
        with listening() as server:
            port = server.getsockname()[1]
            resolver = Resolver(loop, "127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254", "fd00:ec2::254")
            with pytest.raises(DialFailed) as caught:
                await connected(resolver, Target("rebound.test", port, "public"))  # type: ignore[arg-type]  # see Resolver
            assert caught.value.code == "address_refused"
            with pytest.raises(BlockingIOError):
                server.accept()
            raw, _ = await connected(resolver, Target("rebound.test", port, "loopback"))  # type: ignore[arg-type]  # see Resolver
            raw.close()
            server.accept()[0].close()  # the control

    in_a_loop(test)


def test_failures_have_a_code_and_name_what_was_tried() -> None:
    """No name, no address, nobody there."""

    async def test(loop: asyncio.AbstractEventLoop) -> None:
        with listening() as server:
            port = server.getsockname()[1]
        for addresses, code, detail in [
            ((), "dns_failed", "none.test"),
            (("10.0.0.1",), "address_refused", "none.test resolves to no address"),
            (("127.0.0.1", "127.0.0.2"), "connect_failed", "127.0.0.1, 127.0.0.2 port"),
        ]:
            reach = "public" if code == "address_refused" else "any"
            with pytest.raises(DialFailed) as caught:
                await connected(Resolver(loop, *addresses), Target("none.test", port, reach))  # type: ignore[arg-type]  # see Resolver
            assert caught.value.code == code
            assert detail in caught.value.detail

    in_a_loop(test)


def test_whoever_gives_up_leaves_nothing_open() -> None:
    """Cancelled in the race, and cancelled while the proxy keeps silent."""

    async def test(loop: asyncio.AbstractEventLoop) -> None:
        with listening("127.0.0.3") as proxy:
            port = proxy.getsockname()[1]
            with full("127.0.0.1", port), full("127.0.0.2", port):
                resolver = Resolver(loop, "127.0.0.1", "127.0.0.2")
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(2 * STAGGER_SECONDS):
                        await connected(resolver, Target("two.test", port, "any"))  # type: ignore[arg-type]  # see Resolver
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await connected(loop, Target("two.test", 443, "public", f"127.0.0.3:{port}"))
            client, _ = proxy.accept()
            with client:
                assert client.recv(1000).startswith(b"CONNECT two.test:443 HTTP/1.1\r\n")
                assert client.recv(1000) == b""

    in_a_loop(test)


@pytest.mark.parametrize(
    ("host", "reach", "asked"),
    [
        ("10.0.0.1", "public", False),
        ("::1", "public", False),
        ("10.0.0.1", "any", True),
        ("inner.test", "public", True),
    ],
)
def test_a_private_address_is_not_even_asked_of_the_proxy(host: str, reach: str, asked: bool) -> None:
    """A name is the proxy's to resolve; an address is judged here. The proxy itself may be anywhere."""

    async def test(loop: asyncio.AbstractEventLoop) -> None:
        with listening() as proxy:
            place = f"127.0.0.1:{proxy.getsockname()[1]}"
            attempt = asyncio.ensure_future(connected(loop, Target(host, 443, reach, place)))  # type: ignore[arg-type]  # parametrized
            if asked:
                client, _ = await loop.sock_accept(proxy)
                with client:
                    assert (await loop.sock_recv(client, 1000)).startswith(b"CONNECT ")
            with pytest.raises(DialFailed) as caught:
                await attempt
            assert caught.value.code == ("proxy_failed" if asked else "address_refused")

    in_a_loop(test)
