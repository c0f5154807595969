"""The local gate and the route: who is let through to what."""

import pytest

from codingagents.proxies.gate import MAX_ENDPOINTS, Gate, Route
from codingagents.proxies.heads import RequestHead, RequestHeads
from codingagents.rewrite.specs import ClientAuth, Listen
from codingagents.trust.vocabulary import Secret

BOTH: list[ClientAuth] = ["uid", "bearer"]
ROUTE = Route("/mcp?tenant=1", legacy=False)


def head(
    target: str = "/mcp", host: str = "127.0.0.1:8080", bearer: str | None = "Bearer s3cret", *more: str
) -> RequestHead:
    lines = [f"POST {target} HTTP/1.1", f"Host: {host}", *more]
    if bearer is not None:
        lines.append(f"Authorization: {bearer}")
    return RequestHeads(frozenset(), ROUTE.judge).read("\r\n".join(lines).encode())


def gate(auth: list[ClientAuth] = BOTH, port: int = 8080, listen: Listen = "http") -> Gate:
    return Gate(port, Secret("s3cret"), auth, listen)


@pytest.mark.parametrize("host", ["localhost:8080", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080"])
def test_our_own_names_pass(host: str) -> None:
    """Each of the three names with the listening port."""
    assert gate().check(head(host=host), True) is None


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8081",
        "127.0.0.1",
        "evil.example:8080",
        "127.0.0.1:8080.evil.example",
        "127.0.0.2:8080",
        "",
    ],
)
def test_another_host_is_refused(host: str) -> None:
    """DNS rebinding brings the attacker's own name along."""
    assert gate().check(head(host=host), True) == "host_refused"


def test_on_port_80_the_port_may_be_left_out() -> None:
    """That is what clients send there."""
    assert gate(port=80).check(head(host="localhost"), True) is None


@pytest.mark.parametrize(
    ("origin", "code"),
    [
        ("http://localhost:8080", None),
        ("http://127.0.0.1:8080", None),
        ("http://[::1]:8080", None),
        ("https://localhost:8080", "origin_refused"),
        ("http://localhost:3000", "origin_refused"),
        ("http://evil.example", "origin_refused"),
        ("null", "origin_refused"),
        ("", "origin_refused"),
    ],
)
def test_an_origin_is_absent_or_our_own(origin: str, code: str | None) -> None:
    """A web page of any other origin is refused, another local port included."""
    assert gate().check(head("/mcp", "localhost:8080", "Bearer s3cret", f"Origin: {origin}"), True) == code


@pytest.mark.parametrize("auth", [BOTH, ["uid"], []])
@pytest.mark.parametrize(
    ("site", "code"),
    [
        ("same-origin", None),
        ("none", None),
        (" None ", None),
        ("cross-site", "origin_refused"),
        ("Cross-Site", "origin_refused"),
        ("same-site", "origin_refused"),
        ("same-origin\r\nsec-fetch-site: cross-site", "origin_refused"),
        ("same-origin, cross-site", "origin_refused"),
        ("another-one", "origin_refused"),
        ("", "origin_refused"),
    ],
)
def test_a_page_of_another_site_is_refused_without_an_origin_too(
    auth: list[ClientAuth], site: str, code: str | None
) -> None:
    """A browser names no Origin for an image or a frame, but says this; what no browser says is refused, too."""
    asked = head("/mcp", "localhost:8080", "Bearer s3cret", f"Sec-Fetch-Site:{site}")
    assert gate(auth).check(asked, True) == code
    assert gate(auth).check(head(), True) is None
    assert gate(auth).check(asked, True) == code  # nor is it let through for a caller that was


@pytest.mark.parametrize(
    ("origin", "code"),
    [("https://localhost:8443", None), ("http://localhost:8443", "origin_refused"), ("https://x", "origin_refused")],
)
def test_over_https_the_origins_are_of_https(origin: str, code: str | None) -> None:
    """The scheme is a part of an origin; Host does not tell it."""
    asked = head("/mcp", "localhost:8443", "Bearer s3cret", f"Origin: {origin}")
    assert gate(port=8443, listen="https").check(asked, True) == code
    assert gate(port=443, listen="https").check(head(host="127.0.0.1"), True) is None
    assert gate(port=80, listen="https").check(head(host="127.0.0.1"), True) == "host_refused"


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost", None),
        ("localhost:80", None),
        ("LOCALHOST:65535", None),
        ("localhost:", "host_refused"),
        ("localhost:123456", "host_refused"),
        ("localhost:80:80", "host_refused"),
        ("localhost.evil.example", "host_refused"),
        ("127.0.0.1", "host_refused"),
        ("", "host_refused"),
    ],
)
def test_on_a_unix_socket_the_host_is_localhost(host: str, code: str | None) -> None:
    """With whatever port the client's URL names: the socket has none."""
    assert gate(port=0, listen="unix").check(head(host=host), True) == code


def test_on_a_unix_socket_there_are_no_web_pages() -> None:
    """Whatever Origin comes is another one."""
    for origin in ("http://localhost", "null", ""):
        asked = head("/mcp", "localhost", "Bearer s3cret", f"Origin: {origin}")
        assert gate(port=0, listen="unix").check(asked, True) == "origin_refused"


@pytest.mark.parametrize(
    ("bearer", "code"),
    [
        ("Bearer s3cret", None),
        ("bearer  s3cret", None),
        ("Bearer s3cret2", "bearer_refused"),
        ("Bearer s3cre", "bearer_refused"),
        ("Bearer ", "bearer_refused"),
        ("Bearer", "bearer_refused"),
        ("Basic s3cret", "bearer_refused"),
        ("s3cret", "bearer_refused"),
        (None, "bearer_refused"),
    ],
)
def test_the_bearer_must_be_exact(bearer: str | None, code: str | None) -> None:
    """The scheme is case-insensitive, RFC 9110 11.1; the token is not."""
    assert gate().check(head(bearer=bearer), True) == code


@pytest.mark.parametrize(
    ("auth", "bearer", "allowed", "code"),
    [
        (BOTH, "Bearer s3cret", False, "uid_refused"),
        (BOTH, None, False, "uid_refused"),
        (["uid"], None, True, None),
        (["uid"], "Bearer s3cret", False, "uid_refused"),
        (["bearer"], "Bearer s3cret", False, None),
        (["bearer"], None, True, "bearer_refused"),
        ([], None, False, None),
    ],
)
def test_all_that_is_listed_must_hold(
    auth: list[ClientAuth], bearer: str | None, allowed: bool, code: str | None
) -> None:
    """client_auth names what is demanded; everything named is."""
    assert gate(auth).check(head(bearer=bearer), allowed) == code


def test_metadata_is_denied_before_the_bearer_is_asked_for() -> None:
    """A client that looks for OAuth metadata is told there is none, not that it must authenticate."""
    assert gate().check(head("/.well-known/oauth-protected-resource", bearer=None), True) == "well_known"
    assert gate().check(head("/.well-known/openid-configuration", bearer=None), False) == "uid_refused"


def test_a_stranger_learns_nothing_about_paths() -> None:
    """The route is judged last."""
    assert gate().check(head("/other", bearer=None), True) == "bearer_refused"
    assert gate().check(head("/other"), True) == "outside_route"


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/mcp", None),
        ("/mcp/", None),
        ("/mcp/x", None),
        ("/mcp?sessionId=1", None),
        ("/mcp/a..b/.x/...", None),
        ("/mcp/%41", None),
        ("/mcpx", "outside_route"),
        ("/", "outside_route"),
        ("/admin", "outside_route"),
        ("/MCP", "outside_route"),
        ("//mcp", "outside_route"),
        ("/mcp/..", "bad_path"),
        ("/mcp/../admin", "bad_path"),
        ("/mcp/./x", "bad_path"),
        ("/mcp/%2e%2e/admin", "bad_path"),
        ("/mcp/%2E./admin", "bad_path"),
        ("/mcp/%252e%252e/admin", "bad_path"),
        ("/mcp/..%2fadmin", "bad_path"),
        ("/mcp/..\\admin", "bad_path"),
        ("/mcp/..;/admin", "bad_path"),
        ("/mcp/%25252525252e", "bad_path"),
        ("/.well-known/x", "well_known"),
    ],
)
def test_the_route_is_a_path_and_what_lies_beneath(target: str, code: str | None) -> None:
    """The credential is for one route; no spelling of `..` leads out of it."""
    assert ROUTE.judge(target.encode()) == code


def test_the_route_of_a_legacy_server_is_its_path_and_what_it_named() -> None:
    """Not the whole origin, and nothing beneath the path; the oldest of too many endpoints is forgotten."""
    route = Route("/sse", legacy=True)
    assert route.judge(b"/sse?x=1") is None
    assert route.judge(b"/sse/x") == "outside_route"
    assert route.judge(b"/messages/?session_id=1") == "outside_route"
    assert route.learn(b"/messages/")
    assert not route.learn(b"/messages/")
    assert route.judge(b"/messages/?session_id=1") is None
    assert route.judge(b"/messages/x") == "outside_route"
    assert route.judge(b"/messages/../x") == "bad_path"
    for number in range(MAX_ENDPOINTS):
        assert route.learn(b"/%d" % number)
    assert route.judge(b"/messages/") == "outside_route"
    assert route.judge(b"/0") is None


def test_what_is_remembered_of_a_caller_lets_nobody_else_through() -> None:
    """The gate knows a head that it let through again; not one with another line, nor the same one of another user."""
    reader = RequestHeads(frozenset(), ROUTE.judge)
    door = gate()

    def ask(bearer: bytes, allowed: bool, target: bytes = b"/mcp", number: int = 1) -> str | None:
        lines = (b"POST %b HTTP/1.1" % target, b"Host: localhost:8080", b"X: %d" % number, b"Authorization: " + bearer)
        return door.check(reader.read(b"\r\n".join(lines)), allowed)

    for number in range(3):
        assert ask(b"Bearer s3cret", True, number=number) is None
        assert ask(b"Bearer s3cret", False) == "uid_refused"
        assert ask(b"Bearer s3creT", True) == "bearer_refused"
        assert ask(b"Bearer s3cret", True, b"/other") == "outside_route"
        assert ask(b"Bearer s3cret", True, b"/mcp/more") is None


@pytest.mark.parametrize(
    ("target", "code"),
    [
        *((f"/{each}well-known/x", "well_known") for each in (".", "%2e", "%252E", "/.")),
        *((each, "well_known") for each in ("/.well-known", "/.well-known?x", "/.Well-Known/x", "/.well-known%2fx")),
        *((each, None) for each in ("/", "/x/.well-known/y", "/.well-known-not/x", "/well-known/x")),
    ],
)
def test_no_spelling_of_well_known_passes_where_everything_is_the_route(target: str, code: str | None) -> None:
    assert Route("/", legacy=False).judge(target.encode()) == code
