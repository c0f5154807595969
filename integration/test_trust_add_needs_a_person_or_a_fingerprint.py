"""`coding-agents trust add`, `list`, `show` and `remove`: real processes, on a terminal, in a pipe, against servers."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path

import pytest

import pki
from codingagents.rewrite import places
from codingagents.rewrite.specs import ExecSpec, OverrideSpec, RemoteSpec, SessionSpec, TlsSpec, UidPlan
from codingagents.trust import wire
from trust_clerk import Clerk
from trust_rig import COMMAND, NAME, PATIENCE, Server

ROOT = pki.make_root("Corp \x1b[31mRoot\u202e")
ISSUER = ROOT.issue_ca("Issuer")
LEAF = ISSUER.issue((NAME,))
OTHER = pki.make_root("Other")
SHA256 = hashlib.sha256(ROOT.der).hexdigest()
GROUPS = ":".join(SHA256[at : at + 4] for at in range(0, 64, 4))  # as it is shown
COLONS = ":".join(SHA256[at : at + 2] for at in range(0, 64, 2)).upper()


@pytest.fixture
def clerk(tmp_path: Path) -> Clerk:
    return Clerk(tmp_path, ROOT)


ADD = ("corp", "root.pem", "--scope", "*.corp.example")


def test_nobody_at_a_terminal_and_no_fingerprint_adds_nothing(clerk: Clerk) -> None:
    """What it would be is shown, escaped; the sentence says what is missing."""
    code, shown, said = clerk.add(*ADD)
    assert (code, clerk.names()) == (2, [])
    assert "nobody is at a terminal to vouch for it, so nothing was added; give --fingerprint" in said
    assert r"CN=Corp \x1b[31mRoot\u202e" in shown
    assert GROUPS in shown
    assert ROOT.pin in shown
    assert "for *.corp.example" in shown


@pytest.mark.parametrize(
    "spelling", [SHA256, SHA256.upper(), GROUPS, COLONS, f"sha256:{SHA256}", f"sha256 Fingerprint={COLONS}"]
)
def test_a_fingerprint_that_matches_vouches(clerk: Clerk, spelling: str) -> None:
    """In each way that tools write it."""
    code, _, said = clerk.add(*ADD, "--fingerprint", spelling)
    assert (code, clerk.names()) == (0, ["corp.pem", "corp.toml"])
    assert (clerk.kept / "corp.pem").read_text() == ROOT.pem
    assert "added corp" in said
    assert 'ca_overrides = ["corp"]' in said


def test_a_fingerprint_that_does_not_match_adds_nothing(clerk: Clerk) -> None:
    """A mismatch is exit 1, and both are told."""
    wrong = hashlib.sha256(OTHER.der).hexdigest()
    code, _, said = clerk.add(*ADD, "--fingerprint", wrong)
    assert (code, clerk.names()) == (1, [])
    assert f"the certificate's fingerprint is {SHA256} and not the one given; nothing was added" in said


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        (SHA256[:16], 0),
        (GROUPS[:19], 0),
        (f" {COLONS[:23]} ", 0),
        (SHA256, 0),
        (COLONS, 0),
        (SHA256 + "0", 1),
        ("", 1),
        ("y", 1),
        ("corp", 1),
        (SHA256[:15], 1),
    ],
)
def test_a_person_types_the_first_digits(clerk: Clerk, typed: str, code: int) -> None:
    """Nothing else that is quickly typed counts."""
    ended, shown = clerk.on_a_terminal(typed, "add", *ADD)
    assert (ended, bool(clerk.names())) == (code, code == 0)
    assert "type its first 16 digits to trust it" in shown
    assert ("these are not its digits; nothing was added" in shown) == (code == 1)
    assert "\x1b[31mRoot" not in shown


@pytest.mark.parametrize("danger", [["--override-pins"], ["--scope", "*"], ["--scope", "*.com"]])
def test_what_weakens_more_is_asked_for_in_spite_of_a_fingerprint(clerk: Clerk, danger: list[str]) -> None:
    """Unless --yes says so; --yes alone says nothing."""
    arguments = ("corp", "root.pem", "--scope", "a.example", *danger)
    code, _, said = clerk.add(*arguments, "--fingerprint", SHA256)
    assert (code, clerk.names()) == (2, [])
    assert "give --yes as well" in said
    assert clerk.add(*arguments, "--yes")[0] == 2
    assert clerk.names() == []
    assert clerk.on_a_terminal(SHA256[:16], "add", *arguments, "--fingerprint", SHA256)[0] == 0
    assert clerk.add(*arguments, "--fingerprint", SHA256, "--yes", "--replace")[0] == 0


def test_an_override_is_listed_shown_and_removed(clerk: Clerk) -> None:
    """For people and for programs; what overrides pins stands out; what still names it is told."""
    clerk.write('[mcp_servers.x]\nurl = "https://a.corp.example"\ntls = { ca = "certifi", ca_overrides = ["corp"] }\n')
    assert clerk.run("list").stderr.count("there are no trust overrides") == 1
    assert json.loads(clerk.run("list", "--json").stdout) == []
    assert clerk.add(*ADD, "--fingerprint", SHA256, "--override-pins", "--yes")[0] == 0
    (clerk.home / "other.pem").write_text(OTHER.pem)
    digest = hashlib.sha256(OTHER.der).hexdigest()
    assert clerk.add("also", "other.pem", "--scope", "b.example", "--fingerprint", digest)[0] == 0

    _, also, corp = clerk.run("list").stdout.splitlines()
    until = ROOT.certificate.not_valid_after_utc
    assert corp.split() == ["corp", "*.corp.example", f"{until:%Y-%m-%d}", "OVERRIDDEN", "x", SHA256]
    assert also.split()[3:] == ["-", "-", digest]
    found = {each["name"]: each for each in json.loads(clerk.run("list", "--json").stdout)}
    assert found["corp"]["override_pins"] is True
    assert (found["corp"]["used_by"], found["corp"]["scope"], found["corp"]["spki"]) == (
        ["x"],
        ["*.corp.example"],
        ROOT.pin,
    )
    code, table = clerk.on_a_terminal("", "list")
    assert code == 0
    assert "OVERRIDDEN" in table

    shown = clerk.run("show", "corp").stdout
    assert "OVERRIDDEN: no credential" in shown
    assert r"CN=Corp \x1b[31mRoot\u202e" in shown
    assert clerk.run("show", "corp", "--pem").stdout == ROOT.pem
    assert json.loads(clerk.run("show", "corp", "--json").stdout)["certificates"] == ROOT.pem
    missing = clerk.run("show", "crop")
    assert (missing.returncode, missing.stdout) == (3, "")
    assert 'there is no trust override "crop"; did you mean "corp"?' in missing.stderr

    removed = clerk.run("remove", "corp")
    assert removed.returncode == 0
    assert "[mcp_servers.x.tls] ca_overrides still names it: the server is refused until it does not" in removed.stderr
    assert clerk.names() == ["also.pem", "also.toml"]
    assert clerk.run("remove", "corp").returncode == 3


def test_the_sessions_that_still_trust_it_are_told() -> None:
    """Those that run: one whose socket nobody listens on is over."""
    with tempfile.TemporaryDirectory() as home:  # the path of a unix socket is short
        check_sessions(Clerk(Path(home), ROOT))


def check_sessions(clerk: Clerk) -> None:
    assert clerk.add(*ADD, "--fingerprint", SHA256)[0] == 0
    sockets = []
    for session, runs, name in (
        ("20270301-aa", True, "corp"),
        ("20270301-bb", False, "corp"),
        ("20270301-cc", True, "x"),
    ):
        directory = clerk.home / places.HOST_CONFIG / "sessions" / session
        directory.mkdir(parents=True, mode=0o700)
        directory.parent.chmod(0o700)
        spec = directory / places.SESSION_SPEC
        spec.write_bytes(wire.encode(session_spec(session, name)))
        spec.chmod(0o600)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(directory / places.OPERATOR_SOCKET))
        if runs:
            listening.listen()
            sockets.append(listening)
        else:
            listening.close()
    said = clerk.run("remove", "corp").stderr
    assert "session 20270301-aa trusts it for docs until its end, or: coding-agents trust reload 20270301-aa" in said
    assert "20270301-bb" not in said
    assert "20270301-cc" not in said
    for listening in sockets:
        listening.close()


def session_spec(session: str, override: str) -> SessionSpec:
    tls = TlsSpec(server_name="x", anchors_pem="", store="host", overrides=[OverrideSpec(name=override, anchors=[])])
    remote = RemoteSpec(name="docs", scheme="https", host="x", port=443, path="/", tls=tls)
    return SessionSpec(
        session=session,
        agent="claude",
        engine="local",
        config_sha256="",
        uids=UidPlan(agent=1000, task=1001, workspace_gid=1002, servers={}),
        remotes=[remote],
        exec=ExecSpec(),
        command=["true"],
        working_directory="/",
        environment={},
        public_key="",
    )


@pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("sent", "top", "note"),
    [
        ((LEAF, ISSUER), ISSUER, True),
        ((LEAF, ISSUER, ROOT), ROOT, False),
        ((LEAF, ROOT, OTHER, ISSUER), ROOT, False),
        ((LEAF, OTHER, ISSUER), ISSUER, True),
    ],
)
def test_a_servers_top_ca_is_taken_and_nothing_sent(
    clerk: Clerk, maximum: ssl.TLSVersion, sent: tuple[pki.Issued, ...], top: pki.Issued, note: bool
) -> None:
    """In whatever order, padded or not; a client certificate that it asks for is not shown. The server judges."""
    digest = hashlib.sha256(top.der).hexdigest()
    with Server(sent, clerk.home, maximum=maximum, asks=OTHER) as server:
        clerk.write(clerk.entry("x", server, ca=clerk.trusting(OTHER)))
        code, shown, said = clerk.add("lab", "--server", "x", "--fingerprint", digest)
        assert (code, (clerk.kept / "lab.pem").read_text()) == (0, top.pem), said
        assert ("its own issuer is not here: trust would start at this one" in shown) == note
        assert f"for {NAME}" in shown
        assert 'ca_overrides = ["lab"]' in clerk.config.read_text()
        assert server.received_nothing()
        assert clerk.run("check", "x").returncode == 0  # and so it is trusted now
        clerk.write("")
        assert clerk.add("url", "--from", f"https://127.0.0.1:{server.port}", "--fingerprint", digest)[0] == 0
        assert server.received_nothing()
    (kept,) = [each for each in json.loads(clerk.run("list", "--json").stdout) if each["name"] == "url"]
    assert (kept["scope"], kept["source"]) == (["127.0.0.1"], f"https://127.0.0.1:{server.port}")


def test_a_server_that_sends_its_leaf_alone_names_the_ca_to_get(clerk: Clerk) -> None:
    """Or is trusted by that one certificate, if that is said."""
    with Server((LEAF,), clerk.home) as server:
        url = f"https://127.0.0.1:{server.port}"
        digest = hashlib.sha256(LEAF.der).hexdigest()
        code, _, said = clerk.add("lab", "--from", url, "--fingerprint", digest)
        assert (code, clerk.names()) == (1, [])
        assert (
            "is no certificate authority; give the CA that issued it (CN=Issuer), or trust this certificate alone"
            in said
        )
        assert clerk.add("lab", "--from", url, "--fingerprint", digest, "--leaf")[0] == 0
        assert (clerk.kept / "lab.pem").read_text() == LEAF.pem
        clerk.write(clerk.entry("x", server, ca=clerk.trusting(OTHER)))
        assert clerk.run("check", "x").returncode == 1
        assert clerk.add("one", "--server", "x", "--fingerprint", digest, "--leaf")[0] == 0
        assert clerk.run("check", "x").returncode == 0
        server.show((ISSUER.issue((NAME,)),))  # that one, and no other of the same CA
        assert clerk.run("check", "x").returncode == 1
        assert server.received_nothing()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["a.b", "root.pem", "--scope", "x"], 2, "an override's name must be 1 to 64 of"),
        (["corp", "root.pem"], 2, "--scope is missing: name the hosts that it is for, or '*' for every one"),
        (
            ["corp", "root.pem", *(f"--scope=h{each}" for each in range(65))],
            2,
            "--scope may name 64 hosts at most, and",
        ),
        (["corp", "root.pem", "--scope", "a b"], 2, "--scope must be a host name"),
        (["corp", "root.pem", "--scope", "a", "--fingerprint", "abc"], 2, "--fingerprint must be the SHA-256"),
        (["corp", "--scope", "a"], 2, "give FILE, --from URL or --server"),
        (["corp", "root.pem", "--from", "https://a"], 2, "give either FILE or --from, not both"),
        (["corp", "--from", "http://a"], 2, "--from must start with https://"),
        (["corp", "--from", "https://user:hunter2@a"], 2, "--from must not hold a user name or password"),
        (["corp", "--from", "https://127.0.0.1:1"], 1, "cannot connect to 127.0.0.1:1: Connection refused"),
        (["corp", "--server", "none"], 3, "has no server none"),
        (["corp", "none.pem", "--scope", "a"], 3, "there is no file none.pem"),
        (["corp", "/dev/zero", "--scope", "a"], 2, "/dev/zero must be a regular file"),
        (["corp", "-", "--scope", "a"], 1, "standard input holds no certificate"),
        (["corp", "key.pem", "--scope", "a", "--fingerprint", SHA256], 1, "key.pem holds a private key; keep it"),
        (["corp", "session.pem", "--scope", "a"], 1, "this is the authority of a session, which vouches for its own"),
        (
            ["corp", "root.pem", "--server", "x", "--scope", "b", "--fingerprint", SHA256],
            2,
            "--server x is docs.example, ",
        ),
    ],
    ids=range(17),
)
def test_each_mistake_is_a_sentence_and_nothing_is_written(
    clerk: Clerk, arguments: list[str], code: int, sentence: str
) -> None:
    """No traceback, nothing kept, the configuration as it was."""
    text = clerk.write('[mcp_servers.x]\nurl = "https://docs.example"\n')
    (clerk.home / "key.pem").write_text(ROOT.pem + ROOT.key_pem)
    (clerk.home / "session.pem").write_text(pki.make_root(f"{places.SESSION_AUTHORITY} 20270301-9f86d081").pem)
    done, _, said = clerk.add(*arguments)
    assert (done, clerk.names()) == (code, [])
    assert sentence in said
    assert said.count("\n") == 1
    assert clerk.config.read_text() == text


def test_a_configuration_that_may_not_be_written_is_told_and_the_override_stays(clerk: Clerk) -> None:
    """It can be used by hand."""
    clerk.write('[mcp_servers.x]\nurl = "https://docs.example"\n')
    clerk.config.rename(clerk.home / "mine.toml")
    clerk.config.symlink_to("mine.toml")
    os.lchown(clerk.config, 4321, 4321)
    code, _, said = clerk.add("corp", "root.pem", "--server", "x", "--fingerprint", SHA256)
    assert code != 0
    assert "added corp" in said
    assert str(clerk.config) in said
    assert clerk.names() == ["corp.pem", "corp.toml"]


def test_standard_input_holds_the_certificate_of_a_pipe(clerk: Clerk) -> None:
    """`openssl … | coding-agents trust add NAME -`."""
    done = subprocess.run(
        [*COMMAND, "add", "corp", "-", "--scope", "a.example", "--fingerprint", SHA256],
        input=ROOT.der, env={"HOME": str(clerk.home)}, capture_output=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, (clerk.kept / "corp.pem").read_text()) == (0, ROOT.pem)
