"""SHELL: TLS contexts of listeners of our own: of helpers, and of the supervisor in the place of one.

Decides nothing about clients: they are not asked for a certificate.
"""

from __future__ import annotations

import ssl

from codingagents.trust.identity import Identity, show
from codingagents.trust.vocabulary import Secret


def server_context(chain_pem: str, key_pem: Secret) -> ssl.SSLContext:
    """Return the context that shows `chain_pem`, leaf first; `ConfigError` where chain and key are not a pair."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    show(context, Identity(Secret(chain_pem), key_pem), "the certificate of the https listener")
    return context
