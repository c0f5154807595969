"""The public conformance harness cannot tell a helper from the server behind it: each check of each leg is the same."""

from __future__ import annotations

import http.client
import os
import re
import ssl
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from conformance.faulty_proxy import FaultyProxy
from conformance.harness import CLIENT_SCENARIOS, LEGS, Check, Leg, run_client_scenario, run_server_leg
from conformance.servers import NAME, FixtureServer
from helper_rig import BEARER, TOKEN, Helper, Zygote, closing_children

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="helpers take UIDs of their own: needs root")


@pytest.fixture(scope="module")
def direct() -> Iterator[FixtureServer]:
    with FixtureServer(guarded=False) as server:
        yield server


@pytest.fixture(scope="module")
def guarded() -> Iterator[FixtureServer]:
    with FixtureServer(guarded=True) as server:
        yield server


@pytest.fixture
def through(guarded: FixtureServer) -> Iterator[Helper]:
    """A helper in front of the guarded server; the harness has no local bearer, so its user is all that is asked."""
    with closing_children(), Zygote() as zygote, Helper(zygote, guarded.remote(client_auth=["uid"])) as helper:
        yield helper


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}/mcp"


def side_by_side(arguments: Sequence[str], one: int, other: int) -> tuple[list[Check], list[Check]]:
    """Return the checks at two ports, taken at the same time."""
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run_server_leg, url(port), arguments) for port in (one, other)]
        return runs[0].result(), runs[1].result()


@pytest.mark.parametrize("leg", LEGS, ids=lambda leg: leg.name)
def test_every_check_is_the_same(direct: FixtureServer, through: Helper, leg: Leg) -> None:
    """Direct, or over pinned TLS with an injected bearer: same scenarios, checks and results, and none too few."""
    without, with_helper = side_by_side(leg.arguments, direct.port, through.port)
    assert with_helper == without
    assert sum(check.status == "SUCCESS" for check in without) == leg.passes
    assert {check.status for check in without} <= {"SUCCESS", "SKIPPED"}


@pytest.mark.parametrize(
    ("revision", "scenario", "lost"),
    [
        ("2025-11-25", "tools-list", b"mcp-session-id"),
        ("2025-11-25", "server-sse-polling", b"last-event-id"),
        ("2026-07-28", "http-header-validation", b"mcp-name"),
    ],
)
def test_a_proxy_that_loses_a_header_is_seen(direct: FixtureServer, revision: str, scenario: str, lost: bytes) -> None:
    """The control: the comparison is not blind."""
    header = re.compile(rb"\r\n" + lost + rb":", re.IGNORECASE)
    with FaultyProxy(direct.port, lambda data: header.sub(b"\r\nx-lost:", data)) as proxy:
        arguments = ("--spec-version", revision, "--scenario", scenario)
        without, with_fault = side_by_side(arguments, direct.port, proxy.port)
    assert all(check.status == "SUCCESS" for check in without)
    assert with_fault != without


@pytest.mark.parametrize(
    ("revision", "scenario"), [(revision, each) for revision, all_ in CLIENT_SCENARIOS.items() for each in all_]
)
def test_every_check_of_a_client_is_the_same(revision: str, scenario: str) -> None:
    """The other way round, with the harness as the server: it cannot tell whether a helper stands before the client."""
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(run_client_scenario, revision, scenario, through_a_helper=through) for through in (False, True)
        ]
        without, with_helper = (run.result() for run in runs)
    assert with_helper == without
    assert {check.status for check in without} <= {"SUCCESS", "SKIPPED"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": f"Bearer {TOKEN}"}, 406),  # past the guard: the SDK misses Accept
        ({}, 401),
        ({"Authorization": f"Bearer {BEARER}"}, 401),
        ({"Authorization": f"Bearer {TOKEN}", "X-Other": BEARER}, 403),
        ({"Authorization": f"Bearer {TOKEN}", "Origin": "http://localhost"}, 403),
        ({"Authorization": f"Bearer {TOKEN}", "Cookie": "a=b"}, 403),
        ({"Authorization": f"Bearer {TOKEN}", "Host": "localhost"}, 403),
    ],
)
def test_the_guarded_server_refuses_what_a_helper_must_not_let_through(
    guarded: FixtureServer, headers: dict[str, str], status: int
) -> None:
    """The control of the other side: that all passed means that the bearer arrived and nothing of the client's did."""
    context = ssl.create_default_context(cadata=guarded.anchors_pem)
    context.check_hostname = False  # dialled by address; the name is the helper's business
    client = http.client.HTTPSConnection("127.0.0.1", guarded.port, context=context, timeout=10)
    client.request("GET", "/mcp", headers={"Host": NAME} | headers)
    assert client.getresponse().status == status
    client.close()
