"""A helper that reaches its server through Debian's Squid: what passes, what the proxy sees, and how it fails."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pytest

import pki
from codingagents.rewrite.specs import LimitsSpec, Ping, PinSpec
from codingagents.trust import facts
from helper_rig import BEARER, PATIENCE, TOKEN, Helper, Zygote, ask, closing_children, code, read_all, status
from scripted_upstream import Exchange, Upstream, answer_ok
from squid import Squid

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="helpers take UIDs of their own: needs root")


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with closing_children(), Zygote() as started:
        yield started


class Wire:
    """A proxy of the test's: writes `answer` to who connects, then closes; records what it was sent."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.seen: list[bytes] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._server.getsockname()[1]}"

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                with client:
                    self.seen.append(client.recv(1 << 16))
                    client.sendall(self._answer)

    @contextmanager
    def running(self) -> Iterator[Wire]:
        thread = threading.Thread(target=self._serve)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown(socket.SHUT_RDWR)
            thread.join()
            self._server.close()


def test_requests_pass_and_the_tunnel_is_kept(zygote: Zygote, tmp_path: Path) -> None:
    """Several requests in one tunnel, by address and by name; the server sees the credential, the proxy does not."""
    with Upstream(names=("localhost",)) as upstream, Squid(tmp_path) as proxy:
        for changes in (
            {"host": "upstream.example", "tls_server_name": "localhost"},
            {"host": "localhost", "port": upstream.port, "connect_to": None, "tls_server_name": "localhost"},
        ):
            upstream.received.clear()
            with Helper(zygote, upstream.remote(proxy=proxy.place, **changes)) as helper:
                for _ in range(3):
                    assert status(ask(helper, helper.head(length=0))) == 200
                helper.tell(Ping(number=1))
                assert helper.fact(facts.Pong).upstream_connections == 1
            (record,) = upstream.received
            assert record.count(b"Bearer " + TOKEN.encode()) == 3
            assert (b"Host: upstream.example\r\n" in record) == (changes["host"] == "upstream.example")
        log = proxy.log(f"CONNECT 127.0.0.1:{upstream.port} ", f"CONNECT localhost:{upstream.port} ")
    assert TOKEN not in log
    assert "/mcp" not in log


def test_the_proxy_is_sent_one_request_for_a_tunnel_and_no_credential(zygote: Zygote) -> None:
    """To the byte, by a proxy that only records: not the client's bearer, not ours, no header of the client."""
    with (
        Upstream() as upstream,
        Wire(b"").running() as proxy,
        Helper(zygote, upstream.remote(proxy=proxy.place)) as helper,
    ):
        request = helper.head("POST /mcp HTTP/1.1", "Proxy-Authorization: Basic eDp5", "X-Mine: 1", length=0)
        assert code(ask(helper, request)) == "proxy_failed"
        target = f"127.0.0.1:{upstream.port}"
        assert proxy.seen == [f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()]


def test_a_wrong_pin_inside_the_tunnel_means_zero_bytes(zygote: Zygote, tmp_path: Path) -> None:
    """Judged at the server, with the right pin as the control in the same tunnel's place."""
    with Upstream() as upstream, Squid(tmp_path) as proxy:
        wrong = upstream.remote(proxy=proxy.place, tls_pins=[PinSpec(spki=pki.make_root().pin)])
        with Helper(zygote, wrong) as helper:
            assert code(ask(helper, helper.head(length=4) + b"body")) == "pin_mismatch"
            assert "through the proxy" in helper.fact(facts.PinMismatch).address
        assert all(not record for record in upstream.received)
        upstream.received.clear()
        with Helper(zygote, upstream.remote(proxy=proxy.place)) as helper:
            assert status(ask(helper, helper.head(length=4) + b"body")) == 200
        assert upstream.received[0].endswith(b"body")


def test_a_proxy_that_reads_the_tunnel_gets_nothing_to_read(zygote: Zygote) -> None:
    """A proxy that answers in the server's place, with a certificate of its own CA: no request reaches it."""
    with Upstream() as upstream, Upstream() as impostor, splice(impostor.port) as place:
        with Helper(zygote, upstream.remote(proxy=place)) as helper:
            assert code(ask(helper, helper.head(length=0))) == "tls_untrusted"
        assert impostor.received in ([], [bytearray()])
        trusted = upstream.remote(
            proxy=place, tls_anchors_pem=impostor.root.pem, tls_pins=[PinSpec(spki=impostor.root.pin)]
        )
        with Helper(zygote, trusted) as helper:  # the control: the tunnel does lead there
            assert status(ask(helper, helper.head(length=0))) == 200


@contextmanager
def splice(port: int) -> Iterator[str]:
    """Be a proxy that makes every tunnel end at `port` of this machine."""
    server = socket.create_server(("127.0.0.1", 0))

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                client.recv(1 << 16)
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                inner = socket.create_connection(("127.0.0.1", port))
                pair = [threading.Thread(target=copy, args=ends) for ends in ((client, inner), (inner, client))]
                for thread in pair:
                    thread.start()
                for thread in pair:
                    thread.join()
                client.close()
                inner.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        server.close()


def test_a_proxy_that_refuses_is_said_so(zygote: Zygote, tmp_path: Path) -> None:
    """Squid's own 403 for its rules; its page does not become the client's answer."""
    with Upstream() as upstream, Squid(tmp_path, allow=False) as proxy:
        with Helper(zygote, upstream.remote(proxy=proxy.place)) as helper:
            response = ask(helper, helper.head(length=0))
            assert (status(response), code(response)) == (502, "proxy_refused")
            assert b"squid" not in response.lower()
            assert b"proxy in [mcp_servers.srv]" in response
            failure = helper.fact(facts.UpstreamFailed)
            assert (failure.error_type, failure.detail) == ("proxy_refused", "the proxy answered 403")
        assert upstream.received == []


def test_a_server_that_the_proxy_cannot_reach_is_said_so(zygote: Zygote, tmp_path: Path) -> None:
    """Squid's own 503, for a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
    with Upstream() as upstream, Squid(tmp_path) as proxy:
        remote = upstream.remote(proxy=proxy.place, connect_to=nobody, limits=LimitsSpec(connect_seconds=10.0))
        with Helper(zygote, remote) as helper:
            assert code(ask(helper, helper.head(length=0))) == "proxy_refused"
            assert helper.fact(facts.UpstreamFailed).detail == "the proxy answered 503"


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 2", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"]
)
def test_what_is_no_proxy_is_said_so(zygote: Zygote, answer: bytes) -> None:
    """Cut short, another protocol, or data in the tunnel before the client's first byte."""
    with (
        Upstream() as upstream,
        Wire(answer).running() as proxy,
        Helper(zygote, upstream.remote(proxy=proxy.place)) as helper,
    ):
        assert code(ask(helper, helper.head(length=0))) == "proxy_failed"
        assert helper.fact(facts.UpstreamFailed).error_type == "proxy_failed"


def test_a_proxy_that_is_silent_costs_connect_seconds(zygote: Zygote) -> None:
    """It accepts and says nothing; other requests go on being answered."""
    with Upstream() as upstream, socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        remote = upstream.remote(proxy=place, limits=LimitsSpec(connect_seconds=0.5))
        with Helper(zygote, remote) as helper:
            assert code(ask(helper, helper.head(length=0))) == "connect_timeout"


GRANTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
TLS_HELLO = b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03" + bytes(120)


def granted_and_silent(client: socket.socket) -> None:
    client.sendall(GRANTED)


def granted_with_the_servers_first_words(client: socket.socket) -> None:
    client.sendall(GRANTED + TLS_HELLO)


def granted_then_not_tls(client: socket.socket) -> None:
    client.sendall(GRANTED)
    client.recv(1, socket.MSG_PEEK)
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


def tls_at_once(client: socket.socket) -> None:
    client.sendall(TLS_HELLO)


def asks_for_a_password(client: socket.socket) -> None:
    client.sendall(b'HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n')


def redirects(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n")


def has_an_endless_head(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        client.sendall(b"X-Filler: " + b"x" * 1000 + b"\r\n")


def has_an_endless_line(client: socket.socket) -> None:
    while True:
        client.sendall(b"HTTP/1.1 200 " + b"x" * 4096)


def drips_for_ever(client: socket.socket) -> None:
    """Each byte comes well within any limit on silence."""
    while True:
        for byte in b"HTTP/1.1 200 OK\r\nX-Filler: " + b"x" * 100 + b"\r\n":
            client.sendall(bytes([byte]))
            time.sleep(0.02)


def interim_answers_for_ever(client: socket.socket) -> None:
    while True:
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


class Hostile:
    """A proxy of the test's, a thread a connection: does `behave`, then reads until it is left; records all of it."""

    def __init__(self, behave: Callable[[socket.socket], None]) -> None:
        self._behave = behave
        self._server = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._serve)]
        self.place = f"127.0.0.1:{self._server.getsockname()[1]}"
        self.seen = bytearray()
        self.left = threading.Semaphore(0)  # released by each connection that ended

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self._threads.append(threading.Thread(target=self._attend, args=(client,)))
                self._threads[-1].start()

    def _attend(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            client.settimeout(20)  # only where the helper never lets go
            self.seen += client.recv(1 << 16)
            self._behave(client)
            while data := client.recv(1 << 16):
                self.seen += data
        self.left.release()

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._server.close()


@pytest.mark.parametrize(
    ("behave", "said", "hellos"),
    [
        (granted_and_silent, "connect_timeout", True),
        (granted_with_the_servers_first_words, "proxy_failed", False),
        (granted_then_not_tls, "tls_failed", True),
        (tls_at_once, "proxy_failed", False),
        (asks_for_a_password, "proxy_refused", False),
        (redirects, "proxy_refused", False),
        (has_an_endless_head, "proxy_failed", False),
        (has_an_endless_line, "proxy_failed", False),
        (drips_for_ever, "connect_timeout", False),
        (interim_answers_for_ever, "proxy_refused", False),
    ],
)
def test_a_hostile_proxy_gets_a_request_for_a_tunnel_and_perhaps_a_client_hello(
    zygote: Zygote, behave: Callable[[socket.socket], None], said: str, *, hellos: bool
) -> None:
    """Never the credential; who asked has an answer, the proxy is left, and nothing of it stays open.

    That this proxy could have been sent more is shown by the tunnels above, which lead to an impostor.
    """
    with (
        Upstream() as upstream,
        Hostile(behave) as proxy,
        Helper(zygote, upstream.remote(proxy=proxy.place, limits=LimitsSpec(connect_seconds=0.5))) as helper,
    ):
        before = len(os.listdir(f"/proc/{helper.pid}/fd"))
        for _ in range(3):
            response = ask(helper, helper.head(length=4) + b"body")
            assert (status(response), code(response)) == (504 if said == "connect_timeout" else 502, said)
            assert helper.fact(facts.UpstreamFailed).error_type == said
            assert proxy.left.acquire(timeout=PATIENCE), "the connection to the proxy was left"
        helper.tell(Ping(number=1))
        assert helper.fact(facts.Pong).upstream_connections == 0
        assert len(os.listdir(f"/proc/{helper.pid}/fd")) <= before
        assert upstream.received == []
    target = f"127.0.0.1:{upstream.port}"
    asked = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()
    assert proxy.seen.count(asked) == 3
    rest = bytes(proxy.seen).replace(asked, b"")
    assert rest.startswith(b"\x16\x03\x01") == hellos
    assert hellos or rest == b""
    assert all(secret not in proxy.seen for secret in (TOKEN.encode(), BEARER.encode(), b"body", b"/mcp"))


def test_a_proxy_that_takes_its_time_is_waited_for(zygote: Zygote) -> None:
    """Byte by byte, within connect_seconds: the control of the one that drips for ever."""

    def drips(client: socket.socket) -> None:
        for byte in b"HTTP/1.0 200 OK\r\nVia: 1.1 x\r\n\r\n":
            client.sendall(bytes([byte]))

    with (
        Upstream() as upstream,
        Hostile(drips) as proxy,
        Helper(zygote, upstream.remote(proxy=proxy.place, limits=LimitsSpec(connect_seconds=1.0))) as helper,
    ):
        assert code(ask(helper, helper.head(length=0))) == "connect_timeout"  # of the tunnel's end, which is silent
        assert b"\x16\x03\x01" in proxy.seen, "the tunnel stood"


def test_a_proxy_that_dies_breaks_what_is_in_flight_and_fails_what_follows(zygote: Zygote, tmp_path: Path) -> None:
    """Killed in the middle of a response: no clean end; then it cannot be reached."""

    async def answering(exchange: Exchange) -> None:
        if b"?stream" in exchange.head:
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            await exchange.reader.read(1)
        else:
            await answer_ok(exchange)

    with (
        Upstream(answering) as upstream,
        Squid(tmp_path) as proxy,
        Helper(zygote, upstream.remote(proxy=proxy.place)) as helper,
    ):
        with helper.connect() as client:
            client.sendall(helper.head("GET /mcp?stream HTTP/1.1"))
            data = b""
            while not data.endswith(b"half"):
                data += client.recv(1 << 16)
            proxy.signal(signal.SIGKILL)
            with suppress(ConnectionResetError):
                data += read_all(client)
            assert data.endswith(b"\r\n\r\nhalf")
            assert helper.fact(facts.Request).error_type == "upstream_closed"
        proxy.process.wait()
        assert code(ask(helper, helper.head(length=0))) == "proxy_failed"
        assert "cannot be reached" in helper.fact(facts.UpstreamFailed).detail


def test_a_private_target_is_refused_before_the_proxy_hears_of_it(zygote: Zygote) -> None:
    """The URL's host is an address: the rule for addresses holds for it, wherever the proxy is."""
    with Upstream() as upstream, Wire(b"").running() as proxy:
        changes: dict[str, Any] = {"host": "10.0.0.1", "connect_to": None, "proxy": proxy.place}
        with Helper(zygote, upstream.remote(**changes)) as helper:
            assert code(ask(helper, helper.head(length=0))) == "address_refused"
            assert proxy.seen == []
        with Helper(zygote, upstream.remote(**changes, allow_private=True)) as helper:  # the control
            assert code(ask(helper, helper.head(length=0))) == "proxy_failed"
            assert proxy.seen[0].startswith(b"CONNECT 10.0.0.1:443 ")


def test_the_environment_names_no_proxy() -> None:
    """HTTPS_PROXY and its like are ignored, in the zygote's environment too: only the configuration counts."""
    with Wire(b"").running() as proxy, Upstream() as upstream:
        variables = [f"{name}=http://{proxy.place}" for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")]
        with Zygote(prefix=("/usr/bin/env", *variables)) as zygote, Helper(zygote, upstream.remote()) as helper:
            assert status(ask(helper, helper.head(length=0))) == 200
        assert proxy.seen == []
