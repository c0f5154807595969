"""Trust stores as files: what is taken from them and what is refused."""

from pathlib import Path
from typing import Any

import certifi
import pytest

from codingagents.rewrite.anchors import certificates, read_anchors
from codingagents.rewrite.config import AnchorSource
from codingagents.rewrite.override_store import OverrideStore
from codingagents.rewrite.overrides import Anchors
from codingagents.trust.errors import ConfigError, TrustError
from codingagents.trust.pem import parse_pem
from pki import make_root

ROOT = make_root("One")
OTHER = make_root("Two")


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
