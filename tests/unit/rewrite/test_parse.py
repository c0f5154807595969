"""config.toml: the design's example becomes the values it says, and each mistake is one exact sentence."""

import datetime

import pytest

from codingagents.rewrite import codex_keys
from codingagents.rewrite.config import AnchorSource, CommandServer, RemoteServer
from codingagents.rewrite.parse import parse_config
from codingagents.rewrite.specs import (
    ClientCertificate,
    ExecRule,
    ExecSpec,
    HeaderTemplate,
    LimitsSpec,
    PinSpec,
    RoleLimits,
    TaskTotals,
    TlsSpec,
)
from codingagents.trust.errors import ConfigError

PIN_A = "sha256/" + "A" * 43 + "="
PIN_B = "sha256/" + "B" * 42 + "A="
PINS = f'expires = 2027-03-01\npin = [{{ spki = "{PIN_A}" }}, {{ spki = "{PIN_B}", backup = true }}]'
GITHUB = '[mcp_servers.github]\nurl = "https://api.example.com/mcp"\n'
GITHUB_PINS = GITHUB + "[mcp_servers.github.tls.pins]\n"

FULL = f"""
model = "gpt-5"
[model_providers.x]
name = "x"

[mcp_servers.github]
url = "https://API.example.com:8443/mcp?v=1"
bearer_token_env_var = "GITHUB_TOKEN"
headers = {{ "X-Api-Key" = "${{CONTEXT7_API_KEY}}", "X-Price" = "$$5 $HOME" }}
http_headers = {{ "X-S" = "1" }}
env_http_headers = {{ "X-Env" = "OTHER" }}
connect_to = "203.0.113.7:8443"
proxy = "http://squid:3128"
listen = "unix"
client_auth = ["bearer"]
tool_timeout_sec = 2.5
enabled_tools = ["a"]

[mcp_servers.github.tls]
ca = "custom"
ca_file = "ca.pem"
ca_overrides = ["corp-root"]
server_name = "Mcp.example.com"
min_version = "1.3"
client_cert = "secret:CERT"
client_key = "secret:KEY"
strict_x509 = true
[mcp_servers.github.tls.pins]
expires = 2027-03-01
pin = [
  {{ spki = "{PIN_A}", at = "intermediate", note = "R11" }},
  {{ spki = "sha256//{PIN_B.removeprefix("sha256/")}", backup = true }},
]
[mcp_servers.github.limits]
request_bytes = 2048
connect_seconds = 3

[mcp_servers.play]
command = "npx"
args = ["@playwright/mcp@latest", "--isolated", ""]
env = {{ TOKEN = "${{PLAY_TOKEN}}" }}
env_vars = ["DISPLAY"]
enabled = false
[mcp_servers.play.sandbox]
write = ["/tmp"]
network = "none"
memory = 536870912
layers = {{ landlock_exec = "require" }}

[session]
agent = "claude"
layers = {{ exec_trap = "require", agent_netns = "off" }}
[exec]
mode = "enforce"
rules = [{{ deny = "/run/agent-secrets/**" }}, {{ allow = "/usr/**", role = "task", argv = ["git"] }}]
"""


def only_server(text: str) -> RemoteServer:
    (server,) = parse_config(text, "config.toml").servers
    assert isinstance(server, RemoteServer)
    return server


def test_a_full_config_becomes_the_values_it_says() -> None:
    config = parse_config(FULL, "/etc/x/config.toml")
    github, play = config.servers
    assert isinstance(github, RemoteServer)
    assert (github.spec.scheme, github.spec.host, github.spec.port) == ("https", "api.example.com", 8443)
    assert github.spec.path == "/mcp?v=1"
    assert github.spec.connect_to == "203.0.113.7:8443"
    assert github.spec.client_auth == ["bearer"]
    assert github.spec.headers == [
        HeaderTemplate(name="Authorization", template="Bearer ${GITHUB_TOKEN}"),
        HeaderTemplate(name="X-Api-Key", template="${CONTEXT7_API_KEY}"),
        HeaderTemplate(name="X-Price", template="$$5 $HOME"),
        HeaderTemplate(name="X-S", template="1"),
        HeaderTemplate(name="X-Env", template="${OTHER}"),
    ]
    assert github.spec.tls == TlsSpec(
        server_name="mcp.example.com",
        anchors_pem="",
        store="custom",
        min_version="1.3",
        pin_mode="enforce",
        pins=[PinSpec(spki=PIN_A, at="intermediate", note="R11"), PinSpec(spki=PIN_B, backup=True)],
        pins_expire="2027-03-01",
        strict_x509=True,
        client_certificate=ClientCertificate(chain="CERT", key="KEY"),
    )
    assert github.spec.limits == LimitsSpec(request_bytes=2048, connect_seconds=3.0)
    assert github.anchors == AnchorSource(
        store="custom", path="/etc/x/ca.pem", server_name="mcp.example.com", overrides=("corp-root",)
    )
    assert (github.spec.proxy, github.spec.listen, github.bridged) == ("squid:3128", "unix", False)
    assert github.secrets == {"GITHUB_TOKEN", "CONTEXT7_API_KEY", "OTHER", "CERT", "KEY"}
    assert github.codex == {"tool_timeout_sec": 2.5, "enabled_tools": ["a"]}

    assert isinstance(play, CommandServer)
    assert (play.command, play.args) == ("npx", ("@playwright/mcp@latest", "--isolated", ""))
    assert play.env == {"TOKEN": "${PLAY_TOKEN}"}
    assert play.secrets == {"PLAY_TOKEN"}
    assert play.codex == {"env_vars": ["DISPLAY"]}
    assert (play.sandbox.network, play.sandbox.memory, play.sandbox.pids) == ("none", 536870912, None)
    assert play.sandbox.layers == {"landlock_exec": "require"}

    assert config.active == config.remotes == (github,)
    assert config.session.agent == "claude"
    assert config.session.layers == {"exec_trap": "require", "agent_netns": "off"}
    assert config.exec == ExecSpec(
        mode="enforce",
        rules=[
            ExecRule(action="deny", path="/run/agent-secrets/**"),
            ExecRule(action="allow", path="/usr/**", role="task", argv=["git"]),
        ],
    )
    assert config.codex == {"model": "gpt-5", "model_providers": {"x": {"name": "x"}}}


def test_an_empty_config_is_a_session_without_servers() -> None:
    config = parse_config("", "config.toml")
    assert config.servers == ()
    assert config.session.limits == RoleLimits()
    assert (config.session.network, config.exec, config.warnings) == ("host", ExecSpec(), ())


def test_a_bare_url_trusts_the_host_store_and_demands_uid_and_bearer() -> None:
    server = only_server(GITHUB)
    assert server.spec.tls == TlsSpec(server_name="api.example.com", anchors_pem="", store="host", pin_mode="off")
    assert server.anchors == AnchorSource(
        store="host", path="/etc/ssl/certs/ca-certificates.crt", server_name="api.example.com"
    )
    assert server.spec.client_auth == ["uid", "bearer"]
    assert (server.spec.port, server.enabled, server.spec.allow_private) == (443, True, False)


def test_plaintext_to_loopback_needs_no_trust_and_may_dial_loopback() -> None:
    server = only_server('[mcp_servers.x]\nurl = "http://127.0.0.1:8080"\nallow_plaintext = true')
    assert (server.spec.tls, server.anchors) == (None, None)
    assert (server.spec.scheme, server.spec.port, server.spec.path) == ("http", 8080, "/")
    assert server.spec.allow_private


@pytest.mark.parametrize("address", ["2001:DB8::1", "2001:db8:0:0:0:0:0:1", "2001:0db8::0001"])
def test_an_ip_address_is_accepted_with_the_name_of_its_certificate(address: str) -> None:
    server = only_server(f'[mcp_servers.x]\nurl = "https://[{address}]/"\ntls = {{ server_name = "a.example" }}')
    assert (server.spec.host, server.spec.tls and server.spec.tls.server_name) == ("2001:db8::1", "a.example")


@pytest.mark.parametrize("key", sorted(codex_keys.TOP_LEVEL))
def test_every_top_level_key_of_codex_is_kept(key: str) -> None:
    assert parse_config(f"{key} = {{ a = 2027-01-01 }}", "c").codex == {key: {"a": datetime.date(2027, 1, 1)}}


def test_codex_keys_of_a_server_are_kept_as_they_are() -> None:
    keys = "".join(f"{key} = [1]\n" for key in sorted(codex_keys.REMOTE_SERVER))
    assert set(only_server(GITHUB + keys).codex) == codex_keys.REMOTE_SERVER


WARNINGS = {
    "leaf pins only": (
        GITHUB_PINS + "expires = 2027-01-01\n"
        f'pin = [{{ spki = "{PIN_A}", at = "leaf" }}, {{ spki = "{PIN_B}", at = "leaf", backup = true }}]',
        (
            "[mcp_servers.github.tls.pins] pins only leaf keys, which change with each renewal; "
            "pin an intermediate or root as backup"
        ),
    ),
    "report": (
        GITHUB + f'tls.ca = "certifi"\n[mcp_servers.github.tls.pins]\nmode = "report"\n{PINS}',
        '[mcp_servers.github.tls.pins] mode = "report" only reports a pin mismatch; nothing is refused',
    ),
    "query": (
        '[mcp_servers.x]\nurl = "https://a.example/?key=1"',
        "[mcp_servers.x] url has a query, which the agent sees; put credentials into headers",
    ),
    "helper command": (
        GITHUB + 'http_headers_helper = "cat /token"',
        (
            "[mcp_servers.github] http_headers_helper runs as the agent, which then holds what it prints; "
            "use headers instead"
        ),
    ),
    "plaintext credential": (
        '[mcp_servers.x]\nurl = "http://localhost/"\nallow_plaintext = true\nbearer_token_env_var = "T"',
        "[mcp_servers.x] sends a credential in clear text to whoever holds that loopback port",
    ),
}


@pytest.mark.parametrize(("text", "warning"), WARNINGS.values(), ids=WARNINGS)
def test_what_is_allowed_and_doubtful_is_a_warning(text: str, warning: str) -> None:
    assert parse_config(text, "c.toml").warnings == (f"c.toml: {warning}",)


def test_pins_that_are_only_reported_are_a_banner_where_any_ca_of_the_machine_can_vouch() -> None:
    warnings = parse_config(f'{GITHUB_PINS}mode = "report"\n{PINS}', "c.toml").warnings
    assert warnings[1:] == (
        "c.toml: [mcp_servers.github.tls] any CA of this machine can vouch for the server: its pins are not enforced",
    )


@pytest.mark.parametrize(
    ("host", "below"),
    [("api.example.com", "false"), ("API.example.com", "true"), ("example.com", "true")],
)
def test_pins_are_made_for_the_host_that_is_verified_or_for_one_above_it(host: str, below: str) -> None:
    server = only_server(f'{GITHUB_PINS}host = "{host}"\ninclude_subdomains = {below}\n{PINS}')
    assert server.spec.tls is not None
    assert server.spec.tls.pin_mode == "enforce"


def test_a_pin_of_a_certificate_is_read_in_every_usual_spelling() -> None:
    digest = "0123456789abcdef" * 4
    colons = ":".join(digest[i : i + 2] for i in range(0, 64, 2)).upper()
    for text in (digest, digest.upper(), colons):
        server = only_server(
            f"{GITHUB_PINS}expires = 2027-03-01\n"
            f'pin = [{{ cert_sha256 = "{text}", at = "root" }}, {{ spki = "{PIN_B}", backup = true }}]'
        )
        assert server.spec.tls is not None
        assert server.spec.tls.pins[0] == PinSpec(cert_sha256=digest, at="root")


def test_who_writes_the_pins_reads_a_config_that_lacks_them() -> None:
    """And nothing else of it is let through."""
    text = GITHUB + 'bearer_token_env_var = "T"\n'
    with pytest.raises(ConfigError, match="coding-agents trust rotate github --config '/my config'"):
        parse_config(text, "/my config")
    (server,) = parse_config(text, "c", unpinned_credentials=True).remotes
    assert server.unpinned_credential
    with pytest.raises(ConfigError, match="at least two different keys"):
        parse_config(text + "tls.pins = {}", "c", unpinned_credentials=True)


@pytest.mark.parametrize(
    "spki",
    [
        "sha1/" + "A" * 27 + "=",
        "md5/" + "A" * 22 + "==",
        "A" * 43 + "=",
        "sha256/" + "A" * 42 + "==",
        "sha256/" + "!" * 43 + "=",
        "sha256/" + "A" * 42 + "B=",
    ],
)
def test_a_pin_is_32_bytes_of_sha256_in_canonical_base64(spki: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(GITHUB_PINS + f'mode = "off"\npin = [{{ spki = "{spki}" }}]', "c")
    assert str(caught.value) == (
        "c: [mcp_servers.github.tls.pins.pin[0]] spki must be sha256/<base64> of 32 bytes; no other hash is accepted"
    )


def test_a_credential_goes_out_with_enforced_pins_or_by_an_explicit_wish() -> None:
    credential = GITHUB + 'bearer_token_env_var = "T"\n'
    enforced = only_server(f"{credential}[mcp_servers.github.tls.pins]\n{PINS}")
    wished = only_server(credential + 'tls.pins = { mode = "off", credential_without_pin = true }')
    assert enforced.spec.tls is not None
    assert not enforced.spec.tls.credential_without_pin
    assert wished.spec.tls is not None
    assert wished.spec.tls.credential_without_pin


def test_no_message_repeats_a_value() -> None:
    """Whatever string is put into whatever key, its value is not in the message."""
    canary = "ghp_CANARY0123456789"
    keys = [
        "url",
        "bearer_token_env_var",
        "connect_to",
        "proxy",
        "transport",
        "listen",
        "client_auth",
        "headers",
        "tls",
    ]
    for key in keys:
        text = f'[mcp_servers.x]\n{"" if key == "url" else GITHUB.splitlines()[1]}\n{key} = "{canary} "'
        with pytest.raises(ConfigError) as caught:
            parse_config(text, "c")
        assert canary not in str(caught.value), key


def test_limits_are_of_agent_and_tasks_apart_and_those_left_out_keep_their_defaults() -> None:
    limits = "limits = { memory = 67108864, open_files = 64 }\ntask_limits = { processes = 99, total_processes = 400 }"
    text = f"[session]\n{limits}\n[exec]\ndigest_bytes = 0"
    config = parse_config(text, "c.toml")
    assert config.session.task_limits == RoleLimits(processes=99)
    assert config.session.task_totals == TaskTotals(processes=400)
    assert config.session.limits == RoleLimits(memory=67108864, open_files=64)
    assert config.exec.digest_bytes == 0


def test_what_is_routed_and_what_tasks_may_have_is_the_configurations() -> None:
    text = '[exec]\nroute = "always"\ntask_trees = []\ntask_environment = ["JAVA_HOME", "npm_config_*"]'
    config = parse_config(text, "c.toml")
    assert (config.exec.route, config.exec.task_trees) == ("always", [])
    assert config.exec.task_environment == ["JAVA_HOME", "npm_config_*"]
    assert parse_config("", "c.toml").exec.task_trees is None
