"""Why a connection is trusted: its path, the store or override that anchors it, and whether other rules would agree."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from codingagents.trust.context import PeerTrust, PinnedContext, peer_trust, pinned_context
from codingagents.trust.errors import TrustError
from codingagents.trust.identity import Identity
from codingagents.trust.pins import Pin, PinMismatchError, Pinning, parse_fingerprint, pinning
from codingagents.trust.vocabulary import MinVersion, PinMode, Secret, Store
from handshakes import REQUEST, VERSIONS, connect, server_context
from pki import Issued, make_root

ROOT = make_root()
INTERMEDIATE = ROOT.issue_ca("Test Intermediate")
LEAF = INTERMEDIATE.issue()
OTHER_ROOT = make_root("Other Root")
ROGUE = OTHER_ROOT.issue()
STORE = ROOT.pem + OTHER_ROOT.pem
CORP = make_root("Corp")  # intercepts: what it signs is not the vendor's
INTERCEPTOR = CORP.issue()
WITH_CORP = STORE + CORP.pem
CORP_BYPASS = {CORP.fingerprint: "corp"}


def enforced(*pins: Pin, bypasses: dict[str, str] | None = None, without: bool = False) -> Pinning:
    return pinning("enforce", pins, bypasses=bypasses, credential_without_pin=without)


def trusted(context: PinnedContext, serving: ssl.SSLContext) -> PeerTrust:
    client, server, error = connect(context, serving)
    assert (error, server.received) == (None, REQUEST)
    return peer_trust(client)


def refused(context: PinnedContext, serving: ssl.SSLContext) -> ssl.SSLError:
    _, server, error = connect(context, serving)
    assert error is not None
    assert server.received == b""
    return error


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", ["enforce", "report", "off"])
def test_the_whole_path_is_known_in_every_mode(mode: PinMode, version: MinVersion) -> None:
    context = pinned_context(STORE, pinning(mode, [Pin(ROOT.pin)]), store="host")
    trust = trusted(context, server_context(LEAF, version=version))
    path = [LEAF, INTERMEDIATE, ROOT]
    assert trust.path.keys == tuple(each.pin for each in path)
    assert trust.path.certificates == tuple(each.fingerprint for each in path)
    assert (trust.leaf_sha256, trust.anchor_sha256) == (LEAF.fingerprint, ROOT.fingerprint)
    assert (trust.anchored_by, trust.server_name, trust.identity) == ("host", "localhost", None)
    assert trust.leaf_not_after == f"{LEAF.certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    assert trust.tls_version == f"TLSv{version}"
    assert (trust.match is None) == (mode == "off")
    assert trust.allows_credential == (mode == "enforce")


@pytest.mark.parametrize("at", ["leaf", "any", "root"])
def test_a_certificate_can_be_pinned_instead_of_its_key(at: Any) -> None:
    """A renewed certificate with the same key is another one."""
    pinned = ROOT if at == "root" else LEAF
    context = pinned_context(STORE, enforced(parse_fingerprint(pinned.fingerprint.upper(), at)))
    match = trusted(context, server_context(LEAF)).match
    assert match is not None
    assert match.pins == (Pin(pinned.fingerprint, at),)
    refused(context, server_context(ROGUE))
    if at != "root":
        refused(context, server_context(INTERMEDIATE.issue(key=LEAF.key)))


def test_an_override_is_named_where_it_anchors() -> None:
    context = pinned_context(WITH_CORP, pinning("off", []), store="certifi", overrides={CORP.fingerprint: "corp"})
    assert trusted(context, server_context(INTERCEPTOR)).anchored_by == "override corp"
    assert trusted(context, server_context(LEAF)).anchored_by == "certifi"


@pytest.mark.parametrize("anchor", ["an intermediate", "the leaf"])
def test_an_override_need_not_be_a_root(anchor: str) -> None:
    added = INTERMEDIATE if anchor == "an intermediate" else LEAF
    overrides = {added.fingerprint: "added"}
    context = pinned_context(OTHER_ROOT.pem + added.pem, pinning("off", []), overrides=overrides)
    trust = trusted(context, server_context(LEAF, LEAF.pem))
    assert (trust.anchored_by, trust.anchor_sha256) == ("override added", added.fingerprint)
    refused(pinned_context(OTHER_ROOT.pem + added.pem, pinning("off", [])), server_context(LEAF, LEAF.pem))


def constrained(root: Issued) -> Issued:
    """The same root, which vouches for one domain only."""
    found = root.certificate
    builder = x509.CertificateBuilder(
        found.issuer, found.subject, found.public_key(), found.serial_number,
        found.not_valid_before_utc, found.not_valid_after_utc, list(found.extensions),
    )  # fmt: skip
    only = x509.NameConstraints([x509.DNSName("corp.example")], None)
    return Issued(builder.add_extension(only, critical=True).sign(root.key, hashes.SHA256()), root.key)


@pytest.mark.parametrize("beside", [None, OTHER_ROOT.issue_ca("Elsewhere")])
def test_an_override_of_a_root_and_what_is_below_ends_at_the_root(beside: Issued | None) -> None:
    """What the root says of names holds, also beside an override that is no root; alone the lower one may say more."""
    others = {beside.fingerprint: "other"} if beside else {}
    store = beside.pem if beside else ""
    overrides = {ROOT.fingerprint: "corp", INTERMEDIATE.fingerprint: "corp", **others}
    both = pinned_context(store + ROOT.pem + INTERMEDIATE.pem, enforced(Pin(ROOT.pin, "root")), overrides=overrides)
    assert trusted(both, server_context(LEAF)).anchored_by == "override corp"

    root = constrained(ROOT)
    overrides = {root.fingerprint: "corp", INTERMEDIATE.fingerprint: "corp", **others}
    rules = pinning("off", [])
    error = refused(
        pinned_context(store + root.pem + INTERMEDIATE.pem, rules, overrides=overrides), server_context(LEAF)
    )
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert error.verify_message == "permitted subtree violation"
    alone = pinned_context(store + INTERMEDIATE.pem, rules, overrides={INTERMEDIATE.fingerprint: "corp", **others})
    assert trusted(alone, server_context(LEAF)).anchor_sha256 == INTERMEDIATE.fingerprint


def test_an_intermediate_beside_its_root_helps_a_server_that_leaves_it_out() -> None:
    overrides = {ROOT.fingerprint: "corp", INTERMEDIATE.fingerprint: "corp"}
    context = pinned_context(ROOT.pem + INTERMEDIATE.pem, pinning("off", []), overrides=overrides)
    assert trusted(context, server_context(LEAF, LEAF.pem)).anchor_sha256 == ROOT.fingerprint


def test_below_an_override_pins_hold_unless_it_bypasses_them() -> None:
    overrides = {CORP.fingerprint: "corp"}
    held = pinned_context(WITH_CORP, enforced(Pin(LEAF.pin)), overrides=overrides)
    assert isinstance(refused(held, server_context(INTERCEPTOR)).__cause__, PinMismatchError)
    bypassed = pinned_context(WITH_CORP, enforced(Pin(LEAF.pin), bypasses=CORP_BYPASS), overrides=overrides)
    trust = trusted(bypassed, server_context(INTERCEPTOR))
    assert trust.match is not None
    assert (trust.match.pins, trust.match.bypass, trust.anchored_by) == ((), "corp", "override corp")
    assert not trust.allows_credential
    pinned = trusted(bypassed, server_context(LEAF))
    assert pinned.match is not None
    assert (pinned.match.bypass, pinned.allows_credential) == (None, True)
    refused(bypassed, server_context(ROGUE))


def test_a_credential_goes_below_a_bypass_if_that_was_said_or_a_pin_matched() -> None:
    said = enforced(Pin(LEAF.pin), bypasses=CORP_BYPASS, without=True)
    assert trusted(pinned_context(WITH_CORP, said), server_context(INTERCEPTOR)).allows_credential
    matched = enforced(Pin(CORP.pin, "root"), bypasses=CORP_BYPASS)
    trust = trusted(pinned_context(WITH_CORP, matched), server_context(INTERCEPTOR))
    assert trust.match is not None
    assert (trust.match.bypass, trust.allows_credential) == (None, True)


def test_narrowed_anchors_keep_the_bypass() -> None:
    context = pinned_context(WITH_CORP, enforced(Pin(ROOT.pin, "root"), bypasses=CORP_BYPASS))
    assert context.anchors == {ROOT.fingerprint, CORP.fingerprint}
    assert not trusted(context, server_context(INTERCEPTOR)).allows_credential
    refused(context, server_context(ROGUE))


CROSS_OF_OTHER = CORP.issue_ca("Other Root", key=OTHER_ROOT.key)  # the bypass CA vouches for another root's key
CROSS_OF_CORP = OTHER_ROOT.issue_ca("Corp", key=CORP.key)  # and the other way round


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "appended", ["", CORP.pem, CROSS_OF_OTHER.pem, CROSS_OF_OTHER.pem + CORP.pem, INTERCEPTOR.pem + CORP.pem]
)
def test_a_server_cannot_choose_the_bypass(appended: str, version: MinVersion) -> None:
    """What it sends besides leads a path to the bypass only where no anchor of the store ends it before."""
    context = pinned_context(WITH_CORP, enforced(Pin(LEAF.pin), bypasses=CORP_BYPASS))
    error = refused(context, server_context(ROGUE, ROGUE.chain_pem + appended, version))
    assert isinstance(error.__cause__, PinMismatchError)
    assert error.__cause__.seen == (f"{ROGUE.pin} at leaf", f"{OTHER_ROOT.pin} at root")


def test_what_the_bypass_ca_vouches_for_across_is_below_it_where_the_store_does_not_have_it() -> None:
    context = pinned_context(ROOT.pem + CORP.pem, enforced(Pin(LEAF.pin), bypasses=CORP_BYPASS))
    trust = trusted(context, server_context(ROGUE, ROGUE.pem + CROSS_OF_OTHER.pem))
    assert (trust.match and trust.match.bypass, trust.allows_credential) == ("corp", False)
    assert trust.anchor_sha256 == CORP.fingerprint


def test_the_key_of_the_bypass_under_another_anchor_is_no_bypass() -> None:
    """A bypass is a certificate in the store, not a key: signed across, it is whatever anchors it."""
    context = pinned_context(STORE, enforced(Pin(LEAF.pin), bypasses=CORP_BYPASS))
    error = refused(context, server_context(INTERCEPTOR, INTERCEPTOR.pem + CROSS_OF_CORP.pem))
    assert isinstance(error.__cause__, PinMismatchError)


STRICT_FAULTS = {
    "Missing Subject Key Identifier": make_root("Bare", without=(x509.SubjectKeyIdentifier,)),
    "CA cert does not include key usage extension": make_root("Bare", without=(x509.KeyUsage,)),
}


@pytest.mark.parametrize(("says", "root"), STRICT_FAULTS.items(), ids=STRICT_FAULTS)
def test_strict_verification_names_the_extension_and_the_key_that_demands_it(says: str, root: Issued) -> None:
    leaf = root.issue()
    error = refused(pinned_context(root.pem, pinning("off", []), strict_x509=True), server_context(leaf))
    assert str(error) == f"{says}, which strict_x509 = true does not allow"
    assert trusted(pinned_context(root.pem, pinning("off", [])), server_context(leaf))
    assert trusted(pinned_context(STORE, pinning("off", []), strict_x509=True), server_context(LEAF)).strict_x509


def test_strict_verification_calls_other_errors_by_their_name() -> None:
    error = refused(pinned_context(ROOT.pem, pinning("off", []), strict_x509=True), server_context(ROGUE))
    assert "unable to get local issuer certificate" in str(error)


CLIENT = Identity(Secret(ROGUE.chain_pem), Secret(ROGUE.key_pem))
OTHER_CLIENT = Identity(Secret(LEAF.chain_pem), Secret(LEAF.key_pem))
RULES = enforced(Pin(ROOT.pin, "root"), Pin(OTHER_ROOT.pin, "root"))


def context_of(
    rules: Pinning = RULES,
    store_pem: str = STORE,
    *,
    server_name: str = "localhost",
    min_version: MinVersion = "1.2",
    store: Store = "custom",
    **options: Any,
) -> PinnedContext:
    return pinned_context(store_pem, rules, server_name=server_name, min_version=min_version, store=store, **options)


AGREES = {
    "nothing changed": context_of(),
    "another store with the same anchor": context_of(store="host", store_pem=ROOT.pem),
    "more pins": context_of(enforced(*RULES.pins, Pin(LEAF.pin))),
    "other pins of the path": context_of(enforced(Pin(LEAF.pin, "leaf"))),
    "a bypass besides": context_of(enforced(*RULES.pins, bypasses=CORP_BYPASS), WITH_CORP),
    "its credential is withheld": context_of(pinning("report", RULES.pins)),
    "its pins are off": context_of(pinning("off", [])),
}
DISAGREES = {
    "its anchor is gone": context_of(store_pem=OTHER_ROOT.pem),
    "its anchor is no longer pinned": context_of(enforced(Pin(OTHER_ROOT.pin, "root"))),
    "its pins are gone": context_of(enforced(Pin(OTHER_ROOT.pin))),
    "its pins stand elsewhere": context_of(enforced(Pin(ROOT.pin, "intermediate"), Pin(ROOT.pin, "leaf"))),
    "another name": context_of(server_name="other.example"),
    "no name": context_of(server_name=""),
    "a client certificate": context_of(identity=CLIENT),
    "strictness": context_of(strict_x509=True),
}


@pytest.mark.parametrize("context", AGREES.values(), ids=AGREES)
def test_a_connection_lives_on_where_new_rules_would_accept_it(context: PinnedContext) -> None:
    assert context.still_trusts(trusted(context_of(), server_context(LEAF)))


@pytest.mark.parametrize("context", DISAGREES.values(), ids=DISAGREES)
def test_a_connection_ends_where_new_rules_would_not(context: PinnedContext) -> None:
    assert not context.still_trusts(trusted(context_of(), server_context(LEAF)))


def test_a_version_may_become_higher_and_not_lower() -> None:
    for version in VERSIONS:
        trust = trusted(context_of(), server_context(LEAF, version=version))
        assert context_of(min_version="1.3").still_trusts(trust) == (version == "1.3")


def test_a_strict_connection_is_one_of_lesser_rules_too() -> None:
    trust = trusted(context_of(strict_x509=True), server_context(LEAF))
    assert context_of().still_trusts(trust)


def test_another_client_certificate_or_none_is_another_connection() -> None:
    trust = trusted(context_of(identity=CLIENT), server_context(LEAF))
    assert context_of(identity=CLIENT).still_trusts(trust)
    assert not context_of(identity=OTHER_CLIENT).still_trusts(trust)
    assert not context_of().still_trusts(trust)


def test_a_bypassed_connection_ends_with_its_bypass() -> None:
    rules = enforced(Pin(ROOT.pin), bypasses=CORP_BYPASS)
    trust = trusted(context_of(rules, WITH_CORP), server_context(INTERCEPTOR))
    assert context_of(rules, WITH_CORP).still_trusts(trust)
    assert not context_of(enforced(Pin(ROOT.pin)), WITH_CORP).still_trusts(trust)
    assert not context_of(rules, STORE).still_trusts(trust)


@pytest.mark.parametrize("added", [INTERMEDIATE, LEAF], ids=["an intermediate", "the leaf"])
def test_a_path_that_ended_below_a_root_lives_on_only_where_it_still_may_end_there(added: Issued) -> None:
    """Without its override the certificate may be in the store, and OpenSSL would end no path there."""
    store_pem, overrides = OTHER_ROOT.pem + added.pem, {added.fingerprint: "added"}
    rules = pinning("off", [])
    trust = trusted(context_of(rules, store_pem, overrides=overrides), server_context(LEAF, LEAF.pem))
    assert context_of(rules, store_pem, overrides=overrides).still_trusts(trust)
    without = context_of(rules, store_pem)
    assert not without.still_trusts(trust)
    refused(without, server_context(LEAF, LEAF.pem))


def test_who_was_refused_has_no_trust() -> None:
    client, _, error = connect(pinned_context(STORE, enforced(Pin(LEAF.pin))), server_context(ROGUE))
    assert error is not None
    with pytest.raises(ssl.SSLCertVerificationError, match="not checked"):
        peer_trust(client)


def test_a_chain_that_was_not_verified_is_judged_by_the_same_rules() -> None:
    """`judge` is for whoever has a verified chain already."""
    context = context_of()
    trust = context.judge([LEAF.der, INTERMEDIATE.der, ROOT.der], server_name="localhost", tls_version="TLSv1.3")
    assert context.still_trusts(trust)
    with pytest.raises(TrustError):
        context.judge([], server_name="localhost", tls_version="TLSv1.3")
