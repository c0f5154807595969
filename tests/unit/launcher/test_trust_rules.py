"""What may become an override: each reason against it, and which certificate is the top."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codingagents.launcher.trust_rules import MAX_TOGETHER, candidate_of, top_of_chain
from codingagents.rewrite.certificates import parse_certificates
from codingagents.trust.errors import TrustError
from pki import make_key, make_root

ROOT = make_root("Root")
INTERMEDIATE = ROOT.issue_ca("Intermediate")
LEAF = INTERMEDIATE.issue(("mcp.example",))
OTHER = make_root("Other")
EXPIRED = ROOT.issue(("old.example",), expired=True)
FORGED = make_root("Root").issue_ca("Intermediate").der  # who vouches for the root has not vouched for these two
ECDSA_SHA256 = bytes.fromhex("06082a8648ce3d040302")
UNVERIFIABLE = FORGED.replace(ECDSA_SHA256, ECDSA_SHA256[:-1] + b"\x79")  # no algorithm that anybody knows
KEYS = make_key(), make_key()
A = make_root("B", key=KEYS[1]).issue_ca("A", key=KEYS[0])
CIRCLE = [A.der, A.issue_ca("B", key=KEYS[1]).der]  # each vouches for the other
NOW = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)  # what a test makes later is valid by then
LATER = NOW + datetime.timedelta(days=40)


def made(tmp_path: Path, *arguments: str) -> bytes:
    """A self-signed certificate of the real openssl, CA or what the arguments say."""
    key, out = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-subj", "/CN=Made", "-nodes", "-keyout", key, "-out", out, *arguments],
        check=True,
        capture_output=True,
    )
    (certificate,) = parse_certificates(out.read_bytes(), "F")
    return certificate


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_the_top_is_the_one_that_all_lead_to(order: list[int]) -> None:
    """In whatever order the file has them."""
    both = [ROOT.der, INTERMEDIATE.der]
    candidate = candidate_of([both[index] for index in order], leaf=False, now=NOW)
    assert candidate.top.subject == "CN=Root"
    assert candidate.certificates == tuple(both[index] for index in order)


def test_a_circle_has_a_top() -> None:
    """Any of them: a path may end at each."""
    assert candidate_of(CIRCLE, leaf=False, now=NOW).top.subject == "CN=A"


def test_an_intermediate_alone_is_its_own_top() -> None:
    assert candidate_of([INTERMEDIATE.der], leaf=False, now=NOW).top.subject == "CN=Intermediate"


def test_more_than_anybody_means_are_too_many() -> None:
    """Of one name, so that each signature would have to be tried with each key."""
    many = [INTERMEDIATE.issue_ca("Same").der for _ in range(MAX_TOGETHER)]
    assert candidate_of([INTERMEDIATE.der, *many[1:]], leaf=False, now=NOW).top.subject == "CN=Intermediate"
    with pytest.raises(TrustError, match="these are 65 certificates, and an override has 64 at most"):
        candidate_of([INTERMEDIATE.der, *many], leaf=False, now=NOW)


def test_a_leaf_is_taken_where_it_is_meant_and_alone() -> None:
    assert candidate_of([LEAF.der], leaf=True, now=NOW).top.sans == ("DNS:mcp.example",)
    with pytest.raises(TrustError, match="--leaf trusts one certificate, and these are 2"):
        candidate_of([LEAF.der, INTERMEDIATE.der], leaf=True, now=NOW)


@pytest.mark.parametrize(
    ("certificates", "now", "sentence"),
    [
        (
            [LEAF.der],
            NOW,
            "CN=mcp.example is no certificate authority; give the CA that issued it (CN=Intermediate), or",
        ),
        ([ROOT.der, LEAF.der], NOW, "CN=mcp.example is no certificate authority"),
        ([EXPIRED.der], NOW, "CN=old.example has expired on "),
        ([ROOT.der], LATER, "CN=Root has expired on "),
        ([ROOT.der], NOW - datetime.timedelta(days=99), "CN=Root is not valid before "),
        ([ROOT.der, OTHER.der], NOW, "these are unrelated authorities (CN=Other; CN=Root); add each under a name of"),
        ([INTERMEDIATE.der, OTHER.der], NOW, "these are unrelated authorities"),
        ([ROOT.der, FORGED], NOW, "these are unrelated authorities (CN=Intermediate; CN=Root)"),
        ([ROOT.der, UNVERIFIABLE], NOW, "these are unrelated authorities (CN=Intermediate; CN=Root)"),
        ([ROOT.der, *CIRCLE], NOW, "these are unrelated authorities (CN=A; CN=B; CN=Root)"),
        ([make_root("\x1b[2J").der, OTHER.der], NOW, r"these are unrelated authorities (CN=Other; CN=\x1b[2J)"),
    ],
    ids=range(11),
)
def test_each_reason_against_it_is_a_sentence(certificates: list[bytes], now: datetime.datetime, sentence: str) -> None:
    """What the certificates say is escaped in it."""
    with pytest.raises(TrustError) as caught:
        candidate_of(certificates, leaf=False, now=now)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-newkey", "rsa:1024"], "CN=Made has a key that is too weak (RSA, 1024 bits)"),
        (["-newkey", "rsa:2048", "-sha1"], "CN=Made is signed with sha1, which can be forged"),
        (["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp128r1"], "CN=Made has a key that is too weak (other, 0"),
        (["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime192v1"], "CN=Made has a key that is too weak (EC, 192"),
        (["-newkey", "rsa:2048", "-addext", "extendedKeyUsage=clientAuth"], "CN=Made is not for TLS servers, by its"),
        (["-newkey", "rsa:2048"], None),
        (["-newkey", "rsa:2048", "-addext", "extendedKeyUsage=clientAuth,serverAuth"], None),
        (["-newkey", "ed25519"], None),
    ],
    ids=range(8),
)
def test_weak_and_unfit_ones_are_refused(tmp_path: Path, arguments: list[str], sentence: str | None) -> None:
    """As the real openssl makes them; the last three may pass."""
    certificate = made(tmp_path, *arguments)
    later = NOW + datetime.timedelta(minutes=1)  # openssl's clock is read after ours
    if sentence is None:
        assert candidate_of([certificate], leaf=False, now=later).top.self_signed
        return
    with pytest.raises(TrustError) as caught:
        candidate_of([certificate], leaf=False, now=later)
    assert str(caught.value).startswith(sentence)


@given(st.permutations([INTERMEDIATE.der, ROOT.der, OTHER.der, make_root("Root").der]), st.integers(0, 4))
def test_the_top_of_a_chain_is_found_in_any_order(rest: list[bytes], kept: int) -> None:
    """By names and signatures: a root of the same name and another key is not it, nor is what does not belong there."""
    chain = [LEAF.der, *rest[:kept]]
    expected = LEAF.der
    if INTERMEDIATE.der in chain:
        expected = ROOT.der if ROOT.der in chain else INTERMEDIATE.der
    assert top_of_chain(chain) == expected
