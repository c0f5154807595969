"""npm's `server-everything`, over both of its HTTP transports: real clients cannot tell a helper from it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Literal

import pytest

from conformance.clients.run import CLIENTS, RealClient
from conformance.servers import EverythingServer
from helper_rig import BEARER, Helper, Zygote, closing_children

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="helpers take UIDs of their own: needs root")

LOCAL = {"Authorization": f"Bearer {BEARER}"}
OF_ITS_TIME = [client for client in CLIENTS if client.revision == "2025-11-25"]  # the newest revision that it speaks


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with closing_children(), Zygote() as started:
        yield started


@pytest.fixture(scope="module")
def everything() -> Iterator[EverythingServer]:
    with EverythingServer("streamableHttp") as server:
        yield server


@pytest.fixture(scope="module")
def everything_sse() -> Iterator[EverythingServer]:
    with EverythingServer("sse") as server:
        yield server


@pytest.mark.parametrize("client", OF_ITS_TIME, ids=str)
def test_a_real_server_over_streamable_http(zygote: Zygote, everything: EverythingServer, client: RealClient) -> None:
    """What a client sees directly, it sees through a helper, and the first step of an hour's work at once."""
    see_the_same(zygote, everything, client, "http", "/mcp")


@pytest.mark.parametrize("client", OF_ITS_TIME, ids=str)
def test_a_real_server_over_legacy_sse(zygote: Zygote, everything_sse: EverythingServer, client: RealClient) -> None:
    """The same over HTTP+SSE, whose `endpoint` event has to name the helper: the SDKs refuse any other origin."""
    see_the_same(zygote, everything_sse, client, "sse", "/sse")


def see_the_same(
    zygote: Zygote, server: EverythingServer, client: RealClient, transport: Literal["http", "sse"], path: str
) -> None:
    with Helper(zygote, server.remote()) as helper:
        through, direct = (
            client.run(f"http://127.0.0.1:{port}{path}", "everything", headers, transport=transport)
            for port, headers in ((helper.port, LOCAL), (server.port, {}))
        )
    assert through == direct
    assert len(through["tools"]) > 5
    assert (through["said"], through["ended"], through["server"]) == ("Echo: Ada", True, "Echo: still here")
