"""CORE: from a `TlsSpec` to what its pins demand. `upstream_tls` makes the context that holds to it. No I/O."""

from __future__ import annotations

import datetime

from codingagents.rewrite.specs import TlsSpec
from codingagents.trust.errors import ConfigError
from codingagents.trust.pins import Pinning, parse_fingerprint, parse_pin, pinning


def rules_of(tls: TlsSpec) -> Pinning:
    """Return what the pins of `tls` demand; raises `ConfigError` where they cannot do their job."""
    return pinning(
        tls.pin_mode,
        [parse_pin(pin.spki, pin.at) if pin.spki else parse_fingerprint(pin.cert_sha256, pin.at) for pin in tls.pins],
        expires=None if tls.pins_expire is None else _date(tls.pins_expire),
        credential_without_pin=tls.credential_without_pin,
        bypasses={
            anchor: override.name for override in tls.overrides if override.override_pins for anchor in override.anchors
        },
    )


def _date(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"pins expire on a date as 2027-03-01, not on {text!r}") from None
