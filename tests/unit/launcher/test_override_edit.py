"""A name in the ca_overrides of one server: in each way that a config.toml may be written, and nothing else changed."""

from __future__ import annotations

import tomllib

import pytest

from codingagents.launcher.override_edit import with_override
from codingagents.trust.errors import ConfigError

URL = 'url = "https://docs.example/mcp"\n'
DOCS = f"[mcp_servers.docs]\n{URL}"
TLS = "[mcp_servers.docs.tls]\n"
QUOTED = f'[mcp_servers."docs"]\n{URL}[mcp_servers."docs".tls]\n'
OTHER = f"[mcp_servers.x]\n{URL}[mcp_servers.x.tls]\nca_overrides = ['corp']\n"
STRING = f'model = """\n{TLS}"""\n'
LIST = 'ca_overrides = ["corp"]'
CA = "ca = 'certifi'"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DOCS, f"{DOCS}\n{TLS}{LIST}\n"),
        (DOCS.rstrip(), f"{DOCS}\n{TLS}{LIST}\n"),
        (DOCS.replace("\n", "\r\n"), f"{DOCS}\n{TLS}{LIST}\n".replace("\n", "\r\n")),
        (f"{DOCS}{TLS}# mine\n{CA}\n[exec]\n", f"{DOCS}{TLS}{LIST}\n# mine\n{CA}\n[exec]\n"),
        (f"{DOCS}{TLS}ca_overrides = [\n  'a', # x\n]\n", f'{DOCS}{TLS}ca_overrides = ["a", "corp"]\n'),
        (f"{DOCS}{TLS}ca_overrides = ['corp'] # x\n", f"{DOCS}{TLS}ca_overrides = ['corp'] # x\n"),
        (f"{DOCS}tls = {{ {CA} }} # x\n", f"{DOCS}tls = {{ {LIST}, {CA} }} # x\n"),
        (f"{DOCS}tls = {{}}\n", f"{DOCS}tls = {{ {LIST}}}\n"),
        (f"{DOCS}tls.{CA}\n", f"[mcp_servers.docs]\ntls.{LIST}\n{URL}tls.{CA}\n"),
        (f"{OTHER}{QUOTED}{CA}", f"{OTHER}{QUOTED}{LIST}\n{CA}"),
        (f"{STRING}{DOCS}{TLS}", f"{STRING}{DOCS}{TLS}{LIST}\n"),
    ],
    ids=range(11),
)
def test_the_name_is_added_and_nothing_else_changes(text: str, expected: str) -> None:
    edited = with_override(text, "F", "docs", "corp")
    assert edited == expected
    assert "corp" in tomllib.loads(edited)["mcp_servers"]["docs"]["tls"]["ca_overrides"]


def test_what_cannot_be_edited_safely_is_told_with_what_to_write() -> None:
    """A whole server in one line."""
    text = f"mcp_servers = {{ docs = {{ {URL.strip()} }} }}\n"
    with pytest.raises(ConfigError) as caught:
        with_override(text, "F", "docs", "corp")
    assert str(caught.value) == 'F: write it there yourself: [mcp_servers.docs.tls] ca_overrides = ["corp"]'


def test_a_file_that_does_not_load_is_left_alone() -> None:
    with pytest.raises(ConfigError, match='has no key "x"'):
        with_override(f"[mcp_servers.docs]\n{URL}x = 1\n", "F", "docs", "corp")
