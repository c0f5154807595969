"""A real helper between a real client socket and a real TLS upstream: what passes, what is held back and refused."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

import pki
from codingagents.rewrite.specs import ClientAuth, HeaderTemplate, LimitsSpec, PinSpec, RemoteSpec
from codingagents.trust import facts
from helper_rig import BEARER, TOKEN, Helper, Zygote, ask, closing_children, code, read_all, read_response, status
from scripted_upstream import NAME, OK, Exchange, Upstream, answer_ok

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="helpers take UIDs of their own: needs root")

AGENT = os.getuid()
STRANGER = 58012


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with closing_children(), Zygote() as started:
        yield started


def test_the_credential_is_attached_and_the_clients_is_not_passed_on(zygote: Zygote) -> None:
    """The upstream sees its own authority and its own token; the local bearer, cookies and Origin stay here."""
    seen: list[Exchange] = []

    async def answering(exchange: Exchange) -> None:
        seen.append(exchange)
        await answer_ok(exchange)

    with Upstream(answering) as upstream, Helper(zygote, upstream.remote()) as helper:
        extra = ["Cookie: a=b", f"Origin: http://localhost:{helper.port}", "Mcp-Session-Id: s1", "X-New: é"]
        response = ask(helper, helper.head("POST /mcp?x=%7E HTTP/1.1", *extra, length=4) + b"body")
        assert status(response) == 200
        assert response.endswith(b"\r\n\r\n{}")
        request = helper.fact(facts.Request)
    (exchange,) = seen
    assert exchange.head.startswith(b"POST /mcp?x=%7E HTTP/1.1\r\n")
    assert exchange.header("Authorization") == [f"Bearer {TOKEN}"]
    assert exchange.header("Host") == [NAME]
    assert exchange.header("Mcp-Session-Id") == ["s1"]
    assert exchange.header("Cookie") == exchange.header("Origin") == []
    assert bytes(exchange.record).endswith(b"\r\n\r\nbody")
    assert (request.status, request.error_type, request.request_bytes, request.response_bytes) == (200, None, 4, 2)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["authorization"], "bearer_refused"),
        (["host"], "host_refused"),
        (["origin"], "origin_refused"),
        (["path"], "outside_route"),
        (["well-known"], "well_known"),
    ],
)
def test_the_gate_refuses_before_the_upstream_is_contacted(zygote: Zygote, changes: list[str], expected: str) -> None:
    """A refused caller leaves no connection, not even an empty one, at the upstream."""
    with Upstream() as upstream, Helper(zygote, upstream.remote()) as helper:
        target = {"path": "/admin", "well-known": "/.well-known/oauth-protected-resource"}.get(changes[0], "/mcp")
        head = helper.head(f"POST {target} HTTP/1.1", length=0)
        if "authorization" in changes:
            head = head.replace(BEARER.encode(), b"wrong")
        if "host" in changes:
            head = head.replace(b"Host: 127.0.0.1", b"Host: rebound.example")
        if "origin" in changes:
            head = head.replace(b"\r\n\r\n", b"\r\nOrigin: https://evil.example\r\n\r\n")
        response = ask(helper, head)
        assert code(response) == expected
        assert b"www-authenticate" not in response.lower()
        assert helper.fact(facts.Refused).reason == expected
        assert upstream.received == []


@pytest.mark.parametrize("auth", [["bearer"], []])
def test_a_page_of_another_site_is_refused_whoever_its_browser_runs_as(zygote: Zygote, auth: list[ClientAuth]) -> None:
    """An image's GET has no Origin; the same request passes where the browser says that no page is behind it."""
    with Upstream() as upstream, Helper(zygote, upstream.remote(client_auth=auth)) as helper:
        for site in ("cross-site", "same-site"):
            refused = ask(helper, helper.head("GET /mcp HTTP/1.1", f"Sec-Fetch-Site: {site}"))
            assert (status(refused), code(refused)) == (403, "origin_refused")
            assert helper.fact(facts.Refused).reason == "origin_refused"
        assert upstream.received == []
        assert status(ask(helper, helper.head("GET /mcp HTTP/1.1", "Sec-Fetch-Site: none"))) == 200


def test_another_user_with_the_right_bearer_is_refused(zygote: Zygote) -> None:
    """The kernel says who is calling; the bearer alone opens nothing, and the right user alone neither."""
    program = (
        "import socket, sys; client = socket.create_connection(('127.0.0.1', int(sys.argv[1])));"
        "client.sendall(sys.stdin.buffer.read()); sys.stdout.buffer.write(client.recv(65536))"
    )
    with Upstream() as upstream, Helper(zygote, upstream.remote(), agent_uid=STRANGER) as helper:

        def call_as(uid: int, head: bytes) -> bytes:
            return subprocess.run(
                [sys.executable, "-I", "-S", "-c", program, str(helper.port)],
                input=head, user=uid, group=uid, extra_groups=[], capture_output=True, check=True,
            ).stdout  # fmt: skip

        head = helper.head(length=0)
        assert code(call_as(STRANGER + 1, head)) == "uid_refused"
        assert helper.fact(facts.Refused).peer_user_id == STRANGER + 1
        assert code(ask(helper, head)) == "uid_refused"  # root, too
        assert code(call_as(STRANGER, head.replace(BEARER.encode(), b"wrong"))) == "bearer_refused"
        assert upstream.received == []
        assert status(call_as(STRANGER, head)) == 200


def test_a_caller_that_is_gone_when_it_is_looked_at_is_refused(zygote: Zygote) -> None:
    """The kernel reports UID 0 for a closed socket; that must not pass for root, which is the agent of this helper."""
    with Upstream() as upstream, Helper(zygote, upstream.remote(), agent_uid=0) as helper:
        helper.signal(signal.SIGSTOP)  # so that both are gone before they are looked at
        client = helper.connect()
        client.sendall(helper.head(length=0))
        client.close()
        reset = helper.connect()
        reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reset.sendall(helper.head(length=0))
        reset.close()
        helper.signal(signal.SIGCONT)
        assert helper.fact(facts.Refused).reason == "uid_refused"
        assert status(ask(helper, helper.head(length=0))) == 200
        assert len(upstream.received) == 1


def test_a_pin_that_does_not_match_means_zero_bytes(zygote: Zygote) -> None:
    """The chain is valid and trusted; only the pins differ. The upstream's own record shows nothing."""
    other = pki.make_root().pin
    for position in ("any", "leaf", "intermediate"):
        pins = [PinSpec(spki=other, at=position)]
        with Upstream() as upstream, Helper(zygote, upstream.remote(tls_pins=pins)) as helper:
            response = ask(helper, helper.head(length=0))
            assert (status(response), code(response)) == (502, "pin_mismatch")
            mismatch = helper.fact(facts.PinMismatch)
            assert other in mismatch.expected[0]
            assert all(not record for record in upstream.received)


@pytest.mark.parametrize("position", ["leaf", "intermediate", "root"])
def test_a_pin_matches_anywhere_in_the_verified_path(zygote: Zygote, position: str) -> None:
    """The same server is reached by the pin of its leaf, of its intermediate and of its root."""
    with Upstream() as upstream:
        pin = getattr(upstream, position).pin
        remote = upstream.remote(tls_pins=[PinSpec(spki=pin, at=position)])  # type: ignore[arg-type]  # parametrized
        with Helper(zygote, remote) as helper:
            assert status(ask(helper, helper.head(length=0))) == 200


def test_an_untrusted_or_misnamed_server_gets_no_request(zygote: Zygote) -> None:
    """The name and the chain are verified besides the pins."""
    with Upstream() as upstream:
        for changes in (
            {"tls_anchors_pem": pki.make_root().pem, "tls_pins": [PinSpec(spki=upstream.leaf.pin)]},
            {"tls_server_name": "other.test"},
        ):
            with Helper(zygote, upstream.remote(**changes)) as helper:
                assert code(ask(helper, helper.head(length=0))) == "tls_untrusted"
                assert helper.fact(facts.UpstreamFailed).error_type == "tls_untrusted"
        assert all(not record for record in upstream.received)


def test_without_a_pin_match_no_credential_is_sent(zygote: Zygote) -> None:
    """In report mode the connection is used, but the token stays here, and a 401 says why."""
    seen: list[Exchange] = []

    async def answering(exchange: Exchange) -> None:
        seen.append(exchange)
        if exchange.header("Authorization"):
            await exchange.send(OK)
        else:
            await exchange.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: Bearer\r\n\r\n")

    pins = [PinSpec(spki=pki.make_root().pin)]
    headers = [
        HeaderTemplate(name="X-Region", template="eu"),
        HeaderTemplate(name="Authorization", template="Bearer ${TOKEN}"),
    ]
    with Upstream(answering) as upstream:
        with Helper(zygote, upstream.remote(tls_pins=pins, tls_pin_mode="report", headers=headers)) as helper:
            assert code(ask(helper, helper.head(length=0))) == "credential_withheld"
        with Helper(zygote, upstream.remote(tls_pins=[], tls_pin_mode="off", headers=headers)) as helper:
            assert code(ask(helper, helper.head(length=0))) == "credential_withheld"
        with Helper(
            zygote,
            upstream.remote(tls_pins=pins, tls_pin_mode="report", tls_credential_without_pin=True, headers=headers),
        ) as helper:
            assert status(ask(helper, helper.head(length=0))) == 200
    assert [exchange.header("Authorization") for exchange in seen] == [[], [], [f"Bearer {TOKEN}"]]
    assert all(exchange.header("X-Region") == ["eu"] for exchange in seen)
    assert TOKEN.encode() not in seen[0].head + seen[1].head


def test_expired_pins_refuse_every_request(zygote: Zygote) -> None:
    """Past the date nothing is sent, whatever the server shows."""
    with Upstream() as upstream, Helper(zygote, upstream.remote(tls_pins_expire="2020-01-01")) as helper:
        assert code(ask(helper, helper.head(length=0))) == "pins_expired"
        assert upstream.received == []


@pytest.mark.parametrize(("answer", "expected"), [
    (b"HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer rm=x\r\nContent-Length: 0\r\n\r\n", "credential_refused"),
    (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "credential_refused"),
    (b"HTTP/1.1 307 Go\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n", "redirect_refused"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "bad_response"),
    (b"HTTP/2 200\r\n\r\n", "bad_response"),
    (b"", "upstream_closed"),
])  # fmt: skip
def test_answers_that_are_not_the_clients_become_errors_of_our_own(
    zygote: Zygote, answer: bytes, expected: str
) -> None:
    """Neither a challenge nor a Location leaves the helper; the error names the credential and not its value."""

    async def answering(exchange: Exchange) -> None:
        await exchange.send(answer)
        exchange.writer.close()

    with Upstream(answering) as upstream, Helper(zygote, upstream.remote()) as helper:
        response = ask(helper, helper.head(length=0))
        assert (status(response), code(response)) == (502, expected)
        assert b"evil" not in response
        assert b"rm=x" not in response
        assert helper.fact(facts.Request).error_type == expected
        if expected == "credential_refused":
            assert b"Authorization from TOKEN" in response


def test_events_pass_one_by_one(zygote: Zygote) -> None:
    """Each server-sent event reaches the client while the upstream waits for the test's leave to send the next."""
    leave = asyncio.Semaphore(0)

    async def answering(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            await leave.acquire()
            event = b"data: %d\n\n" % number
            await exchange.send(b"%x\r\n%b\r\n" % (len(event), event))
        await exchange.send(b"0\r\n\r\n")

    with Upstream(answering) as upstream, Helper(zygote, upstream.remote()) as helper, helper.connect() as client:
        client.sendall(helper.head("GET /mcp HTTP/1.1"))
        assert client.recv(1 << 16).endswith(b"\r\n\r\n")  # the head alone, before any event
        for number in range(3):
            upstream.call(leave.release)
            data = client.recv(1 << 16)
            assert data.startswith(b"9\r\ndata: %d\n\n\r\n" % number)
        assert (data.partition(b"\n\r\n")[2] or client.recv(10)) == b"0\r\n\r\n"


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("violent", [False, True])
def test_a_response_cut_short_never_ends_cleanly(zygote: Zygote, framing: str, violent: bool) -> None:
    """An upstream that dies in the middle of a body, with or without TLS saying so, breaks the client's connection."""
    heads = {
        "length": b"Content-Length: 100\r\n\r\nhalf",
        "chunked": b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "close": b"\r\nhalf",
    }

    async def answering(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\n" + heads[framing])
        await asyncio.sleep(0.05)
        if violent:
            exchange.writer.transport.abort()
        else:
            exchange.writer.close()
        raise ConnectionError

    with Upstream(answering) as upstream, Helper(zygote, upstream.remote()) as helper, helper.connect() as client:
        client.sendall(helper.head("GET /mcp HTTP/1.1", "Connection: close"))
        data = b""
        try:
            data = read_all(client)
        except ConnectionResetError:
            data = b"reset"
        finished = data.endswith(b"0\r\n\r\n")
        # Without a length, the TLS close alert is the only end there is: only then is it a complete answer.
        assert finished == (framing == "close" and not violent)
        assert helper.fact(facts.Request).error_type == (None if finished else "upstream_closed")


def test_a_client_that_goes_away_cancels_its_request_at_once(zygote: Zygote) -> None:
    """Closing the stream is MCP's cancel: the upstream sees the end of its connection without waiting for anything."""

    async def answering(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await exchange.reader.readexactly(1)

    with Upstream(answering) as upstream, Helper(zygote, upstream.remote()) as helper:
        with helper.connect() as client:
            client.sendall(helper.head("GET /mcp HTTP/1.1"))
            client.recv(1 << 16)
        assert upstream.lost.wait(5)
        assert helper.fact(facts.Request).error_type == "client_closed"


def test_an_upstream_that_never_answers_does_not_hold_up_others(zygote: Zygote) -> None:
    """504 within connect_seconds; another helper of the same zygote, and this one's gate, answer meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as silent, Upstream() as upstream:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        remote = upstream.remote(connect_to=address, limits=LimitsSpec(connect_seconds=1.5))
        with Helper(zygote, remote) as helper, helper.connect() as waiting:
            waiting.sendall(helper.head(length=0))
            assert code(ask(helper, helper.head(bearer="wrong", length=0))) == "bearer_refused"
            assert not select.select([waiting], [], [], 0)[0], "that one still waits"
            response = read_response(waiting)
            assert (status(response), code(response)) == (504, "connect_timeout")


def test_a_private_address_is_not_dialed_unless_it_was_meant(zygote: Zygote) -> None:
    """A name that resolves into the machine reaches nothing there."""
    with Upstream(names=("localhost",)) as upstream:
        changes: dict[str, Any] = {
            "connect_to": None,
            "host": "localhost",
            "port": upstream.port,
            "tls_server_name": "localhost",
        }
        with Helper(zygote, upstream.remote(**changes)) as helper:
            assert code(ask(helper, helper.head(length=0))) == "address_refused"
            assert upstream.received == []
        with Helper(zygote, upstream.remote(**changes, allow_private=True)) as helper:
            assert status(ask(helper, helper.head(length=0))) == 200


def test_plain_http_reaches_this_machine_only(zygote: Zygote) -> None:
    """Without TLS the helper dials loopback, and nothing else even where it is told to."""
    with Upstream(tls=False) as upstream:
        remote = RemoteSpec(name="srv", scheme="http", host="localhost", port=upstream.port, path="/mcp")
        with Helper(zygote, remote) as helper:
            assert status(ask(helper, helper.head(length=0))) == 200
        remote = RemoteSpec(name="srv", scheme="http", host="192.0.2.1", port=80, path="/mcp", allow_private=True)
        with Helper(zygote, remote) as helper:
            assert code(ask(helper, helper.head(length=0))) == "address_refused"


def test_a_post_is_never_sent_twice_and_a_get_may_be(zygote: Zygote) -> None:
    """The upstream closes its idle connection exactly when the next request arrives on it."""
    heads: list[bytes] = []

    async def answering(exchange: Exchange) -> None:
        heads.append(exchange.head.split(b" ", 1)[0])
        if len(heads) in (2, 4):
            exchange.writer.transport.abort()
            raise ConnectionError
        await exchange.send(OK)

    with Upstream(answering) as upstream, Helper(zygote, upstream.remote()) as helper:
        assert status(ask(helper, helper.head(length=0))) == 200
        assert code(ask(helper, helper.head(length=0))) == "upstream_closed"
        assert heads == [b"POST", b"POST"]
        assert status(ask(helper, helper.head("GET /mcp HTTP/1.1"))) == 200
        assert status(ask(helper, helper.head("GET /mcp HTTP/1.1"))) == 200
        assert heads[2:] == [b"GET", b"GET", b"GET"]


def test_large_bodies_pass_both_ways_unchanged(zygote: Zygote) -> None:
    """Eight megabytes up (chunked) and down, through back-pressure, while the client reads slowly."""
    blob = os.urandom(1 << 20) * 8

    async def answering(exchange: Exchange) -> None:
        body = bytearray()
        while size := int((await exchange.reader.readuntil(b"\r\n")).strip(), 16):
            body += (await exchange.reader.readexactly(size + 2))[:-2]
        await exchange.reader.readexactly(2)
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with Upstream(answering) as upstream, Helper(zygote, upstream.remote()) as helper, helper.connect() as client:
        client.sendall(helper.head("POST /mcp HTTP/1.1", "Transfer-Encoding: chunked"))
        for start in range(0, len(blob), 100_000):
            piece = blob[start : start + 100_000]
            client.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        client.sendall(b"0\r\n\r\n")
        time.sleep(0.2)
        assert read_response(client).partition(b"\r\n\r\n")[2] == blob
