"""Trust stores as files: what is taken from them and what is refused."""

import datetime
from pathlib import Path
from typing import Any

import certifi
import pytest

from codingagents.rewrite.anchors import certificates, read_anchors
from codingagents.rewrite.config import AnchorSource
from codingagents.rewrite.override_store import OverrideStore
from codingagents.rewrite.overrides import Anchors, Override
from codingagents.rewrite.specs import OverrideSpec, PinSpec, TlsSpec
from codingagents.rewrite.upstream_tls import upstream_context
from codingagents.supervisor import session_ca
from codingagents.trust.context import peer_trust
from codingagents.trust.der import certificate_sha256, spki_pin
from codingagents.trust.errors import AgentError, ConfigError, NotFoundError, TrustError
from codingagents.trust.pem import parse_pem
from codingagents.trust.vocabulary import Store
from handshakes import connect, server_context
from pki import make_root

ROOT = make_root("One")
OTHER = make_root("Two")
DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
EXPIRED = datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)


@pytest.fixture
def store(tmp_path: Path) -> OverrideStore:
    return OverrideStore(tmp_path / "trust-overrides")


def source(path: Path | None, **changes: Any) -> AnchorSource:
    return AnchorSource(
        **{"store": "custom", "path": None if path is None else str(path), "server_name": "up.test", **changes}
    )


def test_certificates_are_kept_once_and_in_order_without_what_stands_between() -> None:
    """Debian's bundle has no text between; others have names, and duplicates."""
    text = f"# Ümlaut\n{OTHER.pem}\r\n subject: x\n{ROOT.pem.replace(chr(10), chr(13) + chr(10))}\n{OTHER.pem}tail"
    assert certificates(text.encode("latin-1"), "F") == [OTHER.der, ROOT.der]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "F holds no certificate; PEM, DER"),
        (b"just text", "F holds no certificate; PEM, DER"),
        ((ROOT.pem + ROOT.key_pem).encode(), "F holds a private key; keep it elsewhere and give a file of "),
        (b"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n", "F holds a private key; keep "),
        (b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", "F holds a private "),
        (
            b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
            "F holds a PEM block 'X509 CRL'; only certificates belong in a trust store",
        ),
        ((ROOT.pem + OTHER.pem[:200]).encode(), "F: a PEM block has no matching END line"),
        (ROOT.pem.replace("END CERT", "END NOTCERT").encode(), "F: a PEM block has no matching END line"),
        (
            b"-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----\n",
            "F: block 1 ('CERTIFICATE') is not valid base64",
        ),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "F: certificate 1 cannot be parsed"),
        (ROOT.pem.replace("MII", "MIA", 1).encode(), "F: certificate 1 cannot be parsed"),
    ],
)
def test_a_store_that_is_not_only_certificates_is_refused(content: bytes, sentence: str) -> None:
    """Each for its own reason, with the file's name."""
    with pytest.raises(TrustError) as caught:
        certificates(content, "F")
    assert str(caught.value).startswith(sentence)


def test_each_server_gets_the_store_it_named(
    tmp_path: Path, store: OverrideStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment has no say."""
    path, wrong = tmp_path / "one.pem", tmp_path / "two.pem"
    path.write_text(ROOT.pem)
    wrong.write_text(OTHER.pem)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(wrong))
    anchors = read_anchors({"a": source(path), "b": source(path), "c": source(None, store="certifi")}, "c.toml", store)
    assert anchors["a"] == anchors["b"] == Anchors(pem=ROOT.pem)
    assert parse_pem(anchors["c"].pem) == certificates(Path(certifi.where()).read_bytes(), "certifi")


def test_a_store_that_is_not_there_or_not_yet_possible_names_its_server(tmp_path: Path, store: OverrideStore) -> None:
    """The remedy is in the configuration."""
    with pytest.raises(ConfigError, match=r"^c\.toml: \[mcp_servers\.a\.tls\] ca_file is .*/none, which does not"):
        read_anchors({"a": source(tmp_path / "none")}, "c.toml", store)
    with pytest.raises(ConfigError, match=r"ca is the host's trust store .* install the package ca-certificates"):
        read_anchors({"a": source(tmp_path / "none", store="host")}, "c.toml", store)
    with pytest.raises(ConfigError, match="must be a regular file"):
        read_anchors({"a": source(tmp_path)}, "c.toml", store)


def added(store: OverrideStore, name: str, *certificates: bytes, **changes: Any) -> None:
    given: dict[str, Any] = {
        "name": name,
        "sha256": certificate_sha256(certificates[0]),
        "spki": spki_pin(certificates[0]),
        "subject": "CN=X",
        "issuer": "CN=X",
        "not_after": NOW + 400 * DAY,
        "scope": ("up.test",),
        "added": NOW,
        "source": "x",
    }
    store.add(Override(**{**given, **changes}), certificates, replace=True)


def test_overrides_stand_behind_the_store_each_certificate_once(tmp_path: Path, store: OverrideStore) -> None:
    """Whatever the store: `pinned-only` too, whose pins decide later. The spec says which certificates are whose."""
    path = tmp_path / "one.pem"
    path.write_text(ROOT.pem)
    intermediate = OTHER.issue_ca("Three")
    added(store, "b", OTHER.der, intermediate.der)
    added(store, "a", ROOT.der, OTHER.der, override_pins=True)
    for kind in ("custom", "pinned-only"):
        anchors = read_anchors({"s": source(path, store=kind, overrides=("b", "a"))}, "c.toml", store)["s"]
        assert anchors.pem == ROOT.pem + OTHER.pem + intermediate.pem
        assert anchors.overrides == (
            OverrideSpec(name="b", anchors=[OTHER.fingerprint, intermediate.fingerprint], roots=[OTHER.fingerprint]),
            OverrideSpec(
                name="a",
                anchors=[ROOT.fingerprint, OTHER.fingerprint],
                override_pins=True,
                roots=[ROOT.fingerprint, OTHER.fingerprint],
            ),
        )
        (warning,) = anchors.warnings
        assert warning.startswith('c.toml: [mcp_servers.s.tls] ca_overrides: "a" overrides pins: a path below it needs')


def test_what_the_store_has_anyway_is_no_overrides_unless_it_bypasses_pins(
    tmp_path: Path, store: OverrideStore
) -> None:
    """So that an event never says that an override anchored what the store alone would have."""
    path = tmp_path / "both.pem"
    path.write_text(ROOT.pem + OTHER.pem)
    added(store, "idle", ROOT.der)
    added(store, "bypass", OTHER.der, override_pins=True)
    anchors = read_anchors({"s": source(path, overrides=("idle", "bypass"))}, "c.toml", store)["s"]
    assert anchors.overrides == (
        OverrideSpec(name="idle", anchors=[], roots=[ROOT.fingerprint]),
        OverrideSpec(name="bypass", anchors=[OTHER.fingerprint], override_pins=True, roots=[OTHER.fingerprint]),
    )


@pytest.mark.parametrize("kind", ["custom", "pinned-only"])
@pytest.mark.parametrize("sent", [True, False])
def test_a_path_ends_at_an_overrides_root_also_where_the_store_has_it(
    tmp_path: Path, store: OverrideStore, kind: Store, sent: bool
) -> None:
    """Or what the root says of those below it would be lost, and a pin of it never match."""
    below = ROOT.issue_ca("Below")
    path = tmp_path / "one.pem"
    path.write_text(ROOT.pem)
    added(store, "both", ROOT.der, below.der)
    added(store, "below", below.der)
    pins = [PinSpec(spki=ROOT.pin, at="root"), PinSpec(spki=below.pin, at="root", backup=True)]
    for name, end in (("both", ROOT), ("below", below)):
        anchors = read_anchors({"s": source(path, store=kind, overrides=(name,))}, "c.toml", store)["s"]
        tls = TlsSpec(
            server_name="localhost", anchors_pem=anchors.pem, store=kind, overrides=list(anchors.overrides),
            pins=pins, pins_expire="2027-03-01",
        )  # fmt: skip
        leaf = below.issue()
        server = server_context(leaf, leaf.chain_pem if sent else leaf.pem)
        context = upstream_context(tls, {})
        client, _, error = connect(context, server)
        if kind == "pinned-only" and name == "both" and not sent:
            assert error is not None  # what is no anchor is not in that store, and helps nobody
        else:
            assert peer_trust(client).anchor_sha256 == end.fingerprint


def test_an_override_counts_for_the_server_that_names_it_alone(tmp_path: Path, store: OverrideStore) -> None:
    path = tmp_path / "one.pem"
    path.write_text(ROOT.pem)
    added(store, "a", OTHER.der)
    anchors = read_anchors({"s": source(path, overrides=("a",)), "t": source(path)}, "c.toml", store)
    assert (anchors["s"].pem, anchors["t"].pem) == (ROOT.pem + OTHER.pem, ROOT.pem)


@pytest.mark.parametrize(
    ("name", "changes", "error", "sentence"),
    [
        ("corp-rot", {}, NotFoundError, 'there is no trust override "corp-rot"; did you mean "corp-root"?'),
        (
            "corp-root",
            {"scope": ("a.test", "*.b.test")},
            ConfigError,
            '"corp-root" is for a.test, *.b.test and not for up.test; add it again with --replace and --scope up.test',
        ),
        ("corp-root", {"not_after": EXPIRED}, ConfigError, '"corp-root" has expired on 2020-01-02; get the CA'),
    ],
)
def test_an_override_that_cannot_count_is_refused(
    store: OverrideStore, name: str, changes: dict[str, Any], error: type[AgentError], sentence: str
) -> None:
    """The sentence names the server's table, the override, and what to do."""
    added(store, "corp-root", OTHER.der, **changes)
    with pytest.raises(error) as caught:
        read_anchors({"s": source(None, store="certifi", overrides=(name,))}, "c.toml", store)
    assert str(caught.value).startswith(f"c.toml: [mcp_servers.s.tls] ca_overrides: {sentence}")


def test_an_override_that_ends_soon_is_told(tmp_path: Path, store: OverrideStore) -> None:
    path = tmp_path / "one.pem"
    path.write_text(ROOT.pem)
    added(store, "a", OTHER.der, not_after=NOW + 5.5 * DAY)
    (warning,) = read_anchors({"s": source(path, overrides=("a",))}, "c.toml", store)["s"].warnings
    assert warning == 'c.toml: [mcp_servers.s.tls] ca_overrides: "a" expires in 5 days'


def test_the_overrides_store_is_not_touched_unless_one_is_named(tmp_path: Path, store: OverrideStore) -> None:
    """A session without an override does not depend on the store being in order."""
    path = tmp_path / "one.pem"
    path.write_text(ROOT.pem)
    (tmp_path / "trust-overrides").write_text("not a directory")
    assert read_anchors({"s": source(path)}, "c.toml", store)["s"].pem == ROOT.pem
    with pytest.raises(ConfigError, match="must be a directory"):
        read_anchors({"s": source(path, overrides=("a",))}, "c.toml", store)


def test_a_sessions_own_authority_is_never_trusted_upstream(tmp_path: Path, store: OverrideStore) -> None:
    """Whoever holds its key could else stand for any server that resolves to this machine."""
    authority, _ = session_ca.issue("20270301-9f86d081", ["a"], NOW)
    path = tmp_path / "one.pem"
    path.write_text(ROOT.pem + authority)
    anchors = read_anchors({"s": source(path)}, "c.toml", store)["s"]
    assert anchors.pem == ROOT.pem
    assert anchors.warnings == (
        "c.toml: [mcp_servers.s.tls] a session's own authority is in its trust store, and was left out",
    )
