"""SHELL: from a `TlsSpec` to the TLS context of an upstream: the same for a helper and for whoever tries.

Decides nothing by itself: `trust.pins` and `trust.context` do. Opens no file and makes no connection.
"""

from __future__ import annotations

from collections.abc import Mapping

from codingagents.rewrite.pin_rules import rules_of
from codingagents.rewrite.specs import ClientCertificate, TlsSpec
from codingagents.trust.context import PinnedContext, pinned_context
from codingagents.trust.errors import ConfigError
from codingagents.trust.identity import Identity
from codingagents.trust.vocabulary import Secret


def upstream_context(tls: TlsSpec, secrets: Mapping[str, Secret]) -> PinnedContext:
    """Return the upstream's TLS context; `secrets` holds the client certificate's, perhaps among others.

    Raises `ConfigError` or `TrustError` where pins, anchors or client certificate cannot do their job.
    """
    return pinned_context(
        tls.anchors_pem,
        rules_of(tls),
        server_name=tls.server_name,
        min_version=tls.min_version,
        store=tls.store,
        # An override that bypasses pins comes last: where an anchor is of two, that is the one to name.
        overrides={
            anchor: override.name
            for override in sorted(tls.overrides, key=lambda override: override.override_pins)
            for anchor in override.anchors
        },
        roots={override.name: override.roots for override in tls.overrides},
        strict_x509=tls.strict_x509,
        identity=None if tls.client_certificate is None else _identity(tls.client_certificate, secrets),
    )


def _identity(certificate: ClientCertificate, secrets: Mapping[str, Secret]) -> Identity:
    for name in (certificate.chain, certificate.key):
        if name not in secrets:
            raise ConfigError(f"the client certificate needs the secret {name}, which was not given")
    return Identity(secrets[certificate.chain], secrets[certificate.key])
