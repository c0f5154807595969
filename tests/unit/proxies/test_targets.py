"""Where a reference of the upstream leads."""

import pytest

from codingagents.proxies.targets import Origin, climbs

ORIGIN = Origin("https", "up.test", 443)


@pytest.mark.parametrize(
    ("origin", "authority"),
    [
        (ORIGIN, "up.test"),
        (Origin("https", "up.test", 80), "up.test:80"),
        (Origin("http", "localhost", 80), "localhost"),
        (Origin("https", "2001:db8::1", 8443), "[2001:db8::1]:8443"),
    ],
)
def test_the_authority_is_what_a_client_of_the_server_would_send(origin: Origin, authority: str) -> None:
    assert origin.authority == authority


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        (b"/mcp/", b"/mcp/"),
        (b"/messages?sessionId=1&x=%7E", b"/messages?sessionId=1&x=%7E"),
        (b"messages/", b"/a/messages/"),
        (b"?s=1", b"/a/b?s=1"),
        (b"../c", b"/c"),
        (b"https://up.test/x", b"/x"),
        (b"HTTPS://UP.test:443/x#fragment", b"/x"),
        (b"https://up.test", b"/"),
        (b"//up.test/x", b"/x"),
        (b"http://up.test/x", None),
        (b"https://up.test:8443/x", None),
        (b"https://up.test:port/x", None),
        (b"https://up.test.evil/x", None),
        (b"https://evil.test/x", None),
        (b"//evil.test/x", None),
        (b"///evil.test/x", None),
        (b"/%2e%2e/x", None),
        (b"/..%2fx", None),
        (b"/\\evil.test/x", None),
        (b"\\\\evil.test/x", None),
        (b"https://user@up.test/x", None),
        (b"https://up.test@evil.test/x", None),
        (b"https:up.test/x", None),
        (b"javascript:alert(1)", None),
        (b"https://[::1/x", None),
        (b"/.well-known/x", None),
        (b"/%2Ewell-known/x", None),
        (b"/a b", None),
        (b"/a\tb", None),
        (b"/\xc3\xa9", None),
        (b"", None),
    ],
)
def test_a_reference_stays_on_the_origin_or_leads_nowhere(reference: bytes, target: bytes | None) -> None:
    """What browsers, SDKs and Python read differently is not followed."""
    assert ORIGIN.resolve(b"/a/b?c=d", reference) == target


def test_an_ipv6_origin_is_compared_as_such() -> None:
    origin = Origin("https", "2001:db8::1", 8443)
    assert origin.resolve(b"/mcp", b"https://[2001:DB8::1]:8443/x") == b"/x"
    assert origin.resolve(b"/mcp", b"https://[2001:db8::2]:8443/x") is None
    assert origin.resolve(b"/mcp", b"/x") == b"/x"


def test_a_path_that_never_stops_decoding_climbs() -> None:
    """Nobody who means well encodes four times."""
    assert climbs(b"/%25252525252e")
    assert not climbs(b"/%2525")
