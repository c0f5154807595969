"""SHELL: a certificate chain and its key, put into a TLS context from memory.

OpenSSL reads keys from files only, and here a key is never in a file system: it passes through a pipe, which OpenSSL
opens by its number below /proc/self/fd. A confined helper can do that too (docs/adr/0018-trust-of-an-upstream.md), for
it has no right to write a file, not even one in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from codingagents.trust.errors import ConfigError
from codingagents.trust.vocabulary import Secret

MAX_BYTES = 64 * 1024  # of chain and key each: what a pipe holds


@dataclass(frozen=True, slots=True)
class Identity:
    """Who one side of a connection says it is, both as PEM."""

    chain: Secret  # leaf first
    key: Secret

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the chain's text, hexadecimal: to tell one identity from another."""
        return hashlib.sha256(self.chain.reveal().encode()).hexdigest()


def show(context: ssl.SSLContext, identity: Identity, what: str) -> None:
    """Let `context` show `identity`; `ConfigError`, which names it as `what`, where chain and key are not a pair."""
    try:
        with _readable(identity.chain, what) as chain, _readable(identity.key, what) as key:
            context.load_cert_chain(chain, key, password=_no_password)
    except (OSError, ValueError):  # an SSLError is an OSError; in a pipe's case Python tells errno and no reason
        raise ConfigError(
            f"{what} cannot be used: chain and key must be PEM, belong together, and the key have no password"
        ) from None


@contextlib.contextmanager
def _readable(text: Secret, what: str) -> Iterator[str]:
    """Lend a path from which `text` can be read, once."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        content = text.reveal().encode()
        try:
            if len(content) > MAX_BYTES or os.write(writing, content) < len(content):
                raise BlockingIOError
        except BlockingIOError:
            raise ConfigError(f"{what} cannot be used: it is over {MAX_BYTES} bytes") from None
        finally:
            os.close(writing)
        yield f"/proc/self/fd/{reading}"
    finally:
        os.close(reading)


def _no_password() -> NoReturn:
    raise ValueError  # OpenSSL would ask a terminal instead
