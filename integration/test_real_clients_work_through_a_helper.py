"""Real MCP clients, of two languages and both lines of their SDKs, list, call, hear progress and cancel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pki
from codingagents.rewrite.specs import ListenCertificate
from codingagents.trust.vocabulary import Secret
from conformance.clients.run import CLIENTS, RealClient
from conformance.faulty_proxy import FaultyProxy
from conformance.servers import FixtureServer
from helper_rig import BEARER, Helper, Zygote, closing_children

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="helpers take UIDs of their own: needs root")

LOCAL = {"Authorization": f"Bearer {BEARER}"}


@pytest.fixture(scope="module")
def server() -> Iterator[FixtureServer]:
    """A server that refuses the local bearer."""
    with FixtureServer(guarded=True) as started:
        yield started


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with closing_children(), Zygote() as started:
        yield started


@pytest.fixture(scope="module")
def helper(zygote: Zygote, server: FixtureServer) -> Iterator[Helper]:
    """A helper that asks for both the user and the local bearer."""
    with Helper(zygote, server.remote()) as started:
        yield started


def hears_everything(seen: dict[str, Any], client: RealClient) -> bool:
    """Say whether the client saw all that the server's gated tools let it see only where nothing is held back."""
    assert {"greet", "walk", "step", "hang", "cancelled"} < set(seen.pop("tools"))
    return seen == {
        "revision": client.revision,
        "said": "Hello, Ada!",
        "walked": "walked 3 steps",
        "steps": 3,
        "ended": True,
        "server": "it was cancelled",
    }


@pytest.mark.parametrize("client", CLIENTS, ids=str)
def test_a_real_client_lists_calls_hears_progress_and_cancels(helper: Helper, client: RealClient) -> None:
    """The server's tools wait for the client: progress arrives while the call runs, and the cancel arrives at all."""
    assert hears_everything(client.run(f"http://127.0.0.1:{helper.port}/mcp", "fixtures", LOCAL), client)


@pytest.mark.parametrize("client", CLIENTS[1:5], ids=str)
def test_a_real_client_does_so_on_https(
    zygote: Zygote, server: FixtureServer, tmp_path: Path, client: RealClient
) -> None:
    """The same on a helper's https listener, by the session's authority in the way that each runtime is told of one."""
    authority = pki.make_root("Session CA")
    leaf = authority.issue(("localhost", "127.0.0.1"))
    (tmp_path / "ca.pem").write_text(authority.pem)
    certificate = ListenCertificate(chain_pem=leaf.chain_pem, key_pem=Secret(leaf.key_pem))
    with Helper(zygote, server.remote(listen="https"), certificate=certificate) as helper:
        url = f"https://127.0.0.1:{helper.port}/mcp"
        assert hears_everything(client.run(url, "fixtures", LOCAL, authority=tmp_path / "ca.pem"), client)


@pytest.mark.parametrize("client", [CLIENTS[0], CLIENTS[-1]], ids=str)
def test_a_real_client_without_the_local_bearer_gets_nowhere(helper: Helper, client: RealClient) -> None:
    """The bearer that the others show is what lets them in."""
    with pytest.raises(AssertionError, match="bearer"):
        client.run(f"http://127.0.0.1:{helper.port}/mcp", "fixtures", {})


@pytest.mark.parametrize("lost", [b"notifications/progress", b"notifications/cancelled"])
def test_a_client_whose_notification_is_lost_waits_in_vain(lost: bytes) -> None:
    """The control: neither the walk nor the cancel can end well where the proxy holds one of them back."""
    fault = lost[:-1] + b"-"  # as long, so that Content-Length stays right
    with (
        FixtureServer(guarded=False) as server,
        FaultyProxy(server.port, lambda data: data.replace(lost, fault)) as proxy,
        pytest.raises(AssertionError, match="in vain"),
    ):
        CLIENTS[3].run(f"http://127.0.0.1:{proxy.port}/mcp", "fixtures", {}, patience=3)
