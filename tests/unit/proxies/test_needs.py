"""A helper keeps what its specification makes it need, and nothing more."""

import pytest

from codingagents.proxies.needs import needs_of
from codingagents.rewrite.specs import LimitsSpec, RemoteSpec

REMOTE = {"name": "s", "scheme": "https", "host": "mcp.example", "port": 443, "path": "/mcp"}


@pytest.mark.parametrize(
    ("changes", "ports", "resolves"),
    [
        ({}, (53, 443), True),
        ({"port": 8443}, (53, 8443), True),
        ({"host": "192.0.2.7"}, (443,), False),
        ({"host": "2001:db8::1", "port": 8443}, (8443,), False),
        ({"host": "fe80::1%eth0"}, (443,), False),
        ({"connect_to": "192.0.2.1:8443"}, (8443,), False),
        ({"connect_to": "[2001:db8::1]:8443"}, (8443,), False),
        ({"connect_to": "inside.example:8443"}, (53, 8443), True),
        ({"proxy": "192.0.2.1:3128"}, (3128,), False),  # which resolves the host itself
        ({"proxy": "squid.example:3128", "connect_to": "192.0.2.1:8443"}, (53, 3128), True),
        ({"scheme": "http", "host": "localhost", "port": 53}, (53,), True),
    ],
)
def test_what_is_dialed_first_decides(changes: dict[str, object], ports: tuple[int, ...], resolves: bool) -> None:
    needs = needs_of(RemoteSpec(**{**REMOTE, **changes}))  # type: ignore[arg-type]  # a table of fields
    assert (needs.ports, needs.resolves) == (ports, resolves)


def test_descriptors_are_sized_by_the_connections() -> None:
    needs = needs_of(RemoteSpec(**REMOTE, limits=LimitsSpec(connections=10)))  # type: ignore[arg-type]  # as above
    assert (needs.connections, needs.descriptors) == (10, 64 + 30)
