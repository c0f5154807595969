"""A `TlsSpec` becomes the rules and the context that it says."""

from __future__ import annotations

import datetime
import ssl
from typing import Any

import pytest

from codingagents.rewrite.pin_rules import rules_of
from codingagents.rewrite.specs import ClientCertificate, OverrideSpec, PinSpec, TlsSpec
from codingagents.rewrite.upstream_tls import upstream_context
from codingagents.trust.errors import ConfigError, TrustError
from codingagents.trust.pins import Pin
from codingagents.trust.vocabulary import Secret
from handshakes import REQUEST, connect, server_context
from pki import make_root

ROOT = make_root()
LEAF = ROOT.issue()
CORP = make_root("Corp")
OTHER = make_root("Other")
CLIENT = make_root("Clients").issue(["client"])
SECRETS = {"CERT": Secret(CLIENT.chain_pem), "KEY": Secret(CLIENT.key_pem), "OTHER": Secret("x")}
PINS = [PinSpec(spki=ROOT.pin, at="root"), PinSpec(cert_sha256=OTHER.fingerprint, at="root", backup=True)]


def spec(**changes: Any) -> TlsSpec:
    given: dict[str, Any] = {
        "server_name": "localhost",
        "anchors_pem": ROOT.pem + CORP.pem,
        "store": "custom",
        "pins": PINS,
        "pins_expire": "2027-03-01",
    }
    return TlsSpec(**(given | changes))


def override(name: str, *, override_pins: bool = False) -> OverrideSpec:
    return OverrideSpec(name=name, anchors=[CORP.fingerprint], override_pins=override_pins)


def test_the_rules_are_those_of_the_spec() -> None:
    rules = rules_of(spec(credential_without_pin=True, overrides=[override("plain")]))
    assert (rules.mode, rules.credential_without_pin, rules.bypasses) == ("enforce", True, {})
    assert rules.pins == (Pin(ROOT.pin, "root"), Pin(OTHER.fingerprint, "root"))
    assert rules.expires == datetime.date(2027, 3, 1)
    assert rules_of(spec(overrides=[override("corp", override_pins=True)])).bypasses == {CORP.fingerprint: "corp"}
    assert rules_of(spec(pins_expire=None)).expires is None


@pytest.mark.parametrize(
    "changes",
    [
        {"pins": []},
        {"pins": [PinSpec()]},
        {"pins": [PinSpec(spki="sha1/AAAA")]},
        {"pins": [PinSpec(cert_sha256="00")]},
        {"pins_expire": "soon"},
    ],
)
def test_a_spec_that_pins_nothing_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        rules_of(spec(**changes))


def test_the_context_is_that_of_the_spec() -> None:
    context = upstream_context(spec(min_version="1.3", strict_x509=True, overrides=[override("corp")]), {})
    assert (context.server_name, context.store, context.overrides) == (
        "localhost",
        "custom",
        {CORP.fingerprint: "corp"},
    )
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.anchors == {ROOT.fingerprint}  # both pins stand at the root, and the other root is not at hand
    assert connect(context, server_context(LEAF))[1].received == REQUEST
    assert upstream_context(spec(), {}).identity is None


def test_an_override_that_bypasses_pins_is_the_one_to_name() -> None:
    both = [override("bypass", override_pins=True), override("plain")]
    for overrides in (both, both[::-1]):
        assert upstream_context(spec(overrides=overrides), {}).overrides == {CORP.fingerprint: "bypass"}


def test_the_client_certificate_is_that_of_its_secrets() -> None:
    certificate = ClientCertificate(chain="CERT", key="KEY")
    context = upstream_context(spec(client_certificate=certificate), SECRETS)
    _, server, _ = connect(context, server_context(LEAF, version="1.2", asks_for=make_root("Clients")))
    assert context.identity is not None
    assert CLIENT.der in server.wire


@pytest.mark.parametrize("missing", ["CERT", "KEY"])
def test_a_secret_that_is_not_there_is_named(missing: str) -> None:
    secrets = {name: secret for name, secret in SECRETS.items() if name != missing}
    with pytest.raises(ConfigError, match=f"needs the secret {missing}, which was not given"):
        upstream_context(spec(client_certificate=ClientCertificate(chain="CERT", key="KEY")), secrets)


def test_a_store_without_a_pinned_anchor_is_refused() -> None:
    with pytest.raises(TrustError, match="no trust anchor is left"):
        upstream_context(spec(anchors_pem=CORP.pem), {})
