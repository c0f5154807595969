"""Each client gets its own real format; what the user set for Codex stays."""

import json
import tomllib

import pytest

from codingagents.rewrite.clients import claude, codex, copilot
from codingagents.rewrite.clients.base import Endpoint, loopback_url
from codingagents.rewrite.clients.known import CLIENTS, left_out
from codingagents.rewrite.parse import parse_config
from codingagents.trust.vocabulary import Secret

ENDPOINTS = [
    Endpoint(name="github", url="http://127.0.0.1:4001/mcp", bearer=Secret("local-1")),
    Endpoint(name="docs", url="http://127.0.0.1:4002/", bearer=Secret("local-2")),
]
CONFIG = """
model = "gpt-5"
approval_policy = "never"
[projects."/w"]
trust_level = "trusted"
[mcp_servers.github]
url = "https://api.example.com/mcp"
headers = { X-A = "1" }
default_tools_approval_mode = "approve"
tools = { echo = { approval_mode = "prompt" } }
[mcp_servers.off]
url = "https://off.example.com"
enabled = false
required = true
[session]
agent = "codex"
"""


def test_claude_gets_http_entries_with_the_local_bearer() -> None:
    (file,) = claude.render(ENDPOINTS)
    assert file.path == "claude/mcp.json"
    assert json.loads(file.content) == {
        "mcpServers": {
            "github": {
                "type": "http",
                "url": "http://127.0.0.1:4001/mcp",
                "headers": {"Authorization": "Bearer local-1"},
            },
            "docs": {"type": "http", "url": "http://127.0.0.1:4002/", "headers": {"Authorization": "Bearer local-2"}},
        }
    }


def test_codex_keeps_its_settings_and_loses_the_upstream() -> None:
    (file,) = codex.render(ENDPOINTS, codex.passed_through(parse_config(CONFIG, "c.toml")))
    assert file.path == "codex/config.toml"
    assert tomllib.loads(file.content.decode()) == {
        "model": "gpt-5",
        "approval_policy": "never",
        "projects": {"/w": {"trust_level": "trusted"}},
        "mcp_servers": {
            "github": {
                "default_tools_approval_mode": "approve",
                "tools": {"echo": {"approval_mode": "prompt"}},
                "url": "http://127.0.0.1:4001/mcp",
                "http_headers": {"Authorization": "Bearer local-1"},
            },
            "docs": {"url": "http://127.0.0.1:4002/", "http_headers": {"Authorization": "Bearer local-2"}},
        },
    }


@pytest.mark.parametrize(
    ("said", "mode"),
    [
        ("", "danger-full-access"),
        ('sandbox_mode = "read-only"', "read-only"),
        ('default_permissions = "x"', None),
        ('profile = "careful"', None),
    ],
)
def test_codex_leaves_the_confinement_of_tasks_to_the_runner_unless_the_user_says_more(
    said: str, mode: str | None
) -> None:
    (file,) = codex.render([], said, routed=True)
    assert tomllib.loads(file.content.decode()).get("sandbox_mode") == mode
    (file,) = codex.render([], said)
    assert "danger" not in file.content.decode()


def test_copilot_gets_all_tools_of_entries_with_the_local_bearer() -> None:
    (file,) = copilot.render([*ENDPOINTS[:1], LEGACY])
    assert file.path == "copilot/mcp-config.json"
    assert json.loads(file.content) == {
        "mcpServers": {
            name: {"type": kind, "url": url, "headers": {"Authorization": f"Bearer {bearer}"}, "tools": ["*"]}
            for name, kind, url, bearer in (
                ("github", "http", "http://127.0.0.1:4001/mcp", "local-1"),
                ("old", "sse", "https://127.0.0.1:4003/sse", "local-3"),
            )
        }
    }


@pytest.mark.parametrize("name", CLIENTS)
def test_no_secret_of_a_client_gets_into_its_tasks_by_its_table(name: str) -> None:
    """Names as the clients themselves and their documentation have them."""
    secrets = {
        *("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_MESSAGING_TOKEN"),
        *("OPENAI_API_KEY", "CODEX_API_KEY", "CODEX_ACCESS_TOKEN"),
        *("GH_TOKEN", "GITHUB_TOKEN", "COPILOT_GITHUB_TOKEN", "COPILOT_PROVIDER_API_KEY"),
    }
    for allowed in CLIENTS[name].SHELLING.task_environment:
        assert not [each for each in secrets if each == allowed or each.startswith(allowed.removesuffix("*"))]


@pytest.mark.parametrize("name", CLIENTS)
def test_a_table_says_what_it_was_measured_with_and_names_the_task_shell(name: str) -> None:
    table = CLIENTS[name].SHELLING
    assert table.measured.count(".") == 2
    told = [*table.environment.values(), *(text for file in table.settings for text in file.content["env"].values())]
    assert "{shell}" in told or table.account_shell
    assert table.needs[0].path == ""


def test_codex_without_any_endpoint_has_no_server() -> None:
    (file,) = codex.render([], codex.passed_through(parse_config(CONFIG, "c.toml")))
    assert tomllib.loads(file.content.decode())["mcp_servers"] == {}


LEGACY = Endpoint(name="old", url="https://127.0.0.1:4003/sse", bearer=Secret("local-3"), transport="sse")


def test_a_legacy_sse_server_is_claudes_and_never_codexs() -> None:
    (file,) = claude.render([LEGACY])
    assert json.loads(file.content)["mcpServers"]["old"]["type"] == "sse"
    (file,) = codex.render([*ENDPOINTS, LEGACY], "[mcp_servers.old]\nrequired = true\n")
    assert set(tomllib.loads(file.content.decode())["mcp_servers"]) == {"github", "docs"}


WAYS = """
[mcp_servers.plain]
url = "https://a.example/mcp"
[mcp_servers.tls]
url = "https://a.example/mcp"
listen = "https"
[mcp_servers.old]
url = "https://a.example/sse"
transport = "sse"
[mcp_servers.sock]
url = "https://a.example/mcp"
listen = "unix"
[mcp_servers.off]
url = "https://a.example/mcp"
listen = "unix"
enabled = false
"""


def test_who_is_not_told_of_a_server_is_said() -> None:
    config = parse_config(WAYS, "c.toml")
    old, sock = left_out(config)
    assert old == 'c.toml: [mcp_servers.old] transport = "sse" is not spoken by codex, which is not told of it'
    assert sock.startswith('c.toml: [mcp_servers.sock] listen = "unix" is for programs of your own, at /run/')
    assert "/run/coding-agents/mcp/sock.sock;" in sock
    assert list(left_out(config, {"claude": claude})) == [sock]


def test_a_helper_on_https_has_an_https_url() -> None:
    plain, tls, *_ = parse_config(WAYS, "c.toml").remotes
    assert loopback_url(plain.spec, 4001) == "http://127.0.0.1:4001/mcp"
    assert loopback_url(tls.spec, "PORT") == "https://127.0.0.1:PORT/mcp"


def test_the_sessions_authority_is_trusted_only_where_there_is_one() -> None:
    assert claude.switches("/r", "/ca.pem").environment == {"NODE_EXTRA_CA_CERTS": "/ca.pem"}
    assert copilot.switches("/r", "/ca.pem").environment["NODE_EXTRA_CA_CERTS"] == "/ca.pem"
    assert codex.switches("/r", "/ca.pem").environment == {"CODEX_HOME": "/r/codex", "CODEX_CA_CERTIFICATE": "/ca.pem"}
    assert claude.switches("/r").environment == {}


@pytest.mark.parametrize("name", CLIENTS)
def test_switches_name_the_file_that_was_rendered(name: str) -> None:
    client = CLIENTS[name]
    assert name == client.NAME
    (file,) = client.render(ENDPOINTS)
    switches = client.switches("/run/x")
    named = [*switches.arguments, *switches.environment.values()]
    assert any(f"/run/x/{file.path}".startswith(text) for text in named if text.startswith("/"))


def test_switches_are_each_clients_own() -> None:
    assert claude.switches("/r").arguments == ("--mcp-config", "/r/claude/mcp.json", "--strict-mcp-config")
    assert codex.switches("/r").environment == {"CODEX_HOME": "/r/codex"}
    assert copilot.switches("/r").environment == {"COPILOT_HOME": "/r/copilot"}


def test_a_bearer_is_not_shown_by_accident() -> None:
    (file,) = claude.render(ENDPOINTS)
    assert "local-1" not in repr(ENDPOINTS) + repr(file)
