"""`coding-agents trust check`, as a real process against real TLS servers; what it sends is judged on their side."""

from __future__ import annotations

import hashlib
import socket
import ssl
import tomllib
from pathlib import Path

import pytest

import pki
from codingagents.rewrite.parse import parse_config
from codingagents.trust.errors import ConfigError
from squid import Squid
from trust_rig import NAME, Desk, Server, pin_rows

ROOT = pki.make_root()
ISSUER = ROOT.issue_ca("Issuer")
LEAF = ISSUER.issue((NAME,))
OTHER = pki.make_root("Other Root")
GOOD = (LEAF, ISSUER)
PINS = pin_rows((ISSUER, "intermediate", False), (OTHER, "any", True))
WRONG_PINS = pin_rows((OTHER.issue_ca("X"), "any", False), (OTHER, "any", True))

CREDENTIAL = 'bearer_token_env_var = "X"\n'


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(("word", "shows"), [(b"GET", False), (b"", True), (b"", False)])
def test_the_servers_of_these_tests_notice_what_they_are_sent(
    desk: Desk, maximum: ssl.TLSVersion, word: bytes, shows: bool
) -> None:
    """The control: a client that says a word, one that shows a certificate, and one that does neither."""
    shown = ROOT.issue()
    (desk.home / "pair.pem").write_text(shown.pem + shown.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ROOT.pem)
    if shows:
        context.load_cert_chain(desk.home / "pair.pem")
    with Server(GOOD, desk.home, maximum=maximum, asks=ROOT) as server:
        with (
            socket.create_connection(("127.0.0.1", server.port)) as raw,
            context.wrap_socket(raw, server_hostname=NAME) as tls,
        ):
            tls.sendall(word)
        assert server.received_nothing() == (not word and not shows)
        assert server.met[0].certificate == (shown.der if shows else None)


def test_a_good_server_is_shown_with_its_path_store_and_pins(desk: Desk) -> None:
    """All that a person wants to know, in text and for programs; the table to paste loads, and the check then holds."""
    with Server(GOOD, desk.home) as server:
        desk.write(desk.entry("x", server, ca=desk.trusting(ROOT), pins=PINS))
        code, found = desk.check("x")
        text = desk.run("check", "x")
        assert (code, text.returncode) == (0, 0), text
        assert found["verified"]
        assert found["trusted_by"] == "custom"
        assert found["tls_version"] == "TLSv1.3"
        assert [each["place"] for each in found["path"]] == ["leaf", "intermediate", "root"]
        assert [each["spki"] for each in found["path"]] == [LEAF.pin, ISSUER.pin, ROOT.pin]
        assert [(each["matched"], each["places"]) for each in found["pins"]] == [(True, ["intermediate"]), (False, [])]
        assert found["problems"] == []
        assert "matched, intermediate" in text.stdout
        assert "backup, not in the path" in text.stdout
        assert "compare these hashes by another way" in text.stdout
        table = text.stdout[text.stdout.index("# compare") :]
        desk.write(desk.entry("x", server, ca=desk.trusting(ROOT)) + table)
        code, found = desk.check("x")
        assert code == 0
        assert [each["matched"] for each in found["pins"]] == [True, True]
        assert "no backup pin is outside of the path" in found["warnings"][0]
        assert server.received_nothing()


def test_a_url_needs_no_configuration(desk: Desk) -> None:
    """A name is made up for it; --ca and --connect-to say the rest; an entry for the same host is used."""
    with Server(GOOD, desk.home) as server:
        ca = desk.trusting(ROOT)
        desk.write("")
        arguments = ("--ca", ca, "--connect-to", f"127.0.0.1:{server.port}")
        code, found = desk.check(f"https://{NAME}/any", *arguments)
        assert (code, found["server"], found["pin_mode"]) == (0, "upstream-test", "off")
        assert "[mcp_servers.upstream-test.tls.pins]" in found["proposal"]
        desk.write(desk.entry("x", server, ca=ca, pins=PINS))
        code, found = desk.check(f"https://{NAME}", *arguments)
        assert (code, found["server"], found["pin_mode"]) == (0, "x", "enforce")
        assert server.received_nothing()


@pytest.mark.parametrize(
    ("sent", "trusted", "problem", "remedy"),
    [
        ((ISSUER.issue(("other.test",)), ISSUER), ROOT, f"not for {NAME}: it says DNS:other.test", False),
        ((ISSUER.issue((NAME,), expired=True), ISSUER), ROOT, f"the certificate of CN={NAME} has expired on", False),
        (GOOD, OTHER, "the issuer of CN=Issuer, which is CN=Test Root, is neither among the 2 certificates", True),
        ((*GOOD, ROOT), OTHER, "the root CN=Test Root is not in the trust store (custom)", True),
        ((LEAF,), ROOT, f"the issuer of CN={NAME}, which is CN=Issuer, is neither among the 1 certificate", True),
        ((OTHER.issue((NAME,)), ISSUER, ROOT), ROOT, f"the issuer of CN={NAME}, which is CN=Other Root, is", True),
    ],
)
def test_a_refusal_is_explained_from_what_the_server_sends(
    desk: Desk, sent: tuple[pki.Issued, ...], trusted: pki.Issued, problem: str, remedy: bool
) -> None:
    """Wrong name, expired, unknown CA, left-out intermediate: what is wrong and, where there is one, what to run."""
    with Server(sent, desk.home) as server:
        desk.write(desk.entry("x", server, ca=desk.trusting(trusted), pins=PINS))
        code, found = desk.check("x")
        assert code == 1, found
        assert not found["verified"]
        assert found["proposal"] is None
        assert problem in found["problems"][0]
        assert [each["spki"] for each in found["sent"]] == [each.pin for each in sent]
        add = "if this authority is yours: coding-agents trust add x-ca --server x"
        assert found["remedies"] == ([add] if remedy else [])
        assert "NOT TRUSTED" in desk.run("check", "x").stdout
        assert server.received_nothing()


@pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("at", ["leaf", "intermediate", "root"])
def test_a_wrong_pin_is_told_with_what_is_there(desk: Desk, at: str, maximum: ssl.TLSVersion) -> None:
    """The path is shown as verified; neither a byte of HTTP nor a client certificate reaches the server."""
    pins = pin_rows((OTHER.issue_ca("X"), at, False), (OTHER, at, True))
    with Server(GOOD, desk.home, maximum=maximum, asks=ROOT) as server:
        tls = 'client_cert = "secret:CHAIN"\nclient_key = "secret:KEY"\nmin_version = "1.2"\n'
        desk.write(desk.entry("x", server, ca=desk.trusting(ROOT), pins=pins, tls=tls))
        code, found = desk.check("x")
        assert code == 1, found
        if maximum is ssl.TLSVersion.TLSv1_2 and at != "root":
            # As its helper: 1.3 only, lest the certificate be shown before the pins are looked at.
            assert "no TLS connection came about" in found["problems"][0]
        else:
            assert found["verified"]
            assert found["problems"][-1] == "no pin is in the path"
            assert (len(found["problems"]) == 2) == (at == "root")  # no anchor fits them: no session would start
            assert "rotate x --from-unpinned" in found["remedies"][0]
        assert server.received_nothing()


def test_a_store_of_pinned_anchors_is_judged_as_it_is_used(desk: Desk) -> None:
    """With a pinned root it is the anchor; where no anchor is pinned the path is shown without regard to that."""
    with Server(GOOD, desk.home) as server:
        for issued, code, store in ((ROOT, 0, "pinned-only"), (OTHER, 1, "pinned-only, its pins left aside")):
            pins = pin_rows((issued, "any", False), (OTHER.issue_ca("X"), "any", True))
            entry = desk.entry("x", server, ca=desk.trusting(ROOT), pins=pins)
            desk.write(entry.replace('"custom"', '"pinned-only"'))
            assert desk.check("x")[0] == code
            found = desk.check("x")[1]
            assert (found["trusted_by"], found["verified"]) == (store, True)
        assert "no trust anchor is left" in found["problems"][0]


def test_an_override_is_named_and_its_bypass_of_pins_is_no_reason_to_pin(desk: Desk) -> None:
    """A proxy that opens TLS: the check tells, and rotate does not write its keys by a --yes."""
    (desk.home / "ca.pem").write_text(ROOT.pem)
    fingerprint = hashlib.sha256(ROOT.der).hexdigest()
    with Server(GOOD, desk.home) as server:
        tls = 'ca_overrides = ["corp"]\n'
        other = desk.trusting(OTHER)
        before = desk.write(desk.entry("x", server, ca=other, tls=tls))
        add = ("add", "corp", "ca.pem", "--scope", NAME, "--fingerprint", fingerprint, "--yes", "--replace")
        for arguments, codes in ((("--override-pins",), (0, 1)), ((), (0, 0))):
            assert desk.run(*add, *arguments).returncode == 0
            code, found = desk.check("x")
            assert (code, found["trusted_by"]) == (codes[0], "override corp")
            assert ("the override corp lets the path pass" in " ".join(found["warnings"])) == bool(arguments)
            assert (found["proposal"] is None) == bool(arguments)
            done = desk.run("rotate", "x", "--yes")
            assert done.returncode == codes[1], done
            assert (desk.config.read_text() == before) == ("which overrides pins" in done.stderr) == bool(arguments)
        assert desk.run(*add, "--override-pins").returncode == 0
        desk.write(desk.entry("x", server, ca=other, tls=tls, pins=WRONG_PINS))
        code, found = desk.check("x")
        assert (code, [each["matched"] for each in found["pins"]]) == (0, [False, False])
        assert "the override corp lets the path pass without a pin" in " ".join(found["warnings"])
        assert server.received_nothing()


@pytest.mark.parametrize(
    ("more", "pins", "code"),
    [
        (CREDENTIAL, "", 1),
        (CREDENTIAL, '[mcp_servers.x.tls.pins]\nmode = "off"\n', 1),
        (CREDENTIAL, f'[mcp_servers.x.tls.pins]\nmode = "report"\nexpires = 2027-05-01\npin = {PINS}\n', 1),
        (CREDENTIAL, '[mcp_servers.x.tls.pins]\nmode = "off"\ncredential_without_pin = true\n', 0),
        (CREDENTIAL, f"[mcp_servers.x.tls.pins]\nexpires = 2027-05-01\npin = {PINS}\n", 0),
        ("", "", 0),
    ],
)
def test_a_credential_without_pins_fails_as_a_session_would(desk: Desk, more: str, pins: str, code: int) -> None:
    """In the same words, and with the pins to paste."""
    with Server(GOOD, desk.home) as server:
        text = desk.write(desk.entry("x", server, ca=desk.trusting(ROOT), more=more) + pins)
        ended, found = desk.check("x")
        assert (ended, len(found["problems"])) == (code, code), found
        if code:
            with pytest.raises(ConfigError) as caught:
                parse_config(text, str(desk.config))
            assert found["problems"] == [str(caught.value)]
        assert "[mcp_servers.x.tls.pins]" in found["proposal"]
        assert server.received_nothing()


def test_only_a_backup_in_the_path_is_a_failure(desk: Desk) -> None:
    """It still works, and the next change would end it."""
    with Server(GOOD, desk.home) as server:
        pins = pin_rows((OTHER, "any", False), (ROOT, "root", True))
        desk.write(desk.entry("x", server, ca=desk.trusting(ROOT), pins=pins))
        code, found = desk.check("x")
        assert code == 1, found
        assert found["remedies"] == ["coding-agents trust rotate x"]
        assert "only a backup pin" in found["problems"][0]


def test_what_ends_soon_is_a_failure(desk: Desk) -> None:
    """The certificates have 29 days of 60: nothing yet by default, and a failure for who asks for 30."""
    with Server(GOOD, desk.home) as server:
        desk.write(desk.entry("x", server, ca=desk.trusting(ROOT), pins=PINS))
        assert desk.check("x")[0] == 0
        code, found = desk.check("x", "--days", "30")
        assert code == 1, found
        assert "expires in 29 days" in found["problems"][0]


def test_tls_1_2_only_is_met_as_the_configuration_says(desk: Desk) -> None:
    """By default it is good enough; with min_version = "1.3" no connection comes about."""
    with Server(GOOD, desk.home, maximum=ssl.TLSVersion.TLSv1_2) as server:
        desk.write(desk.entry("x", server, ca=desk.trusting(ROOT), pins=PINS))
        assert desk.check("x")[1]["tls_version"] == "TLSv1.2"
        desk.write(desk.entry("x", server, ca=desk.trusting(ROOT), pins=PINS, tls='min_version = "1.3"\n'))
        code, found = desk.check("x")
        assert code == 1, found
        assert "min_version is 1.3" in found["problems"][0]
        assert server.received_nothing()


def test_it_goes_through_the_proxy_and_pins_hold_inside(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Debian's Squid: the good server and the wrong pin, and a proxy that refuses."""
    with Server(GOOD, desk.home) as server, Squid(tmp_path_factory.mktemp("squid")) as proxy:
        more = f'proxy = "http://{proxy.place}"\n'
        for pins, expected in ((PINS, 0), (WRONG_PINS, 1)):
            desk.write(desk.entry("x", server, ca=desk.trusting(ROOT), pins=pins, more=more))
            code, found = desk.check("x")
            assert (code, found["verified"]) == (expected, True)
            assert f"through {proxy.place}" in found["url"]
        assert server.received_nothing()
        proxy.log(f"CONNECT 127.0.0.1:{server.port} ")
    with Squid(tmp_path_factory.mktemp("denying"), allow=False) as proxy:
        desk.write(desk.config.read_text().replace(more, f'proxy = "http://{proxy.place}"\n'))
        code, found = desk.check("x")
        assert code == 1, found
        assert "opens no way to" in found["problems"][0]


def test_who_is_not_reached_is_told_in_a_sentence(desk: Desk) -> None:
    """Nobody there, no such name, an address that a helper would not dial, and one that speaks no TLS."""
    with Server(GOOD, desk.home) as server:
        entry = desk.entry("x", server, ca=desk.trusting(ROOT), pins=PINS)
    for line, problem in (
        (f'connect_to = "127.0.0.1:{server.port}"\n', "cannot connect to 127.0.0.1"),
        ('connect_to = "no-such-host.invalid:1"\n', "cannot be resolved"),
        ("", "cannot be resolved"),
    ):
        desk.write(entry.replace(f'connect_to = "127.0.0.1:{server.port}"\n', line))
        code, found = desk.check("x")
        assert code == 1, found
        assert problem in found["problems"][0]
    text = entry.replace(f'connect_to = "127.0.0.1:{server.port}"\n', "").replace(NAME, "localhost")
    desk.write(text)
    code, found = desk.check("x")
    assert code == 1
    assert "resolves to no address that may be dialed" in found["problems"][0]


def test_a_whole_configuration_is_checked_and_one_broken_server_hides_none(desk: Desk) -> None:
    """A row a server, for CI: exit 1 for any; command servers and those that are switched off have none."""
    (desk.home / "a").mkdir()
    (desk.home / "b").mkdir()
    with Server(GOOD, desk.home / "a") as good, Server((LEAF,), desk.home / "b") as bad:
        ca = desk.trusting(ROOT)
        entries = [
            desk.entry("good", good, ca=ca, pins=PINS),
            desk.entry("bad", bad, ca=ca, pins=PINS),
            desk.entry("no-store", good, ca="none.pem", pins=PINS),
            desk.entry("credential", good, ca=ca, more=CREDENTIAL),
            desk.entry("off", bad, ca=ca, more="enabled = false\n"),
            '[mcp_servers.command]\ncommand = "x"\n',
        ]
        desk.write(*entries)
        code, found = desk.check("--all")
        assert code == 1, found
        assert {each["server"]: each["ok"] for each in found} == {
            "good": True, "bad": False, "no-store": False, "credential": False,
        }  # fmt: skip
        assert "does not exist" in found[2]["problems"][0]
        assert "sends a credential without enforced pins" in found[3]["problems"][0]
        lines = desk.run("check", "--all").stdout.splitlines()
        assert lines[0].split() == ["server", "check", "trusted", "by", "pins", "days", "left", "what"]
        assert [line.split()[:2] for line in lines[1:]] == [
            ["good", "ok"], ["bad", "FAILED"], ["no-store", "FAILED"], ["credential", "FAILED"],
        ]  # fmt: skip
        desk.write(entries[0])
        assert desk.check("--all")[0] == 0
        assert desk.check("--all", "--days", "30")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nobody"], 3, "has no server nobody"),
        (["command"], 2, "is no https server"),
        ([], 2, "give either SERVER, URL or --all"),
        (["x", "--all"], 2, "give either SERVER, URL or --all"),
        (["--all", "--ca", "host"], 2, "are for one server"),
        (["http://x.test"], 2, "URL must start with https://"),
        (["https://x.test", "--ca", "none.pem"], 3, "there is no file none.pem; --ca is host, certifi, or a file of"),
        (["https://x.test", "--ca", "/"], 2, "/ must be a regular file"),
        (["https://x.test", "--ca-override", "none"], 3, 'agents: there is no trust override "none"'),
        (["https://127.0.0.1:1"], 2, "give https://NAME, and the address with --connect-to"),
        (["https://x.test", "--connect-to", "x"], 2, "--connect-to must be HOST:PORT"),
        (["--all", "--days", "-1"], 2, "--days must not be negative"),
    ],
)
def test_a_mistake_is_a_sentence_and_a_code(desk: Desk, arguments: list[str], code: int, sentence: str) -> None:
    """2 for usage, 3 for what there is not."""
    desk.write('[mcp_servers.command]\ncommand = "x"\n')
    done = desk.run("check", *arguments)
    assert (done.returncode, sentence in done.stderr, done.stdout) == (code, True, ""), done


def test_the_proposed_table_is_toml_by_itself(desk: Desk) -> None:
    """Also where it cannot be complete: a server that is its own root has one key."""
    alone = pki.make_root(NAME)
    with Server((alone,), desk.home) as server:
        desk.write("")
        _, found = desk.check(
            f"https://{NAME}", "--ca", desk.trusting(alone), "--connect-to", f"127.0.0.1:{server.port}"
        )
    # It has no name in it, so that it is refused; with one it is proposed.
    assert found["problems"]
    named = pki.make_root("x").issue((NAME,))
    with Server((named,), desk.home) as server:
        ca = desk.home / "leaf.pem"
        ca.write_text(named.pem + pki.make_root().pem)
        _, found = desk.check(f"https://{NAME}", "--ca", str(ca), "--connect-to", f"127.0.0.1:{server.port}")
    assert found["proposal"] is None or tomllib.loads(found["proposal"])
    assert parse_config("", "x").servers == ()
