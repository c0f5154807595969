"""One server of a configuration as a helper in the foreground."""

from typing import Any

import pytest

from codingagents.rewrite.foreground_plan import (
    Address,
    ForegroundSpec,
    Source,
    notes,
    only,
    parse_client_auth,
    parse_listen,
    plan_helper,
    warnings_about,
)
from codingagents.rewrite.overrides import Anchors
from codingagents.rewrite.parse import parse_config
from codingagents.rewrite.specs import HelperSpec
from codingagents.trust import wire
from codingagents.trust.errors import ConfigError, NotFoundError, UsageError
from codingagents.trust.vocabulary import Secret

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
CONFIG = """
[mcp_servers.a]
url = "https://a.example/mcp?q"
bearer_token_env_var = "TOKEN"
tls.pins = { mode = "off", credential_without_pin = true }
listen = "unix"
enabled = false
[mcp_servers.ab]
url = "https://ab.example/mcp?q"
listen = "stdio"
[mcp_servers.dev]
url = "http://127.0.0.1:9/"
allow_plaintext = true
client_auth = []
[mcp_servers.program]
command = "npx"
[session]
network = "helpers"
"""


def plan(name: str, **changes: Any) -> HelperSpec:
    arguments: dict[str, Any] = {
        "address": Address(0),
        "client_auth": None,
        "secrets": {"TOKEN": Secret("t"), "OTHER": Secret("o")},
        "anchors": {name: Anchors(pem=PEM)},
        "uid": 1000,
        "gid": 100,
        "bearer": Secret("b"),
    }
    return plan_helper(only(parse_config(CONFIG, "c.toml"), name), **(arguments | changes))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:0", Address(0)),
        ("localhost:8080", Address(8080)),
        ("127.0.0.1:65535", Address(65535)),
        ("unix:/run/x/a b.sock", Address(0, "/run/x/a b.sock")),
        ("unix:/" + "x" * 106, Address(0, "/" + "x" * 106)),
    ],
)
def test_an_address_of_this_machine_is_taken(text: str, address: Address) -> None:
    assert parse_listen(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", ":80", "8080", "127.0.0.1", "127.0.0.1:65536", "127.0.0.1:08", "127.0.0.1:\u0661", "127.0.0.1:80 "),
        *("0.0.0.0:80", "192.0.2.1:80", "[::]:80", "127.0.0.1.example:80", "http://127.0.0.1:80", "127.1:80"),
        *("unix:", "unix:x.sock", "unix:/" + "x" * 107, "unix:/" + "ä" * 54, "unix:/a\nb", "unix:/\udcff"),
    ],
)
def test_what_others_could_reach_or_nobody_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--listen"):
        parse_listen(text)


def test_client_auth_is_one_of_four() -> None:
    assert [parse_client_auth(text) for text in ("none", "uid", "bearer", "uid,bearer")] == [
        (), ("uid",), ("bearer",), ("uid", "bearer"),
    ]  # fmt: skip
    for text in ("", "bearer,uid", "UID", "all"):
        with pytest.raises(UsageError, match=r"^--client-auth must be one of none uid bearer uid,bearer$"):
            parse_client_auth(text)


def test_a_helper_is_told_its_own_secrets_and_its_caller_is_who_runs_it() -> None:
    helper = plan("a")
    assert helper.secrets == {"TOKEN": Secret("t")}
    assert (helper.uid, helper.gid, helper.agent_uid) == (1000, 100, 1000)
    assert helper.remote.tls is not None
    assert helper.remote.tls.anchors_pem == PEM
    assert (helper.listen_port, helper.remote.listen, helper.remote.client_auth) == (0, "http", ["uid"])
    helper = plan("a", address=Address(8080), client_auth=("bearer",))
    assert (helper.listen_port, helper.remote.listen, helper.remote.client_auth) == (8080, "http", ["bearer"])
    helper = plan("ab", address=Address(0, "/x.sock"), client_auth=())
    assert (helper.remote.listen, helper.remote.client_auth) == ("unix", [])
    assert plan("dev").remote.client_auth == []


def test_it_goes_over_the_wire() -> None:
    source = Source(name="TOKEN", kind="file", place="/t")
    spec = ForegroundSpec(
        helper=plan("a"),
        socket_path="",
        sources=[source],
        env_file="/e",
        config="/c",
        overrides="/o",
        events=None,
        as_json=False,
        notes=["n"],
    )
    assert wire.decode(ForegroundSpec, wire.encode(spec, reveal_secrets=True)) == spec
    with pytest.raises(TypeError):
        wire.encode(spec)


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("abb", NotFoundError, 'c.toml has no server "abb"; did you mean "ab"?'),
        ("x\x1b", NotFoundError, 'c.toml has no server "x\\u001b"; it can have a, ab, dev, program'),
        (
            "program",
            ConfigError,
            "c.toml: [mcp_servers.program] has a command; a helper stands for a server with a url",
        ),
    ],
)
def test_what_cannot_have_a_helper_is_said(name: str, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind) as caught:
        plan(name)
    assert str(caught.value) == sentence


def test_a_file_without_servers_says_so() -> None:
    with pytest.raises(NotFoundError, match=r'^c\.toml has no server "a"; it has none$'):
        only(parse_config("", "c.toml"), "a")


def test_a_secret_or_a_store_that_is_not_there_is_said() -> None:
    with pytest.raises(ConfigError, match="needs the secret TOKEN"):
        plan("a", secrets={})
    with pytest.raises(ConfigError, match="has no trust anchors"):
        plan("a", anchors={})


def test_what_is_otherwise_than_in_a_session_is_noted() -> None:
    config = parse_config(CONFIG, "c.toml")
    assert notes(only(config, "a")) == ['listen = "unix" is for sessions; --listen says where this helper is']
    assert notes(only(config, "ab")) == ['listen = "stdio" is for sessions; --listen says where this helper is']
    assert notes(only(config, "dev")) == []
    (about_a,) = warnings_about(config, "a")
    (about_ab,) = warnings_about(config, "ab")
    assert "[mcp_servers.a] url has a query" in about_a
    assert "[mcp_servers.ab] url has a query" in about_ab
