"""A client certificate is shown to a server with a pinned path and to nobody else, under either version of TLS."""

from __future__ import annotations

import ssl

import pytest

from codingagents.trust.context import PinnedContext, peer_trust, pinned_context
from codingagents.trust.errors import ConfigError
from codingagents.trust.identity import MAX_BYTES, Identity, show
from codingagents.trust.pins import Pin, PinMismatchError, Pinning, pinning
from codingagents.trust.vocabulary import MinVersion, PinMode, PinPosition, Secret
from handshakes import REQUEST, VERSIONS, Server, connect, server_context
from pki import Issued, make_root

ROOT = make_root()
INTERMEDIATE = ROOT.issue_ca("Test Intermediate")
LEAF = INTERMEDIATE.issue()
OTHER_ROOT = make_root("Other Root")
ROGUE = OTHER_ROOT.issue()
STORE = ROOT.pem + OTHER_ROOT.pem
CLIENT_CA = make_root("Clients")
CLIENT = CLIENT_CA.issue(["client"])
IDENTITY = Identity(Secret(CLIENT.chain_pem), Secret(CLIENT.key_pem))
PINS: list[Pin] = [Pin(LEAF.pin, "leaf"), Pin(INTERMEDIATE.pin, "intermediate"), Pin(ROOT.pin, "root")]


def serving(identity: Issued, version: MinVersion, chain_pem: str | None = None) -> ssl.SSLContext:
    return server_context(identity, chain_pem, version, asks_for=CLIENT_CA)


def saw_nothing(server: Server) -> bool:
    """Neither by its own account nor on the wire, where TLS 1.2 shows certificates to anybody."""
    return not server.received and server.client_certificate is None and CLIENT.der not in server.wire


def showing(rules: Pinning, **options: object) -> PinnedContext:
    return pinned_context(STORE, rules, identity=IDENTITY, **options)  # type: ignore[arg-type]  # the caller knows them


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("pin", PINS, ids=str)
@pytest.mark.parametrize("appended", ["", INTERMEDIATE.pem + ROOT.pem])
def test_a_rogue_that_is_trusted_sees_neither_certificate_nor_request(
    pin: Pin, version: MinVersion, appended: str
) -> None:
    context = showing(pinning("enforce", [pin]))
    _, server, error = connect(context, serving(ROGUE, version, ROGUE.chain_pem + appended))
    assert error is not None
    assert saw_nothing(server)


@pytest.mark.parametrize("pin", PINS, ids=str)
def test_the_server_that_is_pinned_sees_both(pin: Pin) -> None:
    client, server, error = connect(showing(pinning("enforce", [pin])), serving(LEAF, "1.3"))
    assert (error, server.received, server.client_certificate) == (None, REQUEST, CLIENT.der)
    assert peer_trust(client).identity == IDENTITY.fingerprint


def test_a_server_of_tls_1_2_sees_both_where_every_anchor_is_pinned() -> None:
    context = showing(pinning("enforce", [Pin(ROOT.pin, "root")]))
    _, server, error = connect(context, serving(LEAF, "1.2"))
    assert (error, server.received, server.client_certificate) == (None, REQUEST, CLIENT.der)
    assert CLIENT.der in server.wire


@pytest.mark.parametrize("pin", PINS[:2], ids=str)
def test_without_the_demand_for_tls_1_3_the_rogue_would_see_the_certificate(pin: Pin) -> None:
    """The control: why a pin that no anchor carries raises the version."""
    context = showing(pinning("enforce", [pin]))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _, server, error = connect(context, serving(ROGUE, "1.2"))
    assert isinstance(error, ssl.SSLError)
    assert isinstance(error.__cause__, PinMismatchError)
    assert not saw_nothing(server)
    assert server.received == b""


def test_a_pinned_only_store_of_intermediates_needs_no_tls_1_3() -> None:
    rules = pinning("enforce", [Pin(INTERMEDIATE.pin, "any")])
    context = pinned_context(STORE + INTERMEDIATE.pem, rules, store="pinned-only", identity=IDENTITY)
    _, server, error = connect(context, serving(LEAF, "1.2", LEAF.pem))
    assert (error, server.client_certificate) == (None, CLIENT.der)
    _, server, error = connect(context, serving(ROGUE, "1.2"))
    assert error is not None
    assert saw_nothing(server)


@pytest.mark.parametrize("at", ["leaf", "intermediate"])
def test_a_pinned_only_store_whose_anchor_is_pinned_elsewhere_does(at: PinPosition) -> None:
    """A path that ends in it does not have the pin in its place."""
    rules = pinning("enforce", [Pin(ROOT.pin, at), Pin(OTHER_ROOT.pin, "root")])
    context = showing(rules, store="pinned-only")
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    _, server, error = connect(context, serving(LEAF, "1.2"))
    assert error is not None
    assert saw_nothing(server)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["localhost", "other.example"])
def test_the_right_path_for_another_name_sees_nothing(version: MinVersion, name: str) -> None:
    context = showing(pinning("enforce", [Pin(ROOT.pin, "root")]))
    _, server, error = connect(context, serving(LEAF, version), name=name)
    assert saw_nothing(server) == (error is not None) == (name != "localhost")


@pytest.mark.parametrize("mode", ["report", "off"])
def test_where_pins_are_not_enforced_it_is_shown_only_if_that_was_said(mode: PinMode) -> None:
    with pytest.raises(ConfigError, match="without a pin"):
        showing(pinning(mode, []))
    context = showing(pinning(mode, [], credential_without_pin=True))
    for version in VERSIONS:
        assert connect(context, serving(ROGUE, version))[1].client_certificate == CLIENT.der


@pytest.mark.parametrize("pin", [Pin(LEAF.pin), Pin(ROOT.pin, "root")], ids=str)
def test_below_an_override_that_bypasses_pins_likewise(pin: Pin) -> None:
    bypasses = {OTHER_ROOT.fingerprint: "corp"}
    with pytest.raises(ConfigError, match="without a pin"):
        showing(pinning("enforce", [pin], bypasses=bypasses), overrides=bypasses)
    rules = pinning("enforce", [pin], bypasses=bypasses, credential_without_pin=True)
    _, server, error = connect(showing(rules, overrides=bypasses), serving(ROGUE, "1.3"))
    assert (error, server.client_certificate) == (None, CLIENT.der)


BROKEN = {
    "no chain": Identity(Secret("x"), IDENTITY.key),
    "no key": Identity(IDENTITY.chain, Secret("x")),
    "another's key": Identity(IDENTITY.chain, Secret(ROGUE.key_pem)),
    "a key with a password": Identity(
        IDENTITY.chain,
        Secret(
            "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,"
            + "0" * 32
            + "\n\nAAAA\n-----END EC PRIVATE KEY-----\n"
        ),
    ),
    "more than a pipe holds": Identity(Secret("#" * (MAX_BYTES + 1)), IDENTITY.key),
}


@pytest.mark.parametrize("identity", BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_shown_is_refused_by_its_name(identity: Identity) -> None:
    with pytest.raises(ConfigError, match=r"^the client certificate cannot be used: ") as refused:
        pinned_context(STORE, pinning("off", [], credential_without_pin=True), identity=identity)
    assert "-----" not in str(refused.value)


def test_as_much_as_a_pipe_holds_is_read() -> None:
    padded = CLIENT.chain_pem + "#" * (MAX_BYTES - len(CLIENT.chain_pem))
    show(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), Identity(Secret(padded), IDENTITY.key), "it")
