"""CORE: public-key pins: what they are, and whether a verified certificate path carries one.

`Pinning` is the one predicate: the TLS context, the check after the handshake and the decision to attach a credential
all ask it, so that they cannot drift apart. Certificates enter as DER and are not verified here: `context` passes
only paths that OpenSSL verified for the server's name. No I/O, no clock.
"""

from __future__ import annotations

import base64
import binascii
import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from codingagents.trust.der import spki_pin
from codingagents.trust.errors import ConfigError, TrustError
from codingagents.trust.vocabulary import PinMode, PinPosition

_SHA256 = "sha256/"


@dataclass(frozen=True, slots=True)
class Pin:
    """One pinned key and where in the path it may stand; make it with `parse_pin`."""

    spki: str  # canonical, `sha256/<base64>`
    at: PinPosition = "any"

    def __str__(self) -> str:
        return self.spki if self.at == "any" else f"{self.spki} at {self.at}"


@dataclass(frozen=True, slots=True)
class PinMatch:
    """What a verified path carried; `pins` is empty where no pin matched."""

    pins: tuple[Pin, ...]
    seen: tuple[str, ...]  # the path, leaf first, as `sha256/<base64> at <position>`


class PinMismatchError(TrustError):
    """A verified path carries none of the pins. Nothing may be sent over its connection."""

    def __init__(self, expected: tuple[str, ...], seen: tuple[str, ...]) -> None:
        """Carry every pin that was expected and every key that was seen, for the record."""
        super().__init__(
            f"the server's certificate path carries none of the pinned keys: expected {', '.join(expected)};"
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

    @property
    def inspects(self) -> bool:
        """Whether a connection's path is looked at."""
        return self.mode != "off"

    @property
    def refuses(self) -> bool:
        """Whether a path without a pin ends the connection before anything is sent."""
        return self.mode == "enforce"

    @property
    def expected(self) -> tuple[str, ...]:
        """The pins as text, for messages and the record."""
        return tuple(map(str, self.pins))

    def check(self, path: Sequence[bytes]) -> PinMatch:
        """Return what `path` (DER, leaf first, verified up to an anchor) carries.

        Raises `PinMismatchError` where that is nothing and the mode is enforce, and `TrustError` for an empty path
        or a malformed certificate in any mode.
        """
        if not path:
            raise TrustError("there is no verified certificate path to look for pins in")
        keys = [spki_pin(certificate) for certificate in path]
        places = [_places(index, len(path)) for index in range(len(path))]
        seen = tuple(f"{key} at {'+'.join(place)}" for key, place in zip(keys, places, strict=True))
        pins = tuple(
            pin
            for pin in self.pins
            if any(
                pin.spki == key and (pin.at == "any" or pin.at in place)
                for key, place in zip(keys, places, strict=True)
            )
        )
        if not pins and self.refuses:
            raise PinMismatchError(self.expected, seen)
        return PinMatch(pins, seen)

    def allows_credential(self, match: PinMatch | None) -> bool:
        """Whether a credential may be sent on a connection; `match` is None where its path was not inspected."""
        return self.credential_without_pin or (match is not None and bool(match.pins))

    def expired(self, today: datetime.date) -> bool:
        """Whether the pins may no longer be relied on: the day they expire is the last on which they hold."""
        return self.inspects and self.expires is not None and today > self.expires

    def narrow(self, anchors: Iterable[bytes], *, pinned_only: bool = False) -> list[bytes]:
        """Return those of the DER `anchors` that a connection needs to trust; `TrustError` where none is left.

        An anchor without a pinned key is left out where every pin is enforced at the root, for a path that ends there
        would be refused; any other pin might match further down a path under any anchor. Fewer anchors cost less
        memory and fail earlier (under TLS 1.2 before the client's certificate is sent). With `pinned_only` such
        anchors are left out always: that trust store is defined by the pins.
        """
        anchors = list(anchors)
        sound = self.refuses and all(pin.at == "root" for pin in self.pins)
        if sound or pinned_only:
            wanted = {pin.spki for pin in self.pins}
            anchors = [anchor for anchor in anchors if _pin_or_none(anchor) in wanted]
        if not anchors:
            raise TrustError(
                "no trust anchor is left to verify the server with: add the CA that the pins name, or correct the pins"
            )
        return anchors


def parse_pin(text: str, at: PinPosition = "any") -> Pin:
    """Return the pin that `text` spells, `sha256/<base64>` or curl's `sha256//<base64>`, or raise `ConfigError`."""
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


def pinning(
    mode: PinMode,
    pins: Iterable[Pin],
    *,
    expires: datetime.date | None = None,
    credential_without_pin: bool = False,
) -> Pinning:
    """Return the predicate for one upstream, or raise `ConfigError` for pins that could never do what `mode` says."""
    pins = tuple(dict.fromkeys(pins))
    if mode == "enforce" and not pins:
        raise ConfigError('pins with mode = "enforce" need at least one pin; without pins say mode = "off"')
    return Pinning(mode=mode, pins=pins, expires=expires, credential_without_pin=credential_without_pin)


def _places(index: int, length: int) -> tuple[PinPosition, ...]:
    if length == 1:
        return ("leaf", "root")
    if index == 0:
        return ("leaf",)
    return ("root",) if index == length - 1 else ("intermediate",)


def _pin_or_none(certificate: bytes) -> str | None:
    try:
        return spki_pin(certificate)
    except TrustError:
        return None  # no pin can match it, so leaving it out is what narrowing means
