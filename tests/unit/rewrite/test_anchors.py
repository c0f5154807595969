"""Trust stores as files: what is taken from them and what is refused."""

import subprocess
from pathlib import Path
from typing import Any

import certifi
import pytest

from codingagents.rewrite.anchors import certificates, read_anchors
from codingagents.rewrite.config import AnchorSource
from codingagents.trust.errors import ConfigError, TrustError
from pki import make_root

ROOT = make_root("One")
OTHER = make_root("Two")


def source(path: Path | None, **changes: Any) -> AnchorSource:
    return AnchorSource(
        **{"store": "custom", "path": None if path is None else str(path), "server_name": "up.test", **changes}
    )


def test_certificates_are_kept_once_and_in_order_without_what_stands_between() -> None:
    """Debian's bundle has no text between; others have names, and duplicates."""
    text = f"# Ümlaut\n{OTHER.pem}\r\n subject: x\n{ROOT.pem.replace(chr(10), chr(13) + chr(10))}\n{OTHER.pem}tail"
    assert certificates(text.encode("latin-1"), "F") == OTHER.pem + ROOT.pem


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "F holds no PEM certificate"),
        (b"just text", "F holds no PEM certificate"),
        (ROOT.der, "F holds no PEM certificate"),
        ((ROOT.pem + ROOT.key_pem).encode(), "F holds a private key; keep it elsewhere and give a file of "),
        (b"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n", "F holds a private key; keep "),
        (b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", "F holds a private "),
        (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "F holds a PEM block 'X509 CRL'; only CERT"),
        ((ROOT.pem + OTHER.pem[:200]).encode(), "F: a PEM block has no matching END line"),
        (ROOT.pem.replace("END CERT", "END NOTCERT").encode(), "F: a PEM block has no matching END line"),
        (b"-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----\n", "F: certificate 1 is not valid base64"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "F: a certificate cannot be parsed"),
        (ROOT.pem.replace("MII", "MIA", 1).encode(), "F: a certificate cannot be parsed"),
    ],
)
def test_a_store_that_is_not_only_certificates_is_refused(content: bytes, sentence: str) -> None:
    """Each for its own reason, with the file's name."""
    with pytest.raises(TrustError) as caught:
        certificates(content, "F")
    assert str(caught.value).startswith(sentence)


def test_a_trusted_certificate_of_the_real_openssl_is_refused() -> None:
    """Its rejections would be lost."""
    done = subprocess.run(
        ["openssl", "x509", "-trustout", "-addreject", "serverAuth"],
        input=ROOT.pem.encode(),
        capture_output=True,
        check=True,
    )
    assert b"BEGIN TRUSTED CERTIFICATE" in done.stdout
    with pytest.raises(TrustError, match="convert it: openssl x509 -in FILE -out NEW"):
        certificates(done.stdout, "F")


def test_each_server_gets_the_store_it_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment has no say."""
    path, wrong = tmp_path / "one.pem", tmp_path / "two.pem"
    path.write_text(ROOT.pem)
    wrong.write_text(OTHER.pem)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(wrong))
    anchors = read_anchors({"a": source(path), "b": source(path), "c": source(None, store="certifi")}, "c.toml")
    assert anchors["a"] == anchors["b"] == ROOT.pem
    assert anchors["c"] == certificates(Path(certifi.where()).read_bytes(), "certifi")


def test_a_store_that_is_not_there_or_not_yet_possible_names_its_server(tmp_path: Path) -> None:
    """The remedy is in the configuration."""
    with pytest.raises(ConfigError, match=r"^c\.toml: \[mcp_servers\.a\.tls\] ca_file is .*/none, which does not"):
        read_anchors({"a": source(tmp_path / "none")}, "c.toml")
    with pytest.raises(ConfigError, match=r"^c\.toml: \[mcp_servers\.a\.tls\] ca_overrides is not available yet"):
        read_anchors({"a": source(None, store="host", overrides=("corp",))}, "c.toml")
    with pytest.raises(ConfigError, match=r"ca is the host's trust store .* install the package ca-certificates"):
        read_anchors({"a": source(tmp_path / "none", store="host")}, "c.toml")
    with pytest.raises(ConfigError, match="must be a regular file"):
        read_anchors({"a": source(tmp_path)}, "c.toml")
