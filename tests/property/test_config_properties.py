"""Configuration: any text gives a Config or a ConfigError; templates expand to what they say."""

import copy
import datetime
from typing import Any

import tomli_w
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codingagents.rewrite.addresses import parse_host_port, parse_url
from codingagents.rewrite.check import check_expiry, rows_of
from codingagents.rewrite.config import Config, RemoteServer
from codingagents.rewrite.parse import parse_config
from codingagents.rewrite.placeholders import Placeholder, expand, expand_header, parse_template
from codingagents.trust.errors import ConfigError
from codingagents.trust.vocabulary import Secret, SecretName

TODAY = datetime.date(2026, 11, 24)
# Every key once, each with a value that is accepted.
VALID: dict[str, Any] = {
    "model": "m",
    "mcp_servers": {
        "github": {
            "url": "https://a.example/mcp",
            "bearer_token_env_var": "T",
            "headers": {"X-A": "${K} $$"},
            "http_headers": {"X-B": "1"},
            "env_http_headers": {"X-C": "C"},
            "connect_to": "192.0.2.1:8443",
            "proxy": "http://p:1",
            "listen": "http",
            "transport": "http",
            "client_auth": ["uid"],
            "allow_private": False,
            "allow_plaintext": False,
            "enabled": True,
            "required": True,
            "tls": {
                "ca": "custom",
                "ca_file": "ca.pem",
                "ca_overrides": ["x"],
                "server_name": "b.example.org",
                "min_version": "1.3",
                "client_cert": "secret:A",
                "client_key": "secret:B",
                "strict_x509": True,
                "pins": {
                    "host": "example.org",
                    "include_subdomains": True,
                    "mode": "enforce",
                    "expires": datetime.date(2027, 3, 1),
                    "credential_without_pin": False,
                    "pin": [
                        {"spki": "sha256/" + "A" * 43 + "=", "at": "leaf", "note": "n"},
                        {"spki": "sha256/" + "B" * 42 + "A=", "backup": True},
                        {"cert_sha256": "AB" * 32},
                    ],
                },
            },
            "limits": {
                "request_bytes": 4096,
                "header_bytes": 4096,
                "connections": 1,
                "connect_seconds": 1.5,
                "idle_seconds": 2,
            },
        },
        "play": {
            "command": "npx",
            "args": ["a"],
            "env": {"A": "${E}"},
            "cwd": "/",
            "sandbox": {
                "write": ["/tmp"],
                "network": "none",
                "memory": 2**30,
                "pids": 5,
                "seconds": 60,
                "layers": {"userns": "prefer"},
            },
        },
    },
    "session": {
        "agent": "claude",
        "workspace": "/w",
        "workspace_acl": True,
        "network": "helpers",
        "layers": {"exec_trap": "require"},
    },
    "exec": {"mode": "enforce", "rules": [{"allow": "/usr/**", "role": "task", "argv": ["git"]}], "trees": ["/usr"]},
}


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path into `value` but the empty one."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [place for key, below in items for place in places(below, (*path, key))]


interesting = st.sampled_from(
    [
        "https://a.example/mcp",
        "http://127.0.0.1:1",
        "https://[::1]/",
        "http://localhost",
        "https",
        "enforce",
        "report",
        "off",
        "host",
        "custom",
        "pinned-only",
        "a.example",
        "${T}",
        "${",
        "$$",
        "secret:A",
        "uid",
        "bearer",
        "/usr/**",
        "a.example:443",
        "leaf",
        "observe",
        "helpers",
        "task",
    ]
)
values = st.recursive(
    interesting
    | st.text(max_size=8)
    | st.booleans()
    | st.integers(-1, 2**40)
    | st.floats()
    | st.dates(datetime.date(2026, 1, 1), datetime.date(2028, 1, 1))
    | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A valid document with up to three places changed, removed or renamed."""
    document = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(0, 3))):
        *path, last = draw(st.sampled_from(places(document)))
        parent: Any = document
        for key in path:
            parent = parent[key]
        match draw(st.sampled_from(["change", "remove", "rename"])):
            case "change":
                parent[last] = draw(values)
            case "remove":
                del parent[last]
            case "rename" if isinstance(parent, dict):
                parent[draw(st.text(max_size=8))] = parent.pop(last)
    return document


def read(text: str) -> Config | None:
    try:
        config = parse_config(text, "c.toml")
        check_expiry(config, TODAY)
    except ConfigError as error:
        message = str(error)
        assert message.startswith("c.toml: ")
        assert message.isprintable()
        return None
    rows_of(config)
    return config


@given(st.text(max_size=200))
@example("a" * 100 + ".a" * 190)
@example("[" * 5000)
@example("a=" + "{a=" * 5000)
@example('x = "\\ud800"')
@example("\r")
@example("a = 0001-01-01")
def test_any_text_is_a_config_or_one_sentence(text: str) -> None:
    read(text)


@settings(max_examples=150, deadline=None)
@given(documents())
def test_any_document_is_a_config_or_one_sentence(document: dict[str, object]) -> None:
    config = read(tomli_w.dumps(document))
    assert config is not None or document != VALID
    if config is None:
        return
    for remote in config.servers:
        if isinstance(remote, RemoteServer):
            assert (remote.spec.tls is None) == (remote.spec.scheme == "http") == (remote.anchors is None)
            tls = remote.spec.tls
            assert not (remote.secrets and tls and tls.pin_mode != "enforce" and not tls.credential_without_pin)


@given(st.text(st.sampled_from("abc019.:/[]@#?%-_$"), max_size=20))
def test_an_accepted_url_means_the_same_when_read_again(rest: str) -> None:
    try:
        url = parse_url(f"https://{rest}")
    except ValueError:
        return
    host = f"[{url.host}]" if ":" in url.host else url.host
    assert parse_url(f"https://{host}:{url.port}{url.path}") == url


@given(st.text(st.sampled_from("abc019.:[]%-"), max_size=16))
def test_an_accepted_address_is_canonical(text: str) -> None:
    try:
        address = parse_host_port(text)
    except ValueError:
        return
    assert parse_host_port(address) == address


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True)
# What a template is made of, and what it stands for.
parts = st.one_of(
    names.map(lambda name: (f"${{{name}}}", f"<{name}>")),
    st.just(("$$", "$")),
    st.text(st.characters(exclude_characters="$", exclude_categories=["Cs"]), max_size=5).map(
        lambda text: (text, text)
    ),
)


@given(st.lists(parts, max_size=6))
def test_a_template_expands_part_by_part(pieces: list[tuple[str, str]]) -> None:
    template = "".join(source for source, _ in pieces)
    wanted = {part.name for part in parse_template(template) if isinstance(part, Placeholder)}
    assert expand(template, {name: Secret(f"<{name}>") for name in wanted}) == "".join(value for _, value in pieces)


@given(st.text(st.sampled_from("${}AB:-"), max_size=12))
def test_no_unexplained_placeholder_survives(template: str) -> None:
    """A template without `$$` never leaves a `${` in what it expands to."""
    try:
        value = expand(template, {SecretName(name): Secret("s") for name in ("A", "B", "AB", "BA", "AA", "BB")})
    except ConfigError:
        return
    assert "$$" in template or "${" not in value


@given(st.text(max_size=10).filter(bool))
def test_a_header_value_is_one_line_of_ascii_or_refused(secret: str) -> None:
    try:
        value = expand_header("X", "${S}", {"S": Secret(secret)})
    except ConfigError:
        return
    assert value.isascii()
    assert value.replace("\t", " ").isprintable()
    assert value == secret.strip(" \t")
