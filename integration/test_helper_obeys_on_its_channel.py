"""What the supervisor says to a running helper: pings, new secrets, nonsense; and what the helper answers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from codingagents.rewrite.specs import NewSecrets, Ping
from codingagents.trust import facts
from codingagents.trust.vocabulary import Secret
from helper_rig import (
    BEARER,
    PATIENCE,
    TOKEN,
    Helper,
    Zygote,
    ask,
    closing_children,
    code,
    read_all,
    read_response,
    status,
)
from scripted_upstream import OK, Exchange, Upstream, answer_ok

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="helpers take UIDs of their own: needs root")

NEW = "another-token-of-this-test"


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with closing_children(), Zygote() as started:
        yield started


def test_a_pong_has_the_counts_of_now(zygote: Zygote) -> None:
    """Everything is counted from what happened, also what no fact was sent of yet; nothing upstream is contacted."""
    with Upstream() as upstream, Helper(zygote, upstream.remote()) as helper:
        helper.tell(Ping(number=1))
        assert helper.fact(facts.Pong) == facts.Pong(
            number=1, connections=0, upstream_connections=0, requests=0, errors=0, refused=0
        )
        assert upstream.received == []
        assert code(ask(helper, helper.head(bearer="wrong", length=0))) == "bearer_refused"
        with helper.connect() as client:
            client.sendall(helper.head(length=0))
            assert status(read_response(client)) == 200
            helper.tell(Ping(number=2))
            pong = helper.fact(facts.Pong)
        assert (pong.number, pong.connections, pong.upstream_connections) == (2, 1, 1)
        assert (pong.requests, pong.errors, pong.refused) == (1, 0, 1)


def test_pings_are_answered_while_the_upstream_is_not(zygote: Zygote) -> None:
    """A request that waits, and a command that comes in two pieces, hold nothing up."""
    with socket.create_server(("127.0.0.1", 0)) as silent, Upstream() as upstream:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with Helper(zygote, upstream.remote(connect_to=address)) as helper, helper.connect() as waiting:
            waiting.sendall(helper.head(length=0))
            helper.channel.sendall(b'{"command":"ping",')
            helper.channel.sendall(b'"number":7}\n{"command":"ping","number":8}\n')
            assert [helper.fact(facts.Pong).number for _ in range(2)] == [7, 8]


def test_commands_that_come_with_the_spec_are_obeyed_after_it(zygote: Zygote) -> None:
    """The channel is a stream: what is sent together may arrive together."""
    with Upstream() as upstream, Helper(zygote, upstream.remote(), start=False) as helper:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            helper.channel, channel = ours, helper.channel  # collect the spec's bytes
            helper.send_spec(upstream.remote())
            helper.channel = channel
            theirs.setblocking(False)
            data = b""
            while not data.endswith(b"\n"):
                data += theirs.recv(1 << 16)
        channel.sendall(data + b'{"command":"ping","number":3}\n')
        helper.fact(facts.Ready)
        assert helper.fact(facts.Pong).number == 3


def test_new_secrets_are_attached_from_the_next_request_on(zygote: Zygote) -> None:
    """The request in flight keeps what it was sent with; no connection that carried the former secret is used again."""
    seen: list[Exchange] = []

    async def answering(exchange: Exchange) -> None:
        seen.append(exchange)
        if b"GET" in exchange.head:
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{")
            await exchange.reader.read(1)  # until the helper closes it
        else:
            await answer_ok(exchange)

    def connections() -> int:
        helper.tell(Ping(number=0))
        return helper.fact(facts.Pong).upstream_connections

    with Upstream(answering) as upstream, Helper(zygote, upstream.remote()) as helper, helper.connect() as streaming:
        assert status(ask(helper, helper.head(length=0))) == 200
        streaming.sendall(helper.head("GET /mcp HTTP/1.1"))
        assert streaming.recv(1 << 16).endswith(b"{")
        assert status(ask(helper, helper.head(length=0))) == 200
        assert connections() == 2  # one idle, one with the stream
        helper.tell(NewSecrets(secrets={"TOKEN": Secret(NEW)}))
        assert helper.fact(facts.SecretsTaken) == facts.SecretsTaken(names=["TOKEN"])
        assert status(ask(helper, helper.head(length=0))) == 200
        upstream.call(lambda: seen[1].writer.write(b"}"))
        assert streaming.recv(10) == b"}"
        assert status(ask(helper, helper.head(length=0))) == 200
        assert connections() == 1  # the stream's is not kept: it is of the former epoch
    tokens = [exchange.header("Authorization") for exchange in seen]
    assert tokens == [[f"Bearer {TOKEN}"]] * 3 + [[f"Bearer {NEW}"]] * 2
    records = [bytes(record) for record in upstream.received]
    assert all(not (TOKEN.encode() in record and NEW.encode() in record) for record in records)
    assert sum(NEW.encode() in record for record in records) == 1


@pytest.mark.parametrize(
    ("secrets", "problem"),
    [
        ({}, "the names that the helper was started with"),
        ({"TOKEN": Secret(NEW), "MORE": Secret("x")}, "the names that the helper was started with"),
        ({"TOKEN": Secret("a\nb")}, "Authorization"),
    ],
)
def test_unfit_secrets_are_refused_and_the_former_stay(
    zygote: Zygote, secrets: dict[str, Secret], problem: str
) -> None:
    """The answer says why, by name, and requests go on as before."""
    seen: list[Exchange] = []

    async def answering(exchange: Exchange) -> None:
        seen.append(exchange)
        await answer_ok(exchange)

    with Upstream(answering) as upstream, Helper(zygote, upstream.remote()) as helper:
        helper.tell(NewSecrets(secrets=secrets))
        taken = helper.fact(facts.SecretsTaken)
        assert taken.problem is not None
        assert problem in taken.problem
        assert NEW not in taken.problem
        assert status(ask(helper, helper.head(length=0))) == 200
    assert seen[0].header("Authorization") == [f"Bearer {TOKEN}"]


@pytest.mark.parametrize(
    "line", [b"x", b'{"command":"exit"}', b'{"command":"ping"}', b'{"command":"new-secrets","secrets":{"TOKEN":1}}']
)
def test_a_line_that_is_no_command_ends_the_helper(zygote: Zygote, line: bytes) -> None:
    """The two sides do not speak the same; the reason goes up first, without the secrets."""
    with Upstream() as upstream, Helper(zygote, upstream.remote()) as helper:
        helper.channel.sendall(line + b"\n")
        data = read_all(helper.channel)
        assert b'"fact":"failed"' in data
        assert b"malformed message" in data
        assert TOKEN.encode() not in data
        assert helper.wait() == 1


def test_failures_in_a_row_are_told_once_and_so_is_the_first_success(zygote: Zygote) -> None:
    """What requests show of the upstream, without a request of our own."""
    broken = True

    async def answering(exchange: Exchange) -> None:
        if broken:
            raise ConnectionError
        await exchange.send(OK)

    with Upstream(answering) as upstream, Helper(zygote, upstream.remote()) as helper:
        for _ in range(4):
            assert code(ask(helper, helper.head(length=0))) == "upstream_closed"
        assert helper.fact(facts.UpstreamHealth) == facts.UpstreamHealth(state="failing", error_type="upstream_closed")
        broken = False
        assert status(ask(helper, helper.head(length=0))) == 200
        assert helper.fact(facts.UpstreamHealth) == facts.UpstreamHealth(state="ok", error_type=None)


def test_the_local_bearer_is_not_among_the_facts(zygote: Zygote) -> None:
    """Nothing that goes up the channel holds a secret, whatever happened before."""
    with Upstream() as upstream, Helper(zygote, upstream.remote()) as helper:
        helper.channel.settimeout(PATIENCE)
        ask(helper, helper.head(bearer="wrong", length=0))
        ask(helper, helper.head(length=0))
        helper.tell(NewSecrets(secrets={"TOKEN": Secret(NEW)}))
        helper.tell(Ping(number=1))
        data = b""
        while b'"fact":"pong"' not in data:
            data += helper.channel.recv(1 << 16)
        assert not any(secret.encode() in data for secret in (BEARER, TOKEN, NEW))
