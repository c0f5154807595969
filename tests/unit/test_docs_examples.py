"""configuration.md is held to the parser: its examples are accepted, its refusals refused, its keys are the keys."""

from __future__ import annotations

import contextlib
import datetime
import io
import itertools
import re
from pathlib import Path

import pytest

import documents
from codingagents.launcher import config_cmd
from codingagents.rewrite import headers, parse_servers, plan
from codingagents.rewrite.clients.known import ANY, CLIENTS
from codingagents.rewrite.overrides import Anchors
from codingagents.rewrite.parse import parse_config
from codingagents.rewrite.plan import anchor_sources, plan_session, required_secrets, uid_plan
from codingagents.rewrite.secrets import parse_env_file
from codingagents.rewrite.specs import LimitsSpec, SessionSpec
from codingagents.trust.errors import ConfigError
from codingagents.trust.vocabulary import LAYER_NAMES
from pki import make_root

GUIDE = documents.read("configuration.md")
ROUTING = documents.section(documents.read("tasks.md"), "Routing")
TODAY = datetime.date(2026, 11, 24)
BLOCKS = documents.blocks(GUIDE)
ACCEPTED = [block.text for block in BLOCKS if block.words == ("toml",)]
REFUSED = [
    (block.text, answer.text.strip())
    for block, answer in itertools.pairwise(BLOCKS)
    if block.words == ("toml", "refused")
]
ANCHOR = make_root().pem
COMPLETE = ACCEPTED[0]
REMOTE = '[mcp_servers.x]\nurl = "https://a.example/"\n'
COMMAND = '[mcp_servers.x]\ncommand = "c"\n'
# Section and number of its table -> what makes the parser list the keys of that table.
TABLES = {
    ("TLS", 0): REMOTE + "tls = { zzzzzzzz = 1 }",
    ("Pins", 0): REMOTE + "tls.pins = { zzzzzzzz = 1 }",
    ("Pins", 1): REMOTE + "tls.pins.pin = [{ zzzzzzzz = 1 }]",
    ("Limits", 0): REMOTE + "limits = { zzzzzzzz = 1 }",
    ("Session", 0): "[session]\nzzzzzzzz = 1",
    ("Layers", 0): "[session]\nlayers = { zzzzzzzz = 1 }",
    ("Exec", 0): "[exec]\nzzzzzzzz = 1",
    ("Exec", 1): "[exec]\nrules = [{ zzzzzzzz = 1 }]",
    ("Command servers", 1): COMMAND + "sandbox = { zzzzzzzz = 1 }",
}


def planned(text: str) -> SessionSpec:
    """Plan a session of `text` with everything at hand that it names."""
    config = parse_config(text, "config.toml")
    return plan_session(
        config,
        session="s-1",
        agent=config.session.agent or "claude",
        engine="local",
        uids=uid_plan(52000, [server.name for server in config.active]),
        secret_names_available=required_secrets(config),
        anchors=dict.fromkeys(anchor_sources(config), Anchors(pem=ANCHOR)),
        command=["claude"],
        working_directory="/work",
        environment={},
        public_key="",
        config_sha256="",
        today=TODAY,
    )


def tables(title: str) -> list[list[str]]:
    """Return the keys of each table of a section, in order: a header's first cell is not code."""
    found: list[list[str]] = []
    fresh = True
    for line in documents.section(GUIDE, title).lines:
        if not line.startswith("|"):
            fresh = True
            continue
        if fresh:
            found.append([])
            fresh = False
        found[-1] += documents.code(line.split("|")[1])
    return found


def test_there_are_examples() -> None:
    assert len(ACCEPTED) >= 8
    assert len(REFUSED) >= 4


@pytest.mark.parametrize("text", ACCEPTED, ids=range(len(ACCEPTED)))
def test_an_example_is_a_session(text: str) -> None:
    planned(text)


@pytest.mark.parametrize(("text", "sentence"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_said_to_be_refused_is_refused_with_that_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(text)
    assert str(caught.value) == sentence


def test_everything_that_is_not_available_yet_is_listed() -> None:
    source = (documents.ROOT / "rewrite/codingagents/rewrite/plan.py").read_text()
    problems = re.findall(r"""['"{]([^'"\n]*?)(?: = "[^'\n]*)? is not available yet""", source)
    known = {name.strip("{}") for name in problems} - {"name"} | set(plan._LAYERS_NOT_YET)
    listed = " ".join(sentence for _, sentence in REFUSED)
    assert {"network", "listen"} <= known
    assert [name for name in sorted(known) if name not in listed] == []


@pytest.mark.parametrize(("table", "text"), TABLES.items(), ids=["-".join(map(str, key)) for key in TABLES])
def test_a_table_lists_exactly_the_keys_of_the_parser(table: tuple[str, int], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "config.toml")
    keys = str(caught.value).partition("it can have ")[2].split(", ")
    title, number = table
    assert sorted(tables(title)[number]) == sorted(keys)


def test_the_tables_of_servers_list_exactly_their_keys() -> None:
    assert sorted(tables("Remote servers")[0]) == sorted(parse_servers._REMOTE_KEYS | {"enabled"})
    assert sorted(tables("Command servers")[0]) == sorted(parse_servers._COMMAND_KEYS | {"enabled"})


def test_every_reserved_header_is_named() -> None:
    text = " ".join(documents.section(GUIDE, "Remote servers").lines).lower()
    assert [name for name in headers._RESERVED if not re.search(rf"[ ,]{re.escape(name)}[,. ]", text)] == []


def test_default_limits_are_those_of_the_parser() -> None:
    default = LimitsSpec()
    for cells in documents.section(GUIDE, "Limits").rows:
        for name in documents.code(cells[0]):
            assert float(cells[2]) == getattr(default, name)


def test_layers_that_cannot_be_off_are_marked() -> None:
    for cells in documents.section(GUIDE, "Layers").rows:
        for name in documents.code(cells[0]):
            text = f'[session]\nlayers = {{ {name} = "off" }}'
            with contextlib.nullcontext() if cells[2] == "yes" else pytest.raises(ConfigError):
                planned(text)
            assert name in LAYER_NAMES


@pytest.mark.parametrize("client", sorted(CLIENTS))
def test_what_a_client_gets_is_what_is_shown(client: str, tmp_path: Path) -> None:
    (shown,) = [block.text for block in BLOCKS if block.words[1:] == (client,)]
    file = tmp_path / "config.toml"
    file.write_text(COMPLETE)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        config_cmd.render(file, client=client, as_json=False)
    assert shown in out.getvalue()


def test_the_example_of_a_secrets_file_is_read() -> None:
    (shown,) = [block.text for block in BLOCKS if block.words == ("sh", "secrets")]
    found = parse_env_file(shown, "mcp-secrets.env")
    assert {name: secret.reveal() for name, secret in found.items()} == {
        "GITHUB_TOKEN": "ghp_abc123",
        "CONTEXT7_API_KEY": 'any $text "as it is"',
        "MULTI": "line one\nline two",
    }


@pytest.mark.parametrize("client", [*sorted(CLIENTS), ""])
def test_what_a_routed_client_loses_is_said_as_the_log_says_it(client: str) -> None:
    """And with which version its table was measured."""
    names = {"claude": "Claude Code", "codex": "Codex", "copilot": "Copilot CLI"}
    shelling = CLIENTS[client].SHELLING if client else ANY
    (said,) = [cells[1:] for cells in ROUTING.rows if len(cells) == 4 and cells[0] == names.get(client, "another")]
    assert said == ["; ".join(each) for each in (shelling.degrades, shelling.unmounted, shelling.open)]
    if client:
        (told,) = [cells for cells in ROUTING.rows if len(cells) == 3 and cells[0] == names[client]]
        assert told[2] == shelling.measured
