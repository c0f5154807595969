"""What a changed config.toml means for a session that runs, and how that is told."""

from collections.abc import Mapping

import msgspec
import pytest

from codingagents.launcher.reload_plan import (
    ReloadReport,
    ServerReload,
    compare,
    outcome,
    remotes_in_common,
    sentences,
    without_pin,
)
from codingagents.rewrite.config import Config
from codingagents.rewrite.parse import parse_config
from codingagents.rewrite.specs import ClientCertificate, ControlTrust, TlsSpec

PINS = """
[mcp_servers.one.tls.pins]
expires = 2027-01-01
pin = [ { spki = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" },
  { spki = "sha256/BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", backup = true } ]
"""
START = f"""
[mcp_servers.one]
url = "https://one.example/mcp"
[mcp_servers.one.tls]
ca = "certifi"
{PINS}
[mcp_servers.two]
url = "https://two.example/mcp"
[mcp_servers.plain]
url = "http://127.0.0.1:9/mcp"
allow_plaintext = true
allow_private = true
"""


def parsed(text: str) -> Config:
    return parse_config(text, "config.toml")


def trusts(config: Config) -> dict[str, TlsSpec]:
    """As `plan.with_anchors` makes them."""
    return {
        server.name: msgspec.structs.replace(server.spec.tls, anchors_pem="x")
        for server in config.remotes
        if server.spec.tls is not None
    }


def changes(text: str) -> tuple[Mapping[str, TlsSpec], tuple[str, ...], tuple[str, ...]]:
    then, now = parsed(START), parsed(text)
    common = {server.name for server in remotes_in_common(then, now)}
    found = {name: tls for name, tls in trusts(now).items() if name in common}
    difference = compare(then, now, trusts(then), found)
    return difference.trust, difference.unchanged, difference.needs_session


def test_nothing_changed() -> None:
    assert changes(START) == ({}, ("one", "two"), ())
    assert changes(f"# a comment\n{START}") == ({}, ("one", "two"), ())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2027-01-01", "2027-02-01"),
        ("AAA=", "AAE="),
        ('"certifi"', '"host"'),
        ('"certifi"', '"certifi"\nmin_version = "1.3"'),
        ('"certifi"', '"certifi"\nserver_name = "other.example"'),
    ],
)
def test_trust_is_taken_for_the_server_that_it_is_of(old: str, new: str) -> None:
    trust, unchanged, needs_session = changes(START.replace(old, new))
    assert (list(trust), unchanged, needs_session) == (["one"], ("two",), ())
    assert trust["one"] == trusts(parsed(START.replace(old, new)))["one"]


@pytest.mark.parametrize(
    ("old", "new", "sentences"),
    [
        ("two.example", "three.example", ["[mcp_servers.two] has other changes than in its trust"]),
        ("[mcp_servers.two]", "[mcp_servers.three]", ["[mcp_servers.two] is gone, or not enabled", "three] is new"]),
        ("[mcp_servers.two]", "[mcp_servers.two]\nenabled = false", ["[mcp_servers.two] is gone, or not enabled"]),
        ("[mcp_servers.two]", "[exec]\nmode = 'enforce'\n[mcp_servers.two]", ["[exec] changed"]),
        ("[mcp_servers.two]", "[session]\nworkspace = '/srv'\n[mcp_servers.two]", ["[session] changed"]),
        ("\n[mcp_servers.one]", "model = 'x'\n[mcp_servers.one]", ["what is Codex's own changed"]),
        ("127.0.0.1:9/", "127.0.0.1:8/", ["[mcp_servers.plain] has other changes than in its trust"]),
        (
            'url = "http://127.0.0.1:9/mcp"\nallow_plaintext = true\nallow_private = true',
            'command = "npx"',
            ["[mcp_servers.plain] has other changes than in its trust"],
        ),
        (
            '[mcp_servers.one.tls]\nca = "certifi"',
            '[mcp_servers.one.tls]\nca = "certifi"\nclient_cert = "secret:C"\nclient_key = "secret:K"',
            ["[mcp_servers.one] has other changes than in its trust"],
        ),
    ],
)
def test_what_is_no_trust_needs_a_new_session(old: str, new: str, sentences: list[str]) -> None:
    """A client certificate as well: its secrets would have to come."""
    text = START.replace(old, new, 1)
    assert text != START
    trust, _, needs_session = changes(text)
    assert trust == {}
    assert len(needs_session) == len(sentences)
    for found, expected in zip(needs_session, sentences, strict=True):
        assert found.endswith(expected)


def test_other_changes_of_a_server_keep_no_trust_from_it_unless_it_is_elsewhere() -> None:
    pins = START.replace("2027-01-01", "2027-02-01")
    other = pins.replace("one.example/mcp", "one.example/other")
    trust, _, needs_session = changes(other)
    assert (list(trust), len(needs_session)) == (["one"], 1)
    for old, new in (
        ("one.example", "elsewhere.example"),
        ("one.example/", "one.example:8443/"),
        ('example/mcp"\n', 'example/mcp"\nconnect_to = "192.0.2.1:443"\n'),
        ('example/mcp"\n', 'example/mcp"\nproxy = "http://192.0.2.1:3128"\n'),
    ):
        trust, unchanged, needs_session = changes(pins.replace(old, new, 1))
        assert (trust, unchanged, len(needs_session)) == ({}, ("two",), 1)


def test_what_is_not_known_to_hold_is_sent_again_and_a_client_certificate_stays() -> None:
    then = parsed(START.replace('ca = "certifi"', 'ca = "certifi"\nclient_cert = "secret:C"\nclient_key = "secret:K"'))
    now = parsed(START)
    found = trusts(now)
    difference = compare(then, now, {"one": None, "two": found["two"]}, found)
    assert list(difference.trust) == ["one"]
    assert difference.trust["one"].client_certificate == ClientCertificate(chain="C", key="K")


def test_a_report_is_told_a_line_a_thing() -> None:
    answers = [
        ControlTrust(server="one", store_sha256="0", kept=2, closed=1),
        ControlTrust(server="two", store_sha256="0", problem="no anchors"),
    ]
    servers = [*map(outcome, answers), ServerReload(server="three", outcome="unchanged")]
    report = ReloadReport(session="s-1", servers=servers, needs_session=["[exec] changed"])
    assert list(sentences(report)) == [
        "one: taken, 2 connections kept, 1 closed",
        "two: refused, and the former trust holds: no anchors",
        "three: unchanged",
        "needs a new session: [exec] changed",
    ]
    assert report.refused
    failed = ReloadReport(session="s-1", problem="no file")
    assert list(sentences(failed)) == ["nothing was changed: no file"]
    assert failed.refused
    assert not ReloadReport(session="s-1", servers=servers[2:]).refused


def test_a_credential_without_a_pin_is_warned_of() -> None:
    text = """
        [mcp_servers.one]
        url = "https://one.example/mcp"
        bearer_token_env_var = "T"
        tls.pins = { mode = "off", credential_without_pin = true }
        [mcp_servers.two]
        url = "https://two.example/mcp"
    """
    (warning,) = without_pin(parsed(text))
    assert warning.startswith("config.toml: [mcp_servers.one.tls.pins] credential_without_pin = true: whoever has")
