"""What a helper in the foreground says: enough to act on, and nothing that could steer a terminal or hold a secret."""

import json

import msgspec
import pytest

from codingagents.proxies.console import Reached, fact_json, fact_lines, introduction, introduction_json
from codingagents.rewrite.foreground_plan import ForegroundSpec
from codingagents.rewrite.specs import HelperSpec, RemoteSpec
from codingagents.trust import facts
from codingagents.trust.facts import AnyFact
from codingagents.trust.vocabulary import Secret

NOW = "2026-11-24T12:34:56.789Z"
REMOTE = RemoteSpec(name="docs", scheme="https", host="2001:db8::1", port=443, path="/mcp")
HELPER = HelperSpec(
    remote=REMOTE,
    uid=1000,
    gid=100,
    agent_uid=1000,
    listen_port=0,
    bearer=Secret("local-value"),
    secrets={"T": Secret("upstream-value")},
)
SPEC = ForegroundSpec(
    helper=HELPER,
    socket_path="",
    sources=[],
    env_file="/e",
    config="/c",
    overrides="/o",
    events=None,
    as_json=False,
    notes=["a \x1b[2J note"],
)
TCP = Reached("http://127.0.0.1:4001/mcp", "", "/run/user/1000/x y/bearer")
UNIX = Reached("http://localhost/mcp", "/tmp/a b.sock", "")


def serving(spec: ForegroundSpec, **changes: object) -> ForegroundSpec:
    remote = msgspec.structs.replace(REMOTE, **changes)
    return msgspec.structs.replace(spec, helper=msgspec.structs.replace(HELPER, remote=remote))


def test_an_introduction_can_be_pasted_from() -> None:
    lines = introduction(SPEC, TCP, "little", "compiled", color=False)
    assert lines == [
        r"note: a \x1b[2J note",
        "docs: https://[2001:db8::1]:443/mcp",
        "  listens on   http://127.0.0.1:4001/mcp",
        "  serves       UID 1000 and the local bearer",
        "  bearer       /run/user/1000/x y/bearer",
        "  confinement  little",
        "  modules      compiled",
        (
            "  Claude Code  claude mcp add --transport http docs http://127.0.0.1:4001/mcp "
            "--header \"Authorization: Bearer $(cat '/run/user/1000/x y/bearer')\""
        ),
        (
            "  Codex        codex mcp add docs --url http://127.0.0.1:4001/mcp --bearer-token-env-var HELPER_BEARER; "
            "HELPER_BEARER=\"$(cat '/run/user/1000/x y/bearer')\" codex"
        ),
        "Ctrl-C ends it.",
    ]
    assert (
        introduction(SPEC, TCP, "little", "compiled", color=True)[1]
        == "\x1b[1mdocs\x1b[0m: https://[2001:db8::1]:443/mcp"
    )


def test_codex_is_not_told_of_a_legacy_server() -> None:
    lines = introduction(serving(SPEC, transport="sse"), TCP, "little", "compiled", color=False)
    assert [line for line in lines if "codex" in line] == []
    assert any("--transport sse docs" in line for line in lines)


@pytest.mark.parametrize("auth", [["uid"], ["bearer"], []])
def test_who_may_call_is_said(auth: list[str]) -> None:
    spec = serving(SPEC, client_auth=auth)
    (line,) = [
        line for line in introduction(spec, UNIX, "little", "compiled", color=False) if line.startswith("  serves")
    ]
    assert (
        line.split(None, 1)[1]
        == {"uid": "UID 1000", "bearer": "the local bearer", "": "anybody on this machine"}["".join(auth)]
    )


def test_a_unix_socket_is_for_curl() -> None:
    lines = introduction(serving(SPEC, client_auth=["uid"]), UNIX, "little", "compiled", color=False)
    assert "  listens on   unix:/tmp/a b.sock" in lines
    assert "  curl         curl --unix-socket '/tmp/a b.sock' http://localhost/mcp" in lines
    assert [line for line in lines if "claude" in line] == []


def test_a_program_gets_the_same_as_json() -> None:
    said = json.loads(introduction_json(SPEC, TCP, "little", "compiled", NOW))
    assert said == {
        "time": NOW,
        "server": "docs",
        "fact": "listening",
        "url": TCP.url,
        "socket_path": None,
        "bearer_file": TCP.bearer_file,
        "client_auth": ["uid", "bearer"],
        "user_id": 1000,
        "confinement": "little",
        "modules": "compiled",
        "notes": SPEC.notes,
    }


def test_no_secret_is_in_an_introduction() -> None:
    text = (
        "\n".join(introduction(SPEC, TCP, "x", "compiled", color=True))
        + introduction_json(SPEC, TCP, "x", "compiled", NOW).decode()
    )
    assert not [word for word in ("Secret", "local-value", "upstream-value") if word in text]


REQUEST = facts.Request(
    method="POST", status=200, error_type=None, request_bytes=10, response_bytes=20, duration_ms=3,
    mcp_method="tools/call", mcp_name="e\x1b[0mcho",
)  # fmt: skip
PIN_MISMATCH = facts.PinMismatch(
    address="192.0.2.1 port 443", expected=["sha256/E"], seen=["sha256/L at leaf", "sha256/I at intermediate"]
)
TRUSTED = facts.UpstreamTrusted(
    address="192.0.2.1 port 443", tls_version="TLSv1.3", anchored_by="host", anchor_sha256="aa", leaf_sha256="bb",
    leaf_not_after="2027-01-31T23:59:59Z", pins=["sha256/A", "sha256/B"], credential="pinned",
)  # fmt: skip
LINES: list[tuple[AnyFact, list[str]]] = [
    (REQUEST, [r"POST tools/call e\x1b[0mcho 200, 10 B up, 20 B down, 3 ms"]),
    (
        msgspec.structs.replace(REQUEST, mcp_method=None, mcp_name=None, status=502, error_type="dns_failed"),
        [
            (
                "POST 502, 10 B up, 20 B down, 3 ms: the server's name does not resolve; "
                "check the server's address and that this machine can reach it"
            )
        ],
    ),
    (
        facts.Refused(reason="too_many_connections", peer_user_id=None),
        [
            (
                "refused an unknown caller: the limit of connections is reached; "
                "raise the limit in [mcp_servers.docs.limits], or send less"
            )
        ],
    ),
    (facts.Refused(reason="new_code", peer_user_id=0), ["refused UID 0: new_code"]),
    (
        PIN_MISMATCH,
        [
            "pin mismatch at 192.0.2.1 port 443: nothing was sent; none of these public keys is a pin:",
            "           sha256/L at leaf",
            "           sha256/I at intermediate",
            "         expected sha256/E",
            "         if you know by another way that one is the server's, put it into [mcp_servers.docs.tls.pins]",
        ],
    ),
    (
        msgspec.structs.replace(PIN_MISMATCH, seen=["sha256/L at leaf"], refused=False),
        [
            "pin mismatch at 192.0.2.1 port 443: only reported; none of these public keys is a pin:",
            "           sha256/L at leaf",
            "         expected sha256/E",
            "         if you know by another way that one is the server's, put it into [mcp_servers.docs.tls.pins]",
        ],
    ),
    (
        TRUSTED,
        [
            (
                "trusts 192.0.2.1 port 443 over TLSv1.3: host, sha256/A and sha256/B, its certificate until 2027-01-31"
                "; the credential is attached"
            )
        ],
    ),
    (
        msgspec.structs.replace(TRUSTED, anchored_by="override corp", pins=[], credential="withheld"),
        [
            (
                "trusts 192.0.2.1 port 443 over TLSv1.3: override corp, no pin, its certificate until 2027-01-31"
                "; the credential is withheld"
            )
        ],
    ),
    (
        msgspec.structs.replace(TRUSTED, pins=[], credential="none"),
        ["trusts 192.0.2.1 port 443 over TLSv1.3: host, no pin, its certificate until 2027-01-31"],
    ),
    (
        facts.TrustTaken(store_sha256="aa", kept=2, closed=1),
        ["anchors and pins are renewed: 2 connections in use live on, 1 were broken off"],
    ),
    (facts.TrustTaken(store_sha256="aa", problem="why"), ["the former anchors and pins stay: why"]),
    (
        facts.UpstreamFailed(error_type="tls_failed", detail="x\ny"),
        [r"the TLS handshake failed; report this to whoever runs the server (x\ny)"],
    ),
    (facts.UpstreamHealth(state="failing", error_type="dns_failed"), ["the server keeps failing (dns_failed)"]),
    (facts.UpstreamHealth(state="ok", error_type=None), ["the server works again"]),
    (facts.SecretsTaken(names=["A", "B"]), ["A, B: the new value is attached from now on"]),
    (facts.SecretsTaken(names=["A"], problem="why"), ["A: the former value stays: why"]),
    (facts.SecretsTaken(names=[]), ["no secret has another value than before"]),
    (facts.Dropped(count=7), ["7 lines are missing here: they came too fast"]),
    (facts.Failed(reason="why"), ["why"]),
]


@pytest.mark.parametrize(("fact", "lines"), LINES, ids=range(len(LINES)))
def test_a_fact_is_a_line(fact: AnyFact, lines: list[str]) -> None:
    first, *more = lines
    assert fact_lines(fact, "docs", NOW, color=False) == [f"12:34:56 {first}", *more]
    colored, *rest = fact_lines(fact, "docs", NOW, color=True)
    assert rest == more
    assert first in colored
    assert colored.startswith("\x1b[2m12:34:56\x1b[0m ")
    assert colored.count("\x1b") in (2, 4)
    assert json.loads(fact_json(fact, "docs", NOW)) == {
        "time": NOW,
        "server": "docs",
        **msgspec.json.decode(msgspec.json.encode(fact)),
    }


def test_every_fact_has_its_words_or_is_no_news() -> None:
    told = {type(fact) for fact, _ in LINES}
    silent = {
        type(fact)
        for fact in (
            facts.Ready(open_fds=[]),
            facts.Pong(number=1, connections=0, upstream_connections=0, requests=0, errors=0, refused=0),
        )
        if fact_lines(fact, "docs", NOW, color=False) == []
    }
    assert told | silent == set(AnyFact.__args__)


def test_a_refusal_of_the_server_is_marked() -> None:
    (line,) = fact_lines(msgspec.structs.replace(REQUEST, status=404), "docs", NOW, color=True)
    assert "\x1b[33m" in line
