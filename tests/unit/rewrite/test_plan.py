"""Planning: what cannot work is refused before anything starts, by a sentence that says what to do."""

import datetime
from typing import Any

import msgspec
import pytest

from codingagents.rewrite.check import check_expiry, rows_of
from codingagents.rewrite.config import AnchorSource, Config
from codingagents.rewrite.overrides import Anchors
from codingagents.rewrite.parse import parse_config
from codingagents.rewrite.plan import anchor_sources, plan_session, required_secrets, uid_plan
from codingagents.rewrite.specs import ClientCertificate, OverrideSpec, RoleLimits, SessionSpec, TaskTotals, UidPlan
from codingagents.trust import wire
from codingagents.trust.errors import ConfigError, UsageError
from pki import make_root

TODAY = datetime.date(2026, 11, 24)
PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
PINNED = f"""
[mcp_servers.github]
url = "https://api.example.com/mcp"
bearer_token_env_var = "GITHUB_TOKEN"
startup_timeout_sec = 15
[mcp_servers.github.tls.pins]
expires = 2027-03-01
pin = [{{ spki = "sha256/{"A" * 43}=" }}, {{ spki = "sha256/{"B" * 42}A=", backup = true }}]
"""
LOCAL = '[mcp_servers.local]\nurl = "http://127.0.0.1:9/mcp"\nallow_plaintext = true\n'
OFF = '[mcp_servers.off]\ncommand = "x"\nenv = { A = "${NOT_NEEDED}" }\nenabled = false\n'


def plan(config: Config, *, uids: UidPlan | None = None, **changes: Any) -> SessionSpec:
    arguments: dict[str, Any] = {
        "session": "s-1",
        "agent": "claude",
        "engine": "local",
        "uids": uids or uid_plan(300_000, [server.name for server in config.remotes]),
        "secret_names_available": {"GITHUB_TOKEN"},
        "anchors": dict.fromkeys(anchor_sources(config), Anchors(pem=PEM)),
        "command": ["/usr/bin/true"],
        "working_directory": "/work",
        "environment": {"PATH": "/usr/bin"},
        "public_key": "AAAA",
        "config_sha256": "00" * 32,
        "today": TODAY,
    }
    return plan_session(config, **(arguments | changes))


def test_a_plan_is_whole_and_goes_over_the_wire() -> None:
    session = '[session]\nlayers = { exec_trap = "require" }\ntask_limits = { processes = 99, total_memory = 67108864 }'
    config = parse_config(f'model = "m"\n{PINNED}{LOCAL}{OFF}{session}', "c.toml")
    spec = plan(config)
    assert [remote.name for remote in spec.remotes] == ["github", "local"]
    github, local = spec.remotes
    assert github.tls is not None
    assert github.tls.anchors_pem == PEM
    assert local.tls is None
    assert spec.layers == {"exec_trap": "require"}
    assert (spec.limits, spec.task_limits) == (RoleLimits(), RoleLimits(processes=99))
    assert spec.task_totals == TaskTotals(memory=67108864)
    assert spec.uids.servers == {"github": 300_003, "local": 300_004}
    assert spec.codex_toml == 'model = "m"\n\n[mcp_servers.github]\nstartup_timeout_sec = 15\n'
    assert wire.decode(SessionSpec, wire.encode(spec).strip()) == spec


def test_only_active_servers_need_secrets_and_anchors() -> None:
    config = parse_config(PINNED + LOCAL + OFF, "/etc/c.toml")
    assert required_secrets(config) == {"GITHUB_TOKEN"}
    assert anchor_sources(config) == {
        "github": AnchorSource(store="host", path="/etc/ssl/certs/ca-certificates.crt", server_name="api.example.com")
    }


@pytest.mark.parametrize(
    ("tls", "path"),
    [
        ('ca = "certifi"', None),
        ('ca = "custom"\nca_file = "pki/ca.pem"', "/home/me/pki/ca.pem"),
        ('ca = "custom"\nca_file = "/etc/ca.pem"', "/etc/ca.pem"),
    ],
)
def test_anchors_come_from_the_store_that_is_named(tls: str, path: str | None) -> None:
    config = parse_config(f'[mcp_servers.x]\nurl = "https://a.example"\n[mcp_servers.x.tls]\n{tls}', "/home/me/c.toml")
    assert anchor_sources(config)["x"].path == path


def test_a_placeholder_without_a_secret_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        plan(parse_config(PINNED, "c.toml"), secret_names_available=set())
    assert str(caught.value) == (
        "c.toml: [mcp_servers.github] needs the secret GITHUB_TOKEN; give it with --secret GITHUB_TOKEN=env:VARIABLE "
        "or in mcp-secrets.env"
    )


@pytest.mark.parametrize("pem", ["", "-----BEGIN PRIVATE KEY-----"])
def test_a_store_without_a_certificate_is_refused(pem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(parse_config(PINNED, "c.toml"), anchors={"github": Anchors(pem=pem)})
    assert str(caught.value) == (
        "c.toml: [mcp_servers.github.tls] has no trust anchors: "
        "/etc/ssl/certs/ca-certificates.crt holds no PEM certificate"
    )


def test_a_pinned_only_store_without_a_pinned_anchor_is_refused() -> None:
    text = PINNED + '[mcp_servers.github.tls]\nca = "pinned-only"\n'
    anchors = {"github": Anchors(pem=make_root().pem)}
    with pytest.raises(ConfigError) as caught:
        plan(parse_config(text, "c.toml"), anchors=anchors)
    assert str(caught.value) == (
        "c.toml: [mcp_servers.github.tls] no trust anchor is left to verify the server with: add the CA that the pins "
        "name, or correct the pins"
    )
    plan(parse_config(PINNED, "c.toml"), anchors=anchors)  # the same with the host's store is no mistake


@pytest.mark.parametrize("override_pins", [True, False])
def test_a_client_certificate_is_not_shown_below_a_bypass_of_pins(override_pins: bool) -> None:
    corp = make_root()
    tls = '[mcp_servers.github.tls]\nclient_cert = "secret:C"\nclient_key = "secret:K"\n'
    override = OverrideSpec(name="corp", anchors=[corp.fingerprint], override_pins=override_pins)
    arguments: dict[str, Any] = {
        "anchors": {"github": Anchors(pem=corp.pem, overrides=(override,))},
        "secret_names_available": {"GITHUB_TOKEN", "C", "K"},
    }
    said = PINNED.replace("expires =", "credential_without_pin = true\nexpires =") + tls
    (remote,) = plan(parse_config(said, "c.toml"), **arguments).remotes
    assert remote.tls is not None
    assert remote.tls.client_certificate == ClientCertificate(chain="C", key="K")
    config = parse_config(PINNED + tls, "c.toml")
    if not override_pins:
        plan(config, **arguments)
        return
    with pytest.raises(ConfigError) as caught:
        plan(config, **arguments)
    assert str(caught.value) == (
        'c.toml: [mcp_servers.github.tls] client_cert would be shown without a pin below the override "corp"; '
        "remove it from ca_overrides, or set pins.credential_without_pin = true"
    )


@pytest.mark.parametrize(
    ("session", "owner", "expected"),
    [
        ("", (1000, 100), (1000, 100)),
        ("", (0, 0), None),
        ("", None, None),
        ("workspace_acl = true", (1000, 100), None),
        ('workspace_mode = "copy"', (1000, 100), None),
        ('workspace_mode = "clone"', (1000, 100), None),
    ],
)
def test_tasks_are_the_owner_where_they_have_no_rights_of_their_own(
    session: str, owner: tuple[int, int] | None, expected: tuple[int, int] | None
) -> None:
    """And never root; nor does the UID that the supervisor kills all processes of become a person's."""
    spec = plan(parse_config(f"[session]\n{session}", "c.toml"), workspace_owner=owner)
    assert spec.task_owner == expected
    assert spec.uids.task == 300_001
    assert wire.decode(SessionSpec, wire.encode(spec)) == spec


NOT_YET = {
    '[session]\nnetwork = "helpers"': '[session] network = "helpers" is not available yet; use "host"',
    OFF.replace("false", "true"): "[mcp_servers.off] command servers are not available yet; "
    "set enabled = false to leave it out",
    LOCAL + 'listen = "stdio"': '[mcp_servers.local] listen = "stdio" is not available yet; use "http"',
    '[session]\nlayers = { agent_netns = "require" }': "[session.layers] agent_netns is not available yet; remove it",
    '[session]\nlayers = { uid_drop = "off" }': '[session.layers] uid_drop cannot be "off": the agent would be root; '
    "remove it",
    '[session]\nlayers = { mountns = "off" }': '[session.layers] mountns cannot be "off": a session takes it wherever '
    "it can; remove it",
    LOCAL + "client_auth = []": '[mcp_servers.local] client_auth must not be empty; a session needs "uid" or "bearer"',
    LOCAL + 'listen = "unix"\nclient_auth = ["bearer"]': '[mcp_servers.local] client_auth must be ["uid"] where '
    'listen = "unix": nobody is told the bearer',
}


@pytest.mark.parametrize(("text", "sentence"), NOT_YET.items(), ids=range(len(NOT_YET)))
def test_what_a_session_cannot_do_yet_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(parse_config(text, "c.toml"))
    assert str(caught.value) == f"c.toml: {sentence}"


def test_transport_listener_and_proxy_reach_the_helper() -> None:
    wished = '[mcp_servers.x]\nurl = "https://a.example"\ntransport = "sse"\nlisten = "https"\nproxy = "http://p:1"'
    (remote,) = plan(parse_config(wished, "c.toml")).remotes
    assert (remote.transport, remote.listen, remote.proxy) == ("sse", "https", "p:1")
    (remote,) = plan(parse_config(LOCAL + 'listen = "unix"', "c.toml")).remotes
    assert (remote.listen, remote.client_auth) == ("unix", ["uid"])


@pytest.mark.parametrize("changes", [{"command": []}, {"working_directory": "work"}, {"session": "S 1"}])
def test_a_session_needs_a_command_a_directory_and_a_name(changes: dict[str, Any]) -> None:
    with pytest.raises((UsageError, ConfigError)):
        plan(parse_config("", "c.toml"), **changes)


def test_a_server_without_a_uid_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no github"):
        plan(parse_config(PINNED, "c.toml"), uids=uid_plan(300_000, []))


@pytest.mark.parametrize(
    ("today", "warning"),
    [
        ("2026-11-24", None),
        ("2027-01-29", None),
        ("2027-01-30", "expires in 30 days"),
        ("2027-02-28", "expires in 1 day;"),
        ("2027-03-01", "expires in 0 days"),
    ],
)
def test_pins_warn_before_their_date(today: str, warning: str | None) -> None:
    warnings = check_expiry(parse_config(PINNED, "c.toml"), datetime.date.fromisoformat(today))
    assert len(warnings) == (warning is not None)
    assert all(warning in text for text in warnings if warning)


@pytest.mark.parametrize(
    ("today", "sentence"),
    [
        (
            "2027-03-02",
            (
                "expires 2027-03-01 is past, so the server is refused; "
                "check that they are still the server's and set a new date"
            ),
        ),
        ("2026-01-24", "expires must be at most 400 days ahead, not 401"),
    ],
)
def test_pins_past_their_date_or_too_far_ahead_stop_the_session(today: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(parse_config(PINNED, "c.toml"), today=datetime.date.fromisoformat(today))
    assert str(caught.value) == f"c.toml: [mcp_servers.github.tls.pins] {sentence}"


def test_a_switched_off_server_may_have_old_pins() -> None:
    config = parse_config(PINNED.replace("startup_timeout_sec = 15", "enabled = false"), "c.toml")
    assert check_expiry(config, datetime.date(2030, 1, 1)) == ()


def test_uids_differ_and_do_not_depend_on_the_order_of_names() -> None:
    uids = uid_plan(300_000, ["b", "a", "c"])
    assert uids == uid_plan(300_000, ["c", "b", "a"])
    ids = [uids.agent, uids.task, uids.workspace_gid, *uids.servers.values()]
    assert sorted(ids) == list(range(300_000, 300_006))


@pytest.mark.parametrize("base", [-5, 0, 999, 65532, 65534, 2**31 - 4])
def test_a_uid_range_that_meets_real_accounts_is_refused(base: int) -> None:
    with pytest.raises(ConfigError, match="choose another start"):
        uid_plan(base, ["a"])


def test_description_names_every_server_and_no_value() -> None:
    rows = rows_of(parse_config(PINNED + LOCAL + OFF, "c.toml"))
    assert [(row.server, row.kind, row.enabled) for row in rows] == [
        ("github", "remote", True),
        ("local", "remote", True),
        ("off", "command", False),
    ]
    assert rows[0].target == "https://api.example.com/mcp"
    assert rows[0].trust == "host, 2 pins (enforce) until 2027-03-01"
    assert rows[0].secrets == ("GITHUB_TOKEN",)
    assert (rows[0].reached, rows[0].listen) == ("http", "http")
    assert rows[1].target == "http://127.0.0.1:9/mcp"
    assert rows[1].trust == "plain text, loopback"
    assert rows[2].secrets == ("NOT_NEEDED",)
    assert (rows[2].reached, rows[2].listen) == ("", "")
    ways = 'transport = "sse"\nproxy = "http://[2001:db8::1]:3128"\nlisten = '
    for listen in ("https", "unix", "stdio"):
        (row,) = rows_of(parse_config(f'[mcp_servers.x]\nurl = "https://a.example"\n{ways}"{listen}"', "c"))
        assert (row.reached, row.listen) == ("sse via [2001:db8::1]:3128", listen)
    (bare,) = rows_of(
        parse_config('[mcp_servers.x]\nurl = "https://[2001:db8::1]:8443"\ntls = { server_name = "a" }', "c")
    )
    assert (bare.target, bare.trust) == ("https://[2001:db8::1]:8443/", "host, no pins")
    assert msgspec.json.encode(rows)
