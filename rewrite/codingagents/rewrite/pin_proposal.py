"""CORE: which pins to write for a server: at first, and when its keys change.

Proposed is what is narrow and lasts: the CA that issues the server's certificates, and the root above it as backup, for
public CAs change their issuers from one renewal to the next. Which other CA a server would move to only a person can
know. Whether a path was verified, and whether anybody vouches for it, is for the caller. No I/O, no clock.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from codingagents.rewrite.certificates import CertificateFacts, describe
from codingagents.rewrite.specs import PinSpec
from codingagents.trust.pins import VerifiedPath, parse_fingerprint, parse_pin, verified_path
from codingagents.trust.terminal import printable

VALID_DAYS = 182  # half a year; 400 days are the most that a configuration may say

_MAX_NOTE = 80
_FORMER = re.compile(r"in use until \d{4}-\d{2}-\d{2}\Z")  # how the note of a pin that `renew` made a backup ends
_COMMON_NAME = re.compile(r"(?:^|,)CN=((?:[^,\\]|\\.)*)")

_ROOT_AS_BACKUP = (
    "the backup is the root above: it holds while issuers below it change, and not if the server leaves it"
)
_LEAF_AS_BACKUP = (
    "the backup is the server's own key, which helps with nothing but to load: put a better one in its place"
)
_OTHER_BACKUP = (
    "a key of another CA, which you would move to, is a better backup: run coding-agents trust check for a server that "
    "has it, or openssl x509 -in CA.pem -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 "
    "-binary | base64"
)
_NO_BACKUP = "the server shows one key only, and a second one is needed, as backup"
_OWN_BACKUP = (
    "make the next key now and keep it offline: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "
    "next.key; openssl pkey -in next.key -pubout -outform der | openssl dgst -sha256 -binary | base64"
)


@dataclass(frozen=True, slots=True)
class SeenPath:
    """A verified path, leaf first, with what each of its certificates says; `seen_path` makes it."""

    path: VerifiedPath
    facts: tuple[CertificateFacts, ...]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A set of pins and what a person should know of it, as sentences.

    `complete`: a configuration may hold it as it is. Else a backup is missing, which no path can show.
    """

    pins: tuple[PinSpec, ...]
    advice: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether there are two keys, one of them a backup."""
        return len({pin.spki for pin in self.pins}) > 1 and any(pin.backup for pin in self.pins)


def seen_path(chain: Sequence[bytes]) -> SeenPath:
    """Return the verified path of the DER `chain`, leaf first; `TrustError` where a certificate cannot be read."""
    return SeenPath(verified_path(chain), tuple(map(describe, chain)))


def propose(seen: SeenPath) -> Proposal:
    """Return pins that accept this path and, where a CA is in it, others below the same root."""
    keys, last = seen.path.keys, len(seen.path.keys) - 1
    active = min(1, last)
    place = seen.path.places[active][0] if keys.count(keys[active]) == 1 else "any"
    pin = PinSpec(spki=keys[active], at=place, note=_note(seen.facts[active]))
    # The highest other key: the root, or the server's own where the root itself is the pin.
    index = next((index for index in range(last, -1, -1) if keys[index] != keys[active]), None)
    if index is None:
        return Proposal((pin,), (_NO_BACKUP, _OWN_BACKUP))
    backup = PinSpec(spki=keys[index], backup=True, note=_note(seen.facts[index]))
    advice = (_ROOT_AS_BACKUP, _OTHER_BACKUP) if index > active else (_LEAF_AS_BACKUP, _OTHER_BACKUP, _OWN_BACKUP)
    return Proposal((pin, backup), advice)


def renew(
    old: Sequence[PinSpec], seen: SeenPath, today: datetime.date, added: Sequence[PinSpec] = ()
) -> tuple[PinSpec, ...]:
    """Return the pins to write for a server that has `old` and now shows `seen`; `added` are further backups.

    Where a CA is pinned that is still in the path, and another key as backup, the pins stay. Else what `propose` says
    takes their place, and those that were in use become backups until the next time.
    """
    proposal = propose(seen)
    lasting = [pin for pin in old if carries(seen, pin) or not _FORMER.search(pin.note)]
    active = {digest(pin) for pin in lasting if not pin.backup}
    pinned = any(carries(seen, pin) and not pin.backup and not _is_leaf(seen, pin) for pin in lasting)
    if pinned and any(pin.backup and digest(pin) not in active for pin in (*lasting, *added)):
        pins = [*lasting, *added]
    else:
        pins = [proposal.pins[0], *(pin if pin.backup else _former(pin, today) for pin in lasting), *added]
        if all(digest(pin) == digest(pins[0]) for pin in pins):
            pins += proposal.pins[1:]
    # Of a key that was said twice, the pin that is in use, or the first.
    return tuple(
        min((pin for pin in pins if digest(pin) == each), key=lambda pin: pin.backup or not carries(seen, pin))
        for each in dict.fromkeys(map(digest, pins))
    )


def carries(seen: SeenPath, pin: PinSpec) -> bool:
    """Say whether the path carries `pin` where it is allowed to stand."""
    return seen.path.carries(parse_pin(pin.spki, pin.at) if pin.spki else parse_fingerprint(pin.cert_sha256, pin.at))


def digest(pin: PinSpec) -> str:
    """Return what tells one pin from another."""
    return pin.spki or pin.cert_sha256


def _is_leaf(seen: SeenPath, pin: PinSpec) -> bool:
    return digest(pin) in (seen.path.keys[0], seen.path.certificates[0])


def _former(pin: PinSpec, today: datetime.date) -> PinSpec:
    note = f"{pin.note}, in use until {today.isoformat()}".removeprefix(", ")
    return msgspec.structs.replace(pin, backup=True, note=note)


def _note(facts: CertificateFacts) -> str:
    """Return the common name, or all of the subject."""
    found = _COMMON_NAME.search(facts.subject)
    return printable(found[1] if found else facts.subject)[:_MAX_NOTE]
