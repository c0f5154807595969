"""Files of certificates as people have them: by the real openssl, in every form; and what is refused, and why."""

from __future__ import annotations

import base64
import datetime
import subprocess
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from codingagents.rewrite.certificates import (
    MAX_CERTIFICATE,
    MAX_CERTIFICATES,
    describe,
    is_issued_by,
    parse_certificates,
    to_pem,
)
from codingagents.trust.errors import TrustError
from pki import Issued, make_key, make_root

ROOT = make_root("One")
INTERMEDIATE = ROOT.issue_ca("Two")
LEAF = INTERMEDIATE.issue(("mcp.example", "10.0.0.1"))
OTHER = make_root("Other")
BOTH = [INTERMEDIATE.der, ROOT.der]


def openssl(*arguments: str, content: bytes) -> bytes:
    return subprocess.run(["openssl", *arguments], input=content, capture_output=True, check=True).stdout


def pkcs7(form: str) -> bytes:
    return openssl(
        "crl2pkcs7",
        "-nocrl",
        "-certfile",
        "/dev/stdin",
        "-outform",
        form,
        content=(INTERMEDIATE.pem + ROOT.pem).encode(),
    )


def trusted(*settings: str) -> bytes:
    return openssl("x509", "-trustout", *settings, content=ROOT.pem.encode())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ((INTERMEDIATE.pem + ROOT.pem).encode(), BOTH),
        ((INTERMEDIATE.pem + ROOT.pem + INTERMEDIATE.pem).encode(), BOTH),
        (f"Subject: \u00fc\n{INTERMEDIATE.pem}\n # text\n{ROOT.pem}tail".encode(), BOTH),
        (b"\xef\xbb\xbf" + ROOT.pem.encode(), [ROOT.der]),
        (ROOT.pem.replace("\n", "\r\n").encode(), [ROOT.der]),
        (ROOT.pem.replace("\n", "\n  ").encode(), [ROOT.der]),
        (ROOT.pem.replace("CERTIFICATE", "X509 CERTIFICATE").encode(), [ROOT.der]),
        (ROOT.der, [ROOT.der]),
        (pkcs7("PEM"), BOTH),
        (pkcs7("DER"), BOTH),
        (trusted(), [ROOT.der]),
        (trusted("-addtrust", "serverAuth"), [ROOT.der]),
        (trusted("-addtrust", "anyExtendedKeyUsage", "-setalias", "mine"), [ROOT.der]),
        (trusted("-addreject", "emailProtection"), [ROOT.der]),
        (trusted("-addtrust", "serverAuth") + INTERMEDIATE.pem.encode(), [ROOT.der, INTERMEDIATE.der]),
    ],
    ids=range(15),
)
def test_every_form_gives_the_same_certificates(content: bytes, expected: list[bytes]) -> None:
    """PKCS#7 keeps no order that anybody could rely on."""
    found = parse_certificates(content, "F")
    assert (sorted(found) if b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02" in content or b"PKCS7" in content else found) == (
        sorted(expected) if b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02" in content or b"PKCS7" in content else expected
    )
    assert parse_certificates(to_pem(found).encode(), "F") == found


SETTINGS = "F: the trust settings of a TRUSTED CERTIFICATE reject it for TLS servers; remove it, or drop"
KEY = "F holds a private key; keep it elsewhere and give a file of certificates only"
END = "F: a PEM block has no matching END line, or does not start its line"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "F holds no certificate; PEM, DER and PKCS#7 (.p7b) files are understood"),
        (b"just text", "F holds no certificate"),
        (b"\xff\xfe", "F holds no certificate"),
        (ROOT.der[:-1], "F: certificate 1 cannot be parsed: "),
        (ROOT.der + b"\0", "F: certificate 1 cannot be parsed: a certificate has bytes after its end"),
        (ROOT.der + INTERMEDIATE.der, "F: certificate 1 cannot be parsed: a certificate has bytes after its end"),
        (pkcs7("DER")[:-40], "F: the PKCS#7 data cannot be parsed, or holds no certificate"),
        (openssl("crl2pkcs7", "-nocrl", "-outform", "DER", content=b""), "F: the PKCS#7 data cannot be parsed"),
        ((ROOT.pem + ROOT.key_pem).encode(), KEY),
        ((ROOT.key_pem + ROOT.pem).encode(), KEY),
        (f"text {ROOT.key_pem}".encode(), KEY),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n", KEY),
        (b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", KEY),
        (base64.b64decode("".join(ROOT.key_pem.splitlines()[1:-1])), "F: certificate 1 cannot be parsed: "),
        (ROOT.key_pem.replace("PRIVATE KEY", "CERTIFICATE").encode(), "F: certificate 1 cannot be parsed: "),
        (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "F holds a PEM block 'X509 CRL'; only cert"),
        (b"-----BEGIN \xff\x1b-----\nAAAA\n-----END \xff\x1b-----\n", r"F holds a PEM block '\\xff\x1b'; only cert"),
        ((ROOT.pem + OTHER.pem[:200]).encode(), END),
        ((ROOT.pem[:28] + OTHER.pem).encode(), END),
        (ROOT.pem.replace("END CERT", "END NOTCERT").encode(), END),
        (f"x{ROOT.pem}".encode(), END),
        (b"-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----\n", "F: block 1 ('CERTIFICATE') is not valid"),
        (ROOT.pem.replace("\n", "\nProc-Type: 4,ENCRYPTED\n", 1).encode(), "F: block 1 ('CERTIFICATE') is not valid"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "F: certificate 1 cannot be parsed: "),
        (b"-----BEGIN TRUSTED CERTIFICATE-----\nAAAA\n-----END TRUSTED CERTIFICATE-----\n", "F: a TRUSTED CERTIFICATE"),
        (trusted("-addreject", "serverAuth"), SETTINGS),
        (trusted("-addreject", "anyExtendedKeyUsage"), SETTINGS),
        (trusted("-addtrust", "serverAuth", "-addreject", "serverAuth"), SETTINGS),
        (trusted("-addtrust", "emailProtection"), SETTINGS),
        (INTERMEDIATE.pem.encode() + trusted("-addreject", "serverAuth"), SETTINGS),
    ],
    ids=range(30),
)
def test_what_is_not_only_certificates_is_refused(content: bytes, sentence: str) -> None:
    """Each for its own reason, with the file's name."""
    with pytest.raises(TrustError) as caught:
        parse_certificates(content, "F")
    assert str(caught.value).startswith(sentence)


def junk_after_settings() -> bytes:
    der = ROOT.der + bytes.fromhex("3000") + b"\0"
    return b"-----BEGIN TRUSTED CERTIFICATE-----\n" + base64.b64encode(der) + b"\n-----END TRUSTED CERTIFICATE-----\n"


def test_trust_settings_are_read_to_their_end() -> None:
    """What stands behind them could be anything."""
    with pytest.raises(TrustError, match="there are bytes after its end"):
        parse_certificates(junk_after_settings(), "F")


def test_limits_hold() -> None:
    """On the size of one, and on how many; a file of block starts costs no more than its length."""
    big = b"\x30\x83" + (MAX_CERTIFICATE + 1).to_bytes(3, "big") + bytes(MAX_CERTIFICATE + 1)
    with pytest.raises(TrustError, match="over the limit of 65536 bytes"):
        parse_certificates(big, "F")
    many = to_pem([LEAF.der.replace(b"mcp", str(number).zfill(3).encode()) for number in range(100)])
    assert len(parse_certificates(many.encode(), "F")) == 100
    # The 20 bits of a changed serial number: different certificates, whatever their signatures.
    at = LEAF.der.index(b"mcp.example")
    different = [
        LEAF.der[:at] + number.to_bytes(3, "big") + LEAF.der[at + 3 :] for number in range(MAX_CERTIFICATES + 1)
    ]
    with pytest.raises(TrustError, match="holds more than 2000 certificates"):
        parse_certificates(to_pem(different).encode(), "F")
    started = time.monotonic()
    with pytest.raises(TrustError, match="no matching END line"):
        parse_certificates(b"-----BEGIN X-----\n" * 200_000, "F")
    with pytest.raises(TrustError, match="no matching END line"):
        parse_certificates(b"-----BEGIN X-----\n" + b"-----END Y-----\n" * 200_000, "F")
    assert time.monotonic() - started < 30  # by a search from each start it would be hours


def certificate(*extensions: x509.ExtensionType, subject: str = "X", key_type: str = "ec") -> bytes:
    key = make_key(key_type)  # type: ignore[arg-type]  # a literal, written as text for the table below
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=365))
    for each in extensions:
        builder = builder.add_extension(each, critical=False)
    return Issued(builder.sign(key, None if key_type == "ed25519" else hashes.SHA384()), key).der


def test_what_a_certificate_says_is_told() -> None:
    """As OpenSSL and an independent hash have it."""
    facts = describe(LEAF.der)
    assert (facts.subject, facts.issuer) == ("CN=mcp.example", "CN=Two")
    assert facts.sans == ("DNS:mcp.example", "IP:10.0.0.1")
    assert facts.spki == LEAF.pin
    assert facts.sha256 == openssl("dgst", "-sha256", "-r", content=LEAF.der).decode().split()[0]
    assert (facts.is_ca, facts.path_length, facts.self_signed) == (False, None, False)
    assert (facts.key_kind, facts.key_bits, facts.signature_hash) == ("EC", 256, "sha256")
    assert facts.not_after == LEAF.certificate.not_valid_after_utc
    assert (describe(ROOT.der).is_ca, describe(ROOT.der).self_signed) == (True, True)


def test_constraints_and_uses_are_told() -> None:
    """They say how much a CA could do."""
    facts = describe(
        certificate(
            x509.BasicConstraints(ca=True, path_length=0),
            x509.NameConstraints([x509.DNSName("corp.example")], [x509.DNSName("x.corp.example")]),
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.CODE_SIGNING]
            ),
        )
    )
    assert (facts.is_ca, facts.path_length) == (True, 0)
    assert (facts.permitted, facts.excluded) == (("DNS:corp.example",), ("DNS:x.corp.example",))
    assert facts.extended_key_usage == ("serverAuth", "clientAuth", "1.3.6.1.5.5.7.3.3")
    only = describe(certificate(x509.NameConstraints(None, [x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))])))
    assert (only.is_ca, only.permitted, only.excluded) == (False, (), ("other:RegisteredID",))


@pytest.mark.parametrize(
    ("key_type", "expected"), [("rsa", ("RSA", 2048, "sha384")), ("ed25519", ("Ed25519", 256, None))]
)
def test_keys_are_told(key_type: str, expected: tuple[str, int, str | None]) -> None:
    facts = describe(certificate(key_type=key_type))
    assert (facts.key_kind, facts.key_bits, facts.signature_hash) == expected
    assert facts.self_signed


@pytest.mark.parametrize(
    ("arguments", "kind", "bits"),
    [
        (["-algorithm", "ED448"], "Ed448", 456),
        (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], "EC", 384),
        (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit"], "EC", 256),
        (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp128r1"], "other", 0),
        (["-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"], "RSA", 2048),
    ],
)
def test_unusual_keys_are_told_or_are_other(arguments: list[str], kind: str, bits: int) -> None:
    """What cannot be told is no crash; its pin is of the bytes as they stand."""
    key = openssl("genpkey", *arguments, content=b"")
    made = openssl(
        "req", "-x509", "-new", "-key", "/dev/stdin", "-subj", "/CN=x", "-days", "9", "-outform", "DER", content=key
    )
    facts = describe(made)
    # What cannot be verified is said by nobody.
    assert (facts.key_kind, facts.key_bits, facts.self_signed) == (kind, bits, kind != "other")
    public = openssl("x509", "-inform", "DER", "-pubkey", "-noout", content=made)
    der = base64.b64decode(b"".join(public.splitlines()[1:-1]))
    digest = base64.b64decode(facts.spki.removeprefix("sha256/"))
    assert digest.hex() == openssl("dgst", "-sha256", "-r", content=der).decode().split()[0]


def test_what_has_no_name_here_is_other() -> None:
    """A key that signs nothing, and a signature algorithm that nobody knows."""
    key = x25519.X25519PrivateKey.generate()
    builder = LEAF.certificate
    made = (
        x509.CertificateBuilder(builder.issuer, builder.subject, key.public_key(), 1)
        .not_valid_before(builder.not_valid_before_utc)
        .not_valid_after(builder.not_valid_after_utc)
        .sign(ROOT.key, hashes.SHA256())
    )
    facts = describe(Issued(made, ROOT.key).der)
    assert (facts.key_kind, facts.key_bits) == ("other", 0)
    ecdsa_sha256 = bytes.fromhex("06082a8648ce3d040302")
    assert describe(LEAF.der.replace(ecdsa_sha256, ecdsa_sha256[:-1] + b"\x79")).signature_hash is None


def test_what_cannot_be_read_is_a_sentence() -> None:
    """The frame of a certificate is not yet a certificate."""
    with pytest.raises(TrustError, match="a certificate cannot be read"):
        describe(LEAF.der.replace(bytes.fromhex("170d"), bytes.fromhex("130d"), 1))  # a date of the wrong type
    with pytest.raises(TrustError, match="not DER of the expected shape"):
        describe(b"junk")
    with pytest.raises(TrustError, match="a certificate cannot be read"):
        is_issued_by(LEAF.der, b"junk")
    version = bytes.fromhex("a003020102")
    of_version_4 = LEAF.der.replace(version, version[:-1] + b"\x03", 1)
    for read in (describe, lambda each: is_issued_by(each, ROOT.der)):
        with pytest.raises(TrustError, match="a certificate cannot be read"):
            read(of_version_4)


def test_what_is_odd_and_can_be_read_is_told_without_a_warning() -> None:
    """A country of three letters, which is noticed only when the subject is asked for."""
    country = bytes.fromhex("0603550406")
    common_name = bytes.fromhex("0603550403")
    assert describe(ROOT.der.replace(common_name, country)).subject == "C=One"


def test_an_issuer_is_told_by_name_and_signature() -> None:
    """Another key of the same name is not it."""
    impostor = make_root("One")
    assert is_issued_by(INTERMEDIATE.der, ROOT.der)
    assert not is_issued_by(INTERMEDIATE.der, impostor.der)
    assert not is_issued_by(INTERMEDIATE.der, OTHER.der)
    assert not is_issued_by(LEAF.der, ROOT.der)
    ecdsa_sha256 = bytes.fromhex("06082a8648ce3d040302")
    assert not is_issued_by(INTERMEDIATE.der.replace(ecdsa_sha256, ecdsa_sha256[:-1] + b"\x79"), ROOT.der)
