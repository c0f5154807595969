"""Rendered client configs read back as exactly what went in, whatever the user's own settings hold."""

import datetime
import json
import tomllib

import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from codingagents.rewrite import codex_keys
from codingagents.rewrite.clients import claude, codex, copilot
from codingagents.rewrite.clients.base import Endpoint
from codingagents.rewrite.parse import parse_config
from codingagents.trust.vocabulary import Secret

scalars = (
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.dates()
    | st.times()
    | st.datetimes(timezones=st.none() | st.just(datetime.UTC))
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
server_names = st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True)
endpoints = st.lists(
    st.builds(
        Endpoint,
        name=server_names,
        url=st.integers(1, 65535).map("http://127.0.0.1:{}/mcp".format),
        bearer=st.from_regex(r"[A-Za-z0-9_-]{1,43}", fullmatch=True).map(Secret),
        transport=st.sampled_from(("http", "sse")),
    ),
    max_size=3,
    unique_by=lambda endpoint: endpoint.name,
)


def authorization(endpoint: Endpoint) -> dict[str, str]:
    return {"Authorization": f"Bearer {endpoint.bearer.reveal()}"}


@given(endpoints)
def test_claude_reads_back_what_was_rendered(given_endpoints: list[Endpoint]) -> None:
    (file,) = claude.render(given_endpoints)
    assert json.loads(file.content) == {
        "mcpServers": {
            e.name: {"type": e.transport, "url": e.url, "headers": authorization(e)} for e in given_endpoints
        }
    }


@given(endpoints)
def test_copilot_reads_back_what_was_rendered(given_endpoints: list[Endpoint]) -> None:
    (file,) = copilot.render(given_endpoints)
    assert json.loads(file.content) == {
        "mcpServers": {
            e.name: {"type": e.transport, "url": e.url, "headers": authorization(e), "tools": ["*"]}
            for e in given_endpoints
        }
    }


@settings(max_examples=60, deadline=None)
@given(
    endpoints,
    st.dictionaries(st.sampled_from(sorted(codex_keys.TOP_LEVEL)), values, max_size=3),
    st.dictionaries(st.sampled_from(sorted(codex_keys.REMOTE_SERVER)), values, max_size=3),
)
def test_codex_reads_back_the_users_settings_and_our_endpoints(
    given_endpoints: list[Endpoint], top: dict[str, object], per_server: dict[str, object]
) -> None:
    servers = {e.name: {"url": "https://upstream.example/", **per_server} for e in given_endpoints}
    config = parse_config(tomli_w.dumps({**top, "mcp_servers": servers}), "c.toml")
    (file,) = codex.render(given_endpoints, codex.passed_through(config))
    assert tomllib.loads(file.content.decode()) == {
        **top,
        "mcp_servers": {
            e.name: {**per_server, "url": e.url, "http_headers": authorization(e)}
            for e in given_endpoints
            if e.transport == "http"
        },
    }
    assert b"upstream.example" not in file.content
