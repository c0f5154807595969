"""CORE: whether certificates may become an override, and which of them is the top: what `trust add` refuses, and why.

Judges what the certificates are, not who gave them: that a person vouches for one is the command's to find out. No I/O,
no clock.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import NamedTuple

from codingagents.rewrite.certificates import CertificateFacts, describe, is_issued_by
from codingagents.trust.errors import TrustError
from codingagents.trust.terminal import printable

MIN_RSA_BITS = 2048
MIN_EC_BITS = 224
MAX_TOGETHER = 64  # certificates of one override: each is tried as the issuer of each
_WEAK_HASHES = frozenset({"md5", "sha1"})
_FOR_SERVERS = frozenset({"serverAuth", "any"})


class Candidate(NamedTuple):
    """Certificates that may become an override: DER, what each says, and which one all the others lead to."""

    certificates: tuple[bytes, ...]
    facts: tuple[CertificateFacts, ...]
    top: CertificateFacts


def candidate_of(certificates: Sequence[bytes], *, leaf: bool, now: datetime.datetime) -> Candidate:
    """Return the candidate, or raise `TrustError` with the first reason against it.

    Without `leaf`: CAs only, all of one tree. With it, exactly one certificate, of any kind.
    """
    if len(certificates) > MAX_TOGETHER:
        raise TrustError(
            f"these are {len(certificates)} certificates, and an override has {MAX_TOGETHER} at most; give the one "
            "authority that is missing"
        )
    facts = tuple(map(describe, certificates))
    for each in facts:
        _check(each, leaf=leaf, now=now)
    if leaf and len(facts) > 1:
        raise TrustError(f"--leaf trusts one certificate, and these are {len(facts)}; give a file with that one alone")
    issued = [[is_issued_by(each, above) for above in certificates] for each in certificates]
    top = next((index for index in range(len(facts)) if len(_below(index, issued)) == len(facts)), None)
    if top is None:
        names = "; ".join(sorted(printable(each.subject) for each in facts))
        raise TrustError(f"these are unrelated authorities ({names}); add each under a name of its own")
    return Candidate(tuple(certificates), facts, facts[top])


def top_of_chain(chain: Sequence[bytes]) -> bytes:
    """Return the highest certificate that the first one of `chain` leads to, by names and signatures.

    `chain` is as a server sent it: the leaf first, the rest in any order, and maybe more than belongs to it.
    """
    current, left = chain[0], list(chain[1:])
    while True:
        issuer = next((each for each in left if is_issued_by(current, each)), None)
        if issuer is None:
            return current
        left.remove(issuer)
        current = issuer


def _below(top: int, issued: Sequence[Sequence[bool]]) -> set[int]:
    """Return which certificates lead up to `top`, itself included; `issued` has a row each: by whom."""
    found, new = {top}, {top}
    while new:
        new = {index for index, by in enumerate(issued) if index not in found and any(by[above] for above in new)}
        found |= new
    return found


def _check(facts: CertificateFacts, *, leaf: bool, now: datetime.datetime) -> None:
    name = printable(facts.subject) or facts.sha256
    if facts.not_after <= now:
        raise TrustError(f"{name} has expired on {facts.not_after:%Y-%m-%d}; get its successor from whoever runs it")
    if facts.not_before > now:
        raise TrustError(f"{name} is not valid before {facts.not_before:%Y-%m-%d}; check this machine's clock")
    if facts.key_kind == "other" or (facts.key_bits < {"RSA": MIN_RSA_BITS, "EC": MIN_EC_BITS}.get(facts.key_kind, 0)):
        raise TrustError(f"{name} has a key that is too weak ({facts.key_kind}, {facts.key_bits} bits); get another CA")
    if facts.signature_hash in _WEAK_HASHES:
        raise TrustError(f"{name} is signed with {facts.signature_hash}, which can be forged; get a newer certificate")
    if facts.extended_key_usage and not _FOR_SERVERS & set(facts.extended_key_usage):
        raise TrustError(f"{name} is not for TLS servers, by its extended key usage; get the CA that signs servers")
    if not facts.is_ca and not leaf:
        raise TrustError(
            f"{name} is no certificate authority; give the CA that issued it ({printable(facts.issuer)}), "
            "or trust this certificate alone with --leaf"
        )
