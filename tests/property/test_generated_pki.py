"""Random certificate hierarchies and pins, judged twice: by a real handshake, and by a verifier that shares no code.

The second opinion is `cryptography.x509.verification` for each path that the certificates allow, one by one, and a
direct comparison of public keys. A server gets bytes if and only if that opinion finds a valid path that is pinned.
Where the two disagree, the reason stands beside what is done about it: an authority with an Ed25519 key (a test of its
own), an anchor that is no root (`paths`), a wrong turn (`has_twins`), and several valid paths of which not all are
pinned (OpenSSL chooses one).
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import event, given, settings
from hypothesis import strategies as st

import handshakes
import pki
from codingagents.trust.context import pinned_context
from codingagents.trust.errors import TrustError
from codingagents.trust.pins import Pin, Pinning, pinning
from codingagents.trust.vocabulary import MinVersion, PinPosition
from pki import Issued

NAME = "mcp.vendor.example"
NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
DAY = datetime.timedelta(days=1)

# Issued once: what varies is who uses which.
KEYS: tuple[pki.PrivateKey, ...] = (
    *(pki.make_key() for _ in range(6)),
    ec.generate_private_key(ec.SECP384R1()),
    *(pki.make_key("rsa") for _ in range(2)),
)
STRANGER = "sha256/" + base64.b64encode(hashlib.sha256(b"a key that nobody here has").digest()).decode()

Constraint = Literal["none", "permits", "excludes"]
Usage = Literal["none", "server", "client"]


@dataclass(frozen=True)
class Wish:
    """What a certificate is to be; the defaults are a good one's."""

    key: int
    ca: bool = True
    expired: bool = False
    constraint: Constraint = "none"
    path_length: int | None = None
    usage: Usage = "none"
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class World:
    """One server, what it sends, and what its client was configured with."""

    leaf: Issued
    sent: tuple[Issued, ...]  # after the leaf
    anchors: tuple[Issued, ...]
    pins: tuple[Pin, ...]
    version: MinVersion


def make(subject: str, wish: Wish, issuer: Issued | None) -> Issued:
    key = KEYS[wish.key]
    signing = issuer.key if issuer else key
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 30 * DAY)
        .not_valid_after(NOW + (-DAY if wish.expired else 30 * DAY))
        .add_extension(x509.BasicConstraints(wish.ca, wish.path_length if wish.ca else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
    )
    if wish.ca:
        builder = builder.add_extension(pki.CA_KEY_USAGE, critical=True)
    if wish.names:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(map(x509.DNSName, wish.names))), False)
    if wish.usage != "none":
        usage = ExtendedKeyUsageOID.SERVER_AUTH if wish.usage == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if wish.constraint != "none":
        subtree = [x509.DNSName("vendor.example")]
        permits = wish.constraint == "permits"
        builder = builder.add_extension(
            x509.NameConstraints(subtree if permits else None, None if permits else subtree), critical=True
        )
    digest = None if isinstance(signing, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Issued(builder.sign(signing, digest), key)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    numbers = draw(st.permutations(range(len(KEYS))))
    key = iter(itertools.cycle(numbers))
    # At most one thing is wrong with a certificate, and mostly none: two faults hide each other.
    flaws: list[dict[str, Any]] = [{"expired": True}, {"constraint": "excludes"}, {"path_length": 0}, {"ca": False}]
    flaw = st.sampled_from([{}] * 12 + flaws)
    harmless: list[dict[str, Any]] = [{}, {}, {"constraint": "permits"}]

    def authority(subject: str, issuer: Issued | None) -> Issued:
        wish = replace(Wish(next(key)), **(draw(st.sampled_from(harmless)) | draw(flaw)))
        return make(subject, replace(wish, ca=True) if issuer is None else wish, issuer)

    root, other = authority("Root", None), authority("Other Root", None)
    line = [root]
    for depth in range(draw(st.integers(0, 3))):
        line.append(authority(f"Intermediate {depth}", line[-1]))
    leaf = make(
        "Server",
        Wish(
            next(key),
            ca=False,
            names=draw(st.sampled_from([(NAME,)] * 6 + [("*.vendor.example",), ("*.example",), ("other.example",)])),
            usage=draw(st.sampled_from(["none", "server", "server", "client"])),
            expired=draw(st.sampled_from([False] * 9 + [True])),
        ),
        line[-1],
    )
    crossed = [
        make(each.certificate.subject.rfc4514_string().removeprefix("CN="), Wish(KEYS.index(each.key)), other)
        for each in draw(st.lists(st.sampled_from(line), max_size=2, unique=True))
    ]
    padding = [other, make("Other Intermediate", Wish(next(key)), other)]
    needed = line[1:] if draw(st.booleans()) else line
    extra = draw(st.lists(st.sampled_from([*padding, *crossed, root]), max_size=4))
    sent = draw(st.permutations([*needed, *extra]))
    if sent and draw(st.integers(0, 9)) == 0:
        sent = sent[1:]
    anchors = draw(st.sampled_from([(root,), (root, other), (other,), (root, other, *crossed), (leaf, root)]))
    keys = [leaf.pin, *(each.pin for each in line), other.pin, STRANGER]
    positions: list[PinPosition] = ["any", "any", "leaf", "intermediate", "root"]
    pins = draw(st.lists(st.builds(Pin, st.sampled_from(keys), st.sampled_from(positions)), min_size=1, max_size=3))
    versions: list[MinVersion] = ["1.2", "1.3"]
    return World(leaf, tuple(sent), anchors, tuple(pins), draw(st.sampled_from(versions)))


# -- the second opinion ------------------------------------------------------------------------------------------------

Path = tuple[Issued, ...]


def paths(world: World) -> Iterator[Path]:
    """Yield every way from the leaf to an anchor, each certificate signed by the next, whatever else is wrong."""

    def from_(path: Path) -> Iterator[Path]:
        last = path[-1]
        # An anchor that is no root ends a path in the store "pinned-only" and from an override, and not here.
        if last in world.anchors and last.certificate.issuer == last.certificate.subject:
            yield path
        for above in dict.fromkeys((*world.anchors, *world.sent)):
            if above not in path and len(path) < 8 and signed(last, above):
                yield from from_((*path, above))

    yield from from_((world.leaf,))


def signed(below: Issued, above: Issued) -> bool:
    try:
        below.certificate.verify_directly_issued_by(above.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def valid(path: Path) -> bool:
    anchor, between = path[-1].certificate, [each.certificate for each in path[1:-1]]
    builder = verification.PolicyBuilder().store(verification.Store([anchor])).time(NOW).max_chain_depth(8)
    try:
        builder.build_server_verifier(x509.DNSName(NAME)).verify(path[0].certificate, between)
    except verification.VerificationError:
        return False
    return True


def pinned(path: Path, pins: Sequence[Pin]) -> bool:
    for index, each in enumerate(path):
        places = {"any"}
        if index == 0:
            places.add("leaf")
        if index == len(path) - 1:
            places.add("root")
        if 0 < index < len(path) - 1:
            places.add("intermediate")
        if any(pin.digest == each.pin and pin.at in places for pin in pins):
            return True
    return False


def has_twins(world: World) -> bool:
    """Whether OpenSSL may take a wrong turn: of two certificates for one authority it follows one, and does not return.

    The second opinion tries all. So OpenSSL may refuse what that accepts, and never the other way round.
    """
    subjects = [each.certificate.subject for each in {*world.sent, *world.anchors}]
    return len(set(subjects)) < len(subjects)


# -- the test ----------------------------------------------------------------------------------------------------------


def sends(world: World, rules: Pinning) -> bool:
    """Whether the server received the request, in a real handshake."""
    anchors = "".join(each.pem for each in world.anchors)
    try:
        context = pinned_context(anchors, rules)
    except TrustError:  # no anchor is left that the pins allow: refused at load time
        return False
    chain = "".join(each.pem for each in (world.leaf, *world.sent))
    _, server, _ = handshakes.connect(context, handshakes.server_context(world.leaf, chain, world.version), name=NAME)
    assert server.received in (b"", handshakes.REQUEST)
    return server.received == handshakes.REQUEST


@settings(max_examples=300)
@given(worlds())
def test_bytes_are_sent_exactly_where_a_second_opinion_finds_a_valid_and_pinned_path(world: World) -> None:
    good = [path for path in paths(world) if valid(path)]
    verdicts = {pinned(path, world.pins) for path in good}
    sent = sends(world, pinning("enforce", world.pins))
    event(f"sent: {sent}; valid paths: {len(good)}, pinned: {sorted(verdicts)}")
    if sent:
        assert True in verdicts
    else:  # where one path is pinned and another is not, it is OpenSSL's choice that is judged
        assert verdicts != {True} or has_twins(world)


@settings(max_examples=150)
@given(worlds())
def test_without_pins_bytes_are_sent_exactly_where_there_is_a_valid_path(world: World) -> None:
    """The control: what the pins alone have refused above is sent here."""
    sent, good = sends(world, pinning("off", ())), any(map(valid, paths(world)))
    assert sent == good or (good and has_twins(world))


@pytest.mark.parametrize(("pin", "expected"), [("root", True), ("stranger", False)])
def test_an_authority_that_the_second_opinion_does_not_know_is_held_to_its_pins_too(pin: str, expected: bool) -> None:
    """Ed25519 is not of the Web PKI's profile, which `cryptography` verifies by; OpenSSL takes it."""
    root = pki.make_root(key=pki.make_key("ed25519"))
    leaf = root.issue([NAME])
    pins = (Pin(root.pin if pin == "root" else STRANGER),)
    world = World(leaf, (), (root,), pins, "1.3")
    assert not any(map(valid, paths(world)))
    assert sends(world, pinning("enforce", world.pins)) is expected
