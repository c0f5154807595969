"""SHELL: TLS contexts of listeners of our own: of helpers, and of the supervisor in the place of one.

OpenSSL reads keys from files only, and here a key is never in a file system: it lies in an anonymous memory file, which
is gone before anything is served. Decides nothing about clients: they are not asked for a certificate.
"""

from __future__ import annotations

import os
import ssl
from typing import NoReturn

from codingagents.trust.errors import ConfigError
from codingagents.trust.vocabulary import Secret


def server_context(chain_pem: str, key_pem: Secret) -> ssl.SSLContext:
    """Return the context that shows `chain_pem`, leaf first; `ConfigError` where chain and key are not a pair."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    number = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with open(number, "wb", closefd=False) as memory:
            memory.write(f"{key_pem.reveal()}\n{chain_pem}".encode())
        context.load_cert_chain(f"/proc/self/fd/{number}", password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else "it is encrypted"
        raise ConfigError(f"the certificate of the https listener cannot be used: {reason}") from None
    finally:
        os.close(number)
    return context


def _no_password() -> NoReturn:
    raise ValueError  # OpenSSL would ask a terminal instead
