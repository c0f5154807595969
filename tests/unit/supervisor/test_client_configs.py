"""Which servers a session's clients are told of, and whom they are told to trust."""

from __future__ import annotations

import contextlib
import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from codingagents.rewrite import places
from codingagents.rewrite.clients.base import Settings
from codingagents.rewrite.plan import uid_plan
from codingagents.rewrite.specs import ListenCertificate, RemoteSpec, SessionSpec
from codingagents.supervisor.client_configs import install_clients
from codingagents.supervisor.slots import Slot, bind_slot
from codingagents.trust.vocabulary import Secret


def remote(name: str, **changes: object) -> RemoteSpec:
    plain = RemoteSpec(name=name, scheme="https", host="a.example", port=443, path="/mcp")
    return msgspec.structs.replace(plain, **changes)


SPEC = SessionSpec(
    session="s", agent="claude", engine="local", config_sha256="", uids=uid_plan(52_000, []), remotes=[], command=["x"],
    working_directory="/", environment={}, public_key="",
)  # fmt: skip


@pytest.fixture
def slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Slot]]:
    monkeypatch.setattr(places, "SOCKETS", str(tmp_path))
    certificate = ListenCertificate(chain_pem="chain", key_pem=Secret("key"))
    with contextlib.ExitStack() as stack:
        made = {
            "plain": bind_slot(remote("plain"), 1, Secret("b-plain")),
            "old": bind_slot(remote("old", transport="sse"), 2, Secret("b-old")),
            "tls": bind_slot(remote("tls", listen="https"), 3, Secret("b-tls"), certificate=certificate),
            "sock": bind_slot(remote("sock", listen="unix"), 4, Secret("b-sock"), agent_gid=os.getegid()),
        }
        for slot in made.values():
            stack.callback(slot.close)
        yield made


def install(root: Path, slots: list[Slot]) -> tuple[dict[str, dict[str, object]], dict[str, object], dict[str, str]]:
    """Return what Claude is told, what Codex is told, and the environment of both."""
    # The agent's group must be one that this test may give files to.
    spec = msgspec.structs.replace(SPEC, uids=msgspec.structs.replace(SPEC.uids, agent=os.getegid()))
    switches = install_clients(spec, slots, str(root / "clients"), ["claude"])
    claude = json.loads((root / "clients/claude/mcp.json").read_text())["mcpServers"]
    codex = tomllib.loads((root / "clients/codex/config.toml").read_text())["mcp_servers"]
    return claude, codex, dict(switches.environment)


def test_each_client_is_told_of_what_it_can_reach(tmp_path: Path, slots: dict[str, Slot]) -> None:
    claude, codex, _ = install(tmp_path, list(slots.values()))
    assert {name: (entry["type"], entry["url"]) for name, entry in claude.items()} == {
        "plain": ("http", f"http://127.0.0.1:{slots['plain'].port}/mcp"),
        "old": ("sse", f"http://127.0.0.1:{slots['old'].port}/mcp"),
        "tls": ("http", f"https://127.0.0.1:{slots['tls'].port}/mcp"),
    }
    assert set(codex) == {"plain", "tls"}


def test_the_sessions_authority_is_named_only_where_a_server_listens_on_https(
    tmp_path: Path, slots: dict[str, Slot]
) -> None:
    *_, environment = install(tmp_path, list(slots.values()))
    assert environment["NODE_EXTRA_CA_CERTS"] == environment["CODEX_CA_CERTIFICATE"] == places.SESSION_CA
    *_, environment = install(tmp_path, [slots["plain"], slots["sock"]])
    assert set(environment) == {"CODEX_HOME", "COPILOT_HOME"}


def test_a_routed_client_is_given_its_settings_and_told_of_them(tmp_path: Path) -> None:
    spec = msgspec.structs.replace(SPEC, uids=msgspec.structs.replace(SPEC.uids, agent=os.getegid()))
    settings = Settings(path="claude/settings.json", content={"env": {"A": "1"}}, arguments=("--settings", "/f"))
    for routed, command in (("claude", "claude"), ("claude", "python3"), ("", "claude")):
        root = tmp_path / f"{routed}{command}"
        switches = install_clients(spec, [], str(root), [command], routed=routed, settings=[settings] if routed else [])
        assert (root / "claude/settings.json").exists() is bool(routed)
        assert ("--settings" in switches.arguments) is (routed == command)
    assert json.loads((tmp_path / "claudeclaude/claude/settings.json").read_text()) == {"env": {"A": "1"}}
    assert not (tmp_path / "claudeclaude/codex/settings.json").exists()
