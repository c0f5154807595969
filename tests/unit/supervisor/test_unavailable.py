"""The answer in a failed helper's place, over each kind of listener, to whoever asks and however."""

import datetime
import json
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio

from codingagents.rewrite import places
from codingagents.rewrite.specs import RemoteSpec
from codingagents.supervisor import session_ca, unavailable
from codingagents.supervisor.slots import Slot, bind_slot
from codingagents.trust.vocabulary import Secret

AUTHORITY, LEAVES = session_ca.issue("s-1", ["github"], datetime.datetime.now(datetime.UTC))
REQUEST = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture(params=["http", "https", "unix"])
def slot(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slot]:
    monkeypatch.setattr(places, "SOCKETS", str(tmp_path))
    remote = RemoteSpec(name="github", scheme="https", host="x.test", port=443, path="/mcp", listen=request.param)
    certificate = LEAVES["github"] if request.param == "https" else None
    slot = bind_slot(remote, 1234, Secret("bearer"), agent_gid=os.getegid(), certificate=certificate)
    yield slot
    slot.close()


http_only = pytest.mark.parametrize("slot", ["http"], indirect=True)


def connect(slot: Slot) -> socket.socket:
    if slot.socket_path:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect(slot.socket_path)
        return client
    client = socket.create_connection(("127.0.0.1", slot.port), 20)
    if slot.certificate is not None:
        return ssl.create_default_context(cadata=AUTHORITY).wrap_socket(client, server_hostname="127.0.0.1")
    return client


def ask(slot: Slot, request: bytes = REQUEST) -> bytes:
    with connect(slot) as client:
        client.sendall(request)
        return everything(client)


def everything(client: socket.socket) -> bytes:
    data = b""
    while piece := client.recv(65536):
        data += piece
    return data


def play(slot: Slot, act: Callable[[], Awaitable[None]]) -> None:
    async def scene() -> None:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(unavailable.answer, slot)
                await act()
                nursery.cancel_scope.cancel()

    trio.run(scene)


def test_whoever_asks_is_told_what_to_do(slot: Slot) -> None:
    async def act() -> None:
        for _ in range(3):
            head, _, body = (await trio.to_thread.run_sync(ask, slot)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nConnection: close" in head
            error = json.loads(body)["error"]
            assert (error["data"]["code"], error["data"]["server"]) == ("server_failed", "github")

    play(slot, act)


@http_only
def test_a_request_that_is_still_being_sent_does_not_cost_the_answer(slot: Slot) -> None:
    """Closing over bytes that were not read would reset the connection, and the answer with it."""

    async def act() -> None:
        answer = await trio.to_thread.run_sync(ask, slot, REQUEST + b"x" * 900_000)
        assert answer.startswith(b"HTTP/1.1 503 ")

    play(slot, act)


@http_only
def test_what_is_no_http_gets_the_same_and_silence_gets_nothing(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unavailable, "_SECONDS", 0.2)

    async def act() -> None:
        assert (await trio.to_thread.run_sync(ask, slot, b"\0\xff")).startswith(b"HTTP/1.1 503 ")
        with connect(slot) as silent:
            assert await trio.to_thread.run_sync(everything, silent) == b""

    play(slot, act)


def test_silent_callers_hold_up_others_for_seconds_only(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than are served at once; on https they do not even shake hands."""
    monkeypatch.setattr(unavailable, "_SECONDS", 0.3)
    monkeypatch.setattr(unavailable, "_AT_ONCE", 2)

    async def act() -> None:
        silent = []
        for _ in range(5):
            family = socket.AF_UNIX if slot.socket_path else socket.AF_INET
            client = socket.socket(family)
            client.connect(slot.socket_path or ("127.0.0.1", slot.port))
            silent.append(client)
        assert b"503" in await trio.to_thread.run_sync(ask, slot)
        for client in silent:
            client.close()

    play(slot, act)


@http_only
def test_a_caller_that_sends_without_end_is_cut_off(slot: Slot) -> None:
    def pour() -> int:
        sent = 0
        with connect(slot) as client:
            try:
                while sent < 1 << 28:
                    client.sendall(b"x" * (1 << 16))
                    sent += 1 << 16
            except OSError:
                pass
        return sent

    async def act() -> None:
        assert await trio.to_thread.run_sync(pour) < 1 << 28

    play(slot, act)
