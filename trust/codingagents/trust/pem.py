"""CORE: the certificates of a PEM text (RFC 7468). Nothing is verified here. No I/O."""

from __future__ import annotations

import binascii
import re

from codingagents.trust.errors import ConfigError

# Private keys and OpenSSL's "TRUSTED CERTIFICATE" blocks beside them are passed over.
_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\\s]*)-----END CERTIFICATE-----", re.ASCII)


def parse_pem(text: str) -> list[bytes]:
    """Return the certificates of a PEM text as DER, or raise `ConfigError` for a block that is not base64."""
    try:
        return [binascii.a2b_base64(block) for block in _CERTIFICATE.findall(text)]
    except binascii.Error:
        raise ConfigError("a CERTIFICATE block is not base64; export the CA certificates again as PEM") from None
