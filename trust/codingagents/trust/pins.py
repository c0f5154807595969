"""CORE: pins: what they are, whether a verified certificate path carries one, and what follows for the credential.

`Pinning` is the one predicate: the TLS context, the check after the handshake and the decision to attach a credential
all ask it, so that they cannot drift apart. Certificates enter as DER and are not verified here: `context` passes
only paths that OpenSSL verified for the server's name. No I/O, no clock.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from codingagents.trust.der import certificate_sha256, self_issued, spki_pin
from codingagents.trust.errors import ConfigError, TrustError
from codingagents.trust.vocabulary import PinMode, PinPosition

_SHA256 = "sha256/"
_FINGERPRINT = re.compile(r"[0-9A-Fa-f]{64}|[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){31}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Pin:
    """One pinned key or certificate and where in the path it may stand; `parse_pin` and `parse_fingerprint` make it."""

    digest: (
        str  # of a key: `sha256/<base64>` of its SPKI; of a certificate: 64 lower-case hexadecimal digits of its DER
    )
    at: PinPosition = "any"

    @property
    def is_key(self) -> bool:
        """Whether it pins a key rather than a certificate."""
        return self.digest.startswith(_SHA256)

    def __str__(self) -> str:
        digest = self.digest if self.is_key else f"cert_sha256 {self.digest}"
        return digest if self.at == "any" else f"{digest} at {self.at}"


@dataclass(frozen=True, slots=True)
class VerifiedPath:
    """A path that OpenSSL verified, leaf first, up to the trust anchor; make it with `verified_path`."""

    keys: tuple[str, ...]  # `sha256/<base64>` of each SPKI
    certificates: tuple[str, ...]  # SHA-256 of each DER, hexadecimal
    places: tuple[tuple[PinPosition, ...], ...]  # of each; an anchor that is no root of its own is both

    @property
    def leaf(self) -> str:
        """The SHA-256 of the server's certificate."""
        return self.certificates[0]

    @property
    def anchor(self) -> str:
        """The SHA-256 of the certificate in which the path ends, one of the context's anchors."""
        return self.certificates[-1]

    def carries(self, pin: Pin) -> bool:
        """Whether the pinned key or certificate stands where the pin allows it."""
        return any(
            pin.digest in (key, certificate) and (pin.at == "any" or pin.at in places)
            for key, certificate, places in zip(self.keys, self.certificates, self.places, strict=True)
        )


@dataclass(frozen=True, slots=True)
class PinMatch:
    """What a verified path carried; `pins` is empty where no pin matched."""

    pins: tuple[Pin, ...]
    path: VerifiedPath
    bypass: str | None = None  # the override by which the path passed although no pin matched


class PinMismatchError(TrustError):
    """A verified path carries none of the pins. Nothing may be sent over its connection."""

    def __init__(self, expected: tuple[str, ...], seen: tuple[str, ...]) -> None:
        """Carry every pin that was expected and every key that was seen, for the record."""
        super().__init__(
            f"the server's certificate path carries none of the pins: expected {', '.join(expected)};"
            f" seen {', '.join(seen)}"
        )
        self.expected = expected
        self.seen = seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinning:
    """The pins of one upstream and what they decide; make it with `pinning`."""

    mode: PinMode
    pins: tuple[Pin, ...]
    expires: datetime.date | None
    credential_without_pin: bool
    bypasses: Mapping[str, str]  # SHA-256 of an anchor below which no pin is asked for -> the name of its override

    @property
    def inspects(self) -> bool:
        """Whether a connection's path is searched for pins."""
        return self.mode != "off"

    @property
    def refuses(self) -> bool:
        """Whether a path without a pin ends the connection before anything is sent."""
        return self.mode == "enforce"

    @property
    def expected(self) -> tuple[str, ...]:
        """The pins as text, for messages and the record."""
        return tuple(map(str, self.pins))

    def seen(self, path: VerifiedPath) -> tuple[str, ...]:
        """Return the keys of `path` and their places as text, and its certificates too where any is pinned."""
        places = ["+".join(each) for each in path.places]
        keys = [f"{key} at {place}" for key, place in zip(path.keys, places, strict=True)]
        if all(pin.is_key for pin in self.pins):
            return tuple(keys)
        certificates = [f"cert_sha256 {each} at {at}" for each, at in zip(path.certificates, places, strict=True)]
        return (*keys, *certificates)

    def check(self, path: VerifiedPath) -> PinMatch:
        """Return what `path` carries; raises `PinMismatchError` where that is too little for the mode."""
        pins = tuple(pin for pin in self.pins if path.carries(pin))
        bypass = None if pins else self.bypasses.get(path.anchor)
        if self.refuses and not pins and bypass is None:
            raise PinMismatchError(self.expected, self.seen(path))
        return PinMatch(pins, path, bypass)

    def allows_credential(self, match: PinMatch | None) -> bool:
        """Whether a credential may be sent on a connection; `match` is None where its path was not inspected.

        An enforced pin must have matched: neither a pin that is only reported nor an override counts.
        """
        return self.credential_without_pin or (self.refuses and match is not None and bool(match.pins))

    @property
    def may_show_certificate(self) -> bool:
        """Whether a client certificate may be shown at all: TLS shows it to any path that is accepted, pin or not."""
        return self.credential_without_pin or (self.refuses and not self.bypasses)

    def credential_rule(self, match: PinMatch | None) -> Literal["pinned", "without-pin", "withheld"]:
        """Say for the record what becomes of a credential on a connection, and why."""
        if self.refuses and match is not None and match.pins:
            return "pinned"
        return "without-pin" if self.allows_credential(match) else "withheld"

    def expired(self, today: datetime.date) -> bool:
        """Whether the pins may no longer be relied on: the day they expire is the last on which they hold."""
        return self.inspects and self.expires is not None and today > self.expires

    def narrow(self, anchors: Iterable[bytes], *, pinned_only: bool = False) -> list[bytes]:
        """Return those of the DER `anchors` that a connection needs to trust; `TrustError` where none is left.

        An anchor that is not pinned is left out where every pin is enforced at the root, for a path that ends there
        would be refused; any other pin might match further down a path under any anchor. Fewer anchors cost less
        memory and fail earlier (under TLS 1.2 before the client's certificate is sent). With `pinned_only` such
        anchors are left out always: that trust store is defined by the pins. Those of `bypasses` stay.
        """
        anchors = list(anchors)
        if pinned_only or (self.refuses and all(pin.at == "root" for pin in self.pins)):
            wanted = {pin.digest for pin in self.pins} | self.bypasses.keys()
            anchors = [anchor for anchor in anchors if wanted & _digests(anchor)]
        if not anchors:
            raise TrustError(
                "no trust anchor is left to verify the server with: add the CA that the pins name, or correct the pins"
            )
        return anchors

    def closed_by(self, anchors: Iterable[bytes]) -> bool:
        """Whether `check` accepts every path that ends in one of the DER `anchors`, whatever stands below."""
        if not self.refuses:
            return True
        enough = {pin.digest for pin in self.pins if pin.at in ("any", "root")} | self.bypasses.keys()
        return all(enough & _digests(anchor) for anchor in anchors)


def verified_path(chain: Sequence[bytes]) -> VerifiedPath:
    """Return the path of the DER `chain`, leaf first; `TrustError` where it is empty or a certificate is malformed."""
    if not chain:
        raise TrustError("there is no verified certificate path to look for pins in")
    return VerifiedPath(
        keys=tuple(map(spki_pin, chain)),
        certificates=tuple(map(certificate_sha256, chain)),
        places=tuple(_places(index, len(chain), certificate) for index, certificate in enumerate(chain)),
    )


def parse_pin(text: str, at: PinPosition = "any") -> Pin:
    """Return the pin of a key, `sha256/<base64>` or curl's `sha256//<base64>`, or raise `ConfigError`."""
    encoded = text.removeprefix(_SHA256)
    if encoded != text:
        encoded = encoded.removeprefix("/") if len(encoded) == 45 else encoded
        try:
            digest = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            digest = b""
        if len(digest) == 32 and base64.b64encode(digest).decode() == encoded:
            return Pin(_SHA256 + encoded, at)
    raise ConfigError(f'pin {text!r} must be "sha256/" and the base64 of 32 bytes (44 characters)')


def parse_fingerprint(text: str, at: PinPosition = "any") -> Pin:
    """Return the pin of a certificate: its SHA-256 in hexadecimal, colons allowed; or raise `ConfigError`."""
    if not _FINGERPRINT.fullmatch(text):
        raise ConfigError(f"fingerprint {text!r} must be 64 hexadecimal digits, with or without colons between pairs")
    return Pin(text.replace(":", "").lower(), at)


def pinning(
    mode: PinMode,
    pins: Iterable[Pin],
    *,
    expires: datetime.date | None = None,
    credential_without_pin: bool = False,
    bypasses: Mapping[str, str] | None = None,
) -> Pinning:
    """Return the predicate for one upstream, or raise `ConfigError` for pins that could never do what `mode` says."""
    pins = tuple(dict.fromkeys(pins))
    if mode == "enforce" and not pins:
        raise ConfigError('pins with mode = "enforce" need at least one pin; without pins say mode = "off"')
    return Pinning(
        mode=mode,
        pins=pins,
        expires=expires,
        credential_without_pin=credential_without_pin,
        bypasses=dict(bypasses or {}),
    )


def _places(index: int, length: int, certificate: bytes) -> tuple[PinPosition, ...]:
    if index == 0:
        return ("leaf",) if length > 1 else ("leaf", "root")
    if index < length - 1:
        return ("intermediate",)
    return ("root",) if self_issued(certificate) else ("intermediate", "root")


def _digests(certificate: bytes) -> set[str]:
    try:
        return {spki_pin(certificate), certificate_sha256(certificate)}
    except TrustError:
        return set()  # no pin can match it, so leaving it out is what narrowing means
