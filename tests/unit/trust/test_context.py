"""Real handshakes in memory: what a server with this or that certificate gets to see."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from codingagents.trust import context as context_module
from codingagents.trust.context import PinnedContext, PinnedTls, checked_io, peer_trust, pinned_context
from codingagents.trust.errors import ConfigError, TrustError
from codingagents.trust.pem import parse_pem
from codingagents.trust.pins import Pin, PinMismatchError, Pinning, parse_pin, pinning
from codingagents.trust.vocabulary import MinVersion, PinMode, PinPosition
from handshakes import REQUEST, VERSIONS, connect, server_context
from pki import Issued, make_root

ROOT = make_root()
INTERMEDIATE = ROOT.issue_ca("Test Intermediate")
LEAF = INTERMEDIATE.issue()
OTHER_ROOT = make_root("Other Root")
ROGUE = OTHER_ROOT.issue()  # trusted by the store, for the right name, but not what is pinned
STORE = ROOT.pem + OTHER_ROOT.pem


def enforce(*pins: Pin) -> Pinning:
    return pinning("enforce", pins)


def mismatch(error: ssl.SSLError | None) -> PinMismatchError:
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert isinstance(error.__cause__, PinMismatchError)
    assert str(error) == str(error.__cause__)
    return error.__cause__


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("pinned", [LEAF, INTERMEDIATE, ROOT])
def test_a_server_with_a_pinned_key_gets_the_request(pinned: Issued, version: MinVersion) -> None:
    context = pinned_context(STORE, enforce(Pin(pinned.pin)))
    client, server, error = connect(context, server_context(LEAF, version=version))
    assert error is None
    assert server.received == REQUEST
    match = peer_trust(client).match
    assert match is not None
    assert match.pins == (Pin(pinned.pin),)
    assert match.path.keys == (LEAF.pin, INTERMEDIATE.pin, ROOT.pin)
    assert client.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "pin",
    [
        Pin(LEAF.pin, "leaf"),
        Pin(LEAF.pin, "root"),
        Pin(INTERMEDIATE.pin, "intermediate"),
        Pin(ROOT.pin, "root"),
        Pin(ROOT.pin, "any"),
    ],
)
def test_a_trusted_server_without_a_pinned_key_gets_no_byte(pin: Pin, version: MinVersion) -> None:
    store = STORE if pin.digest == ROOT.pin or pin.at != "root" else STORE + LEAF.pem
    context = pinned_context(store, enforce(pin))
    _, server, error = connect(context, server_context(ROGUE, version=version))
    assert mismatch(error).expected == (str(pin),)
    assert server.received == b""


@pytest.mark.parametrize("version", VERSIONS)
def test_the_control_without_pins_lets_that_server_have_the_request(version: MinVersion) -> None:
    _, server, error = connect(pinned_context(STORE, pinning("off", [])), server_context(ROGUE, version=version))
    assert (error, server.received) == (None, REQUEST)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("at", ["any", "intermediate", "root"])
def test_a_rogue_that_appends_the_genuine_ca_certificates_gets_no_byte(at: PinPosition, version: MinVersion) -> None:
    chain = ROGUE.chain_pem + INTERMEDIATE.pem + ROOT.pem
    context = pinned_context(STORE, enforce(Pin(ROOT.pin, at), Pin(INTERMEDIATE.pin, "intermediate")))
    _, server, error = connect(context, server_context(ROGUE, chain, version))
    assert mismatch(error).seen == (f"{ROGUE.pin} at leaf", f"{OTHER_ROOT.pin} at root")
    assert server.received == b""


@pytest.mark.parametrize("version", VERSIONS)
def test_the_right_key_does_not_replace_the_name_check(version: MinVersion) -> None:
    context = pinned_context(STORE, enforce(Pin(LEAF.pin)))
    _, server, error = connect(context, server_context(LEAF, version=version), name="other.example")
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert "Hostname mismatch" in str(error)
    assert server.received == b""


@pytest.mark.parametrize("version", VERSIONS)
def test_the_right_key_does_not_replace_chain_verification(version: MinVersion) -> None:
    impostor = make_root("Untrusted").issue(key=LEAF.key)
    assert impostor.pin == LEAF.pin
    context = pinned_context(STORE, enforce(Pin(LEAF.pin)))
    _, server, error = connect(context, server_context(impostor, version=version))
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert error.__cause__ is None
    assert server.received == b""


def test_an_expired_certificate_with_the_right_key_is_refused() -> None:
    _, server, error = connect(
        pinned_context(STORE, enforce(Pin(LEAF.pin))), server_context(INTERMEDIATE.issue(key=LEAF.key, expired=True))
    )
    assert "expired" in str(error)
    assert server.received == b""


@pytest.mark.parametrize(
    ("names", "asked", "accepted"),
    [
        (["127.0.0.1"], "127.0.0.1", True),
        (["localhost"], "127.0.0.1", False),
        (["*.example.com"], "a.example.com", True),
        (["*.example.com"], "a.b.example.com", False),
        ([], "localhost", False),  # the common name says localhost
    ],
)
def test_names_are_looked_for_in_the_san_only(names: list[str], asked: str, accepted: bool) -> None:
    leaf = INTERMEDIATE.issue(names, key=LEAF.key)
    _, server, error = connect(pinned_context(STORE, enforce(Pin(LEAF.pin))), server_context(leaf), name=asked)
    assert (error is None) is accepted
    assert server.received == (REQUEST if accepted else b"")


def test_report_mode_connects_and_reports_what_it_saw() -> None:
    policy = pinning("report", [Pin(ROOT.pin)])
    client, server, error = connect(pinned_context(STORE, policy), server_context(ROGUE))
    assert (error, server.received) == (None, REQUEST)
    match = peer_trust(client).match
    assert match is not None
    assert match.pins == ()
    assert policy.seen(match.path) == (f"{ROGUE.pin} at leaf", f"{OTHER_ROOT.pin} at root")
    assert not policy.allows_credential(match)


def test_off_looks_at_nothing() -> None:
    client, _, error = connect(pinned_context(STORE, pinning("off", [])), server_context(LEAF))
    assert error is None
    assert peer_trust(client).match is None
    assert peer_trust(client).path.keys == (LEAF.pin, INTERMEDIATE.pin, ROOT.pin)
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    with pytest.raises(ssl.SSLCertVerificationError, match="not checked"):
        peer_trust(plain)


def test_the_lowest_version_holds() -> None:
    context = pinned_context(STORE, enforce(Pin(LEAF.pin)), min_version="1.3")
    _, server, error = connect(context, server_context(LEAF, version="1.2"))
    assert error is not None
    assert not server.established


@pytest.mark.parametrize("version", VERSIONS)
def test_root_pins_narrow_the_anchors_and_the_error_still_names_the_pins(version: MinVersion) -> None:
    context = pinned_context(STORE, enforce(Pin(ROOT.pin, "root")))
    assert context.cert_store_stats()["x509"] == 1
    _, server, error = connect(context, server_context(ROGUE, version=version))
    assert mismatch(error).expected == (f"{ROOT.pin} at root",)
    assert not server.established
    assert server.received == b""
    assert connect(context, server_context(LEAF, version=version))[2] is None


def test_a_narrowed_context_calls_other_errors_by_their_name() -> None:
    context = pinned_context(STORE, enforce(Pin(ROOT.pin, "root")))
    _, _, error = connect(context, server_context(LEAF), name="other.example")
    assert "Hostname mismatch" in str(error)


def test_a_pinned_only_store_verifies_up_to_an_intermediate() -> None:
    policy = enforce(Pin(INTERMEDIATE.pin))
    context = pinned_context(STORE + INTERMEDIATE.pem, policy, store="pinned-only")
    client, server, error = connect(context, server_context(LEAF, LEAF.pem))
    assert (error, server.received) == (None, REQUEST)
    match = peer_trust(client).match
    assert match is not None
    assert policy.seen(match.path) == (f"{LEAF.pin} at leaf", f"{INTERMEDIATE.pin} at intermediate+root")
    _, server, error = connect(context, server_context(ROGUE))
    mismatch(error)
    assert server.received == b""


def test_a_self_signed_server_can_be_pinned() -> None:
    alone = make_root("localhost")
    leaf = alone.issue(key=alone.key)
    context = pinned_context(leaf.pem, enforce(Pin(leaf.pin, "leaf")), store="pinned-only")
    _, server, error = connect(context, server_context(leaf, leaf.pem))
    assert (error, server.received) == (None, REQUEST)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_resumed_session_is_refused(version: MinVersion) -> None:
    serving = server_context(LEAF, version=version)
    first_context = pinned_context(STORE, enforce(Pin(LEAF.pin)))
    first_context.options &= ~ssl.OP_NO_TICKET
    first, server, error = connect(first_context, serving)
    assert error is None
    server.tls.write(b"response")
    assert first.read() == b"response"  # takes up the session ticket that TLS 1.3 sends after the handshake
    client, server, error = connect(first_context, serving, session=first.session)
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert "resumed" in str(error)
    assert client.session_reused
    assert server.received == b""


def test_neither_reading_nor_writing_can_do_the_handshake_by_itself() -> None:
    context = pinned_context(STORE, enforce(Pin(LEAF.pin)))
    to_server = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), to_server, server_hostname="localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match="not checked"):
        client.write(REQUEST)
    with pytest.raises(ssl.SSLCertVerificationError, match="not checked"):
        client.read()
    assert to_server.pending == 0


def test_what_passes_the_checks_by_is_had_only_after_them() -> None:
    """Neither before the handshake nor after one that was refused."""
    context = pinned_context(STORE, enforce(Pin(LEAF.pin)))
    fresh = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
    refused, _, error = connect(context, server_context(ROGUE))
    assert error is not None
    for unchecked in (fresh, refused):
        assert isinstance(unchecked, PinnedTls)
        with pytest.raises(ssl.SSLCertVerificationError, match="not checked"):
            checked_io(unchecked)
    client, server, _ = connect(context, server_context(LEAF))
    assert isinstance(client, PinnedTls)
    client.do_handshake()  # as often as somebody likes
    server.tls.write(b"answer")
    read, write = checked_io(client)
    assert read(100) == b"answer"
    assert write(memoryview(b"more")) == 4
    server.step()
    assert server.received == REQUEST + b"more"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_refused_connection_stays_refused(version: MinVersion) -> None:
    context = pinned_context(STORE, enforce(Pin(LEAF.pin)))
    client, server, error = connect(context, server_context(ROGUE, version=version))
    assert error is not None
    with pytest.raises(ssl.SSLCertVerificationError):
        client.do_handshake()
    with pytest.raises(ssl.SSLCertVerificationError, match="not checked"):
        client.write(REQUEST)
    server.step()
    assert server.received == b""


@pytest.mark.parametrize("mode", ["enforce", "report"])
@pytest.mark.parametrize("path", [[], [b"junk"], None])
def test_a_path_that_cannot_be_had_or_read_is_refused(
    mode: PinMode, path: list[bytes] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getter(connection: ssl.SSLObject) -> list[bytes]:
        if path is None:
            raise AttributeError("no getter on this interpreter")
        return path

    monkeypatch.setattr(context_module, "verified_chain", getter)
    context = pinned_context(STORE, pinning(mode, [Pin(LEAF.pin)]))
    _, server, error = connect(context, server_context(LEAF))
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert server.received == b""


def test_a_resumed_or_missing_chain_of_the_c_getter_is_an_empty_path() -> None:
    class Inner:
        def get_verified_chain(self) -> None:
            return None

    class Bare:
        _sslobj = Inner()

        def get_verified_chain(self) -> None:
            return None

    assert context_module.verified_chain(Bare()) == []  # type: ignore[arg-type]  # only the getter is asked


def test_a_pinned_context_makes_no_ssl_socket() -> None:
    with pytest.raises(RuntimeError, match="wrap_bio"):
        pinned_context(STORE, enforce(Pin(LEAF.pin))).wrap_socket()


def test_nothing_is_taken_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, key_log = tmp_path / "rogue.pem", tmp_path / "keys"
    bundle.write_text(OTHER_ROOT.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("SSLKEYLOGFILE", str(key_log))
    context = pinned_context(ROOT.pem, pinning("off", []))
    assert connect(context, server_context(ROGUE))[2] is not None
    assert connect(context, server_context(LEAF))[2] is None
    assert not key_log.exists()


def test_the_settings_that_nothing_else_would_show() -> None:
    context = pinned_context(STORE, enforce(Pin(LEAF.pin)))
    assert isinstance(context, PinnedContext)
    assert context.sslobject_class is PinnedTls
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert not context.hostname_checks_common_name
    assert context.options & ssl.OP_NO_TICKET
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_only_certificates_are_taken_from_a_pem_text() -> None:
    key = ROOT.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    assert parse_pem(f"# comment\n{ROOT.pem}{key}\r\n{LEAF.pem}") == [ROOT.der, LEAF.der]
    assert parse_pem("") == []
    with pytest.raises(ConfigError, match="base64"):
        parse_pem("-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----")


def test_a_store_that_cannot_be_used_is_refused_when_it_is_loaded() -> None:
    broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    with pytest.raises(TrustError, match="cannot be used"):
        pinned_context(broken, pinning("off", []))
    with pytest.raises(TrustError, match="no trust anchor"):
        pinned_context("", enforce(Pin(LEAF.pin)))
    with pytest.raises(TrustError, match="no trust anchor"):
        pinned_context(STORE, enforce(parse_pin("sha256/" + "A" * 43 + "=", "root")))
