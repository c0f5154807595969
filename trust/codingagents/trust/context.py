"""SHELL: TLS client contexts that refuse a wrong server before a byte of any request, credential or body is sent.

OpenSSL verifies the chain and the name as ever; then, inside the handshake call and before anybody hears of a
connection, the verified path is shown to the `Pinning` of the upstream. Helpers, asyncio and uvloop build their TLS
objects with `wrap_bio`, from `sslobject_class`, so every route (direct, CONNECT, next address) passes here. Everything
fails closed: no path, a resumed session or any surprise is a certificate error. Nothing is read from the environment
or a default store. It does no socket I/O, knows no clock (whoever sends asks `Pinning.expired`) and presents no client
certificate.
"""

from __future__ import annotations

import binascii
import re
import ssl
import sys
from collections.abc import Callable
from typing import Any

from codingagents.trust.errors import ConfigError, TrustError
from codingagents.trust.pins import PinMatch, PinMismatchError, Pinning
from codingagents.trust.vocabulary import MinVersion

_NOT_CHECKED = "the connection's certificate path was not checked"
_MIN_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
# X509_V_ERR_*: what OpenSSL says where no path ends in an anchor: UNABLE_TO_GET_ISSUER_CERT,
# DEPTH_ZERO_SELF_SIGNED_CERT, SELF_SIGNED_CERT_IN_CHAIN, UNABLE_TO_GET_ISSUER_CERT_LOCALLY.
_NO_ANCHOR = frozenset({2, 18, 19, 20})
# RFC 7468; private keys and OpenSSL's "TRUSTED CERTIFICATE" blocks beside them are passed over.
_PEM = re.compile("-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\\s]*)-----END CERTIFICATE-----", re.ASCII)


class PinnedTls(ssl.SSLObject):
    """One connection; the path is checked when the handshake returns, and data passes only after that."""

    context: PinnedContext
    _match: PinMatch | None = None
    _passed = False

    def do_handshake(self) -> None:
        """Do the handshake and check the path; a refusal is `ssl.SSLCertVerificationError`.

        Where pins are the reason, its `__cause__` is a `PinMismatchError`.
        """
        context = self.context
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            if context.narrowed and error.verify_code in _NO_ANCHOR:
                mismatch = PinMismatchError(context.pinning.expected, ("a path to none of the pinned anchors",))
                raise _refusal(str(mismatch)) from mismatch
            raise
        if not self._passed and context.pinning.inspects:
            self._match = self._check()
        self._passed = True

    def _check(self) -> PinMatch:
        if self.session_reused:
            raise _refusal("the TLS session was resumed, so there is no certificate path to check")
        try:
            return self.context.pinning.check(_verified_path(self))
        except TrustError as error:
            raise _refusal(str(error)) from error
        except Exception as error:
            # Whatever it is, the caller must see a failed handshake: event loops treat only ssl.SSLError as one.
            raise _refusal(f"the certificate path could not be checked ({type(error).__name__})") from error

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002, ANN401 -- as ssl has it
        """Read decrypted data, on a checked connection only: OpenSSL's own read would do the handshake itself."""
        if not self._passed:
            raise _refusal(_NOT_CHECKED)
        return ssl.SSLObject.read(self, len, buffer)

    def write(self, data: Any) -> int:  # noqa: ANN401 -- any buffer, as ssl has it
        """Send data, on a checked connection only: OpenSSL's own write would do the handshake itself."""
        if not self._passed:
            raise _refusal(_NOT_CHECKED)
        return ssl.SSLObject.write(self, data)


class PinnedContext(ssl.SSLContext):
    """A client context for one upstream; make it with `pinned_context`, once, and use it for nothing else."""

    sslobject_class = PinnedTls
    pinning: Pinning
    narrowed: bool  # only anchors with a pinned key are trusted

    def wrap_socket(self, *_args: object, **_kwargs: object) -> ssl.SSLSocket:
        """Refuse: an `SSLSocket` would skip the check. Use `wrap_bio`, as event loops do."""
        raise RuntimeError("a pinned context makes no SSLSocket, which would skip the pin check; use wrap_bio")


def pinned_context(
    anchors_pem: str, pinning: Pinning, *, min_version: MinVersion = "1.2", pinned_only: bool = False
) -> PinnedContext:
    """Return the context that trusts the certificates of `anchors_pem` (all of them, and nothing else).

    `pinned_only` keeps only anchors with a pinned key, intermediate CAs among them; so does, without being asked,
    a pinning whose pins all stand at the root (`Pinning.narrow`). Raises `TrustError` where no usable anchor is left.
    """
    given = parse_pem(anchors_pem)
    anchors = pinning.narrow(given, pinned_only=pinned_only)
    context = PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.pinning = pinning
    context.narrowed = pinning.refuses and len(anchors) < len(given)
    context.minimum_version = _MIN_VERSIONS[min_version]
    context.hostname_checks_common_name = False
    # A resumed session has no path, a renegotiated one a path that nobody looked at.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    if pinned_only:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=b"".join(anchors))
    except ssl.SSLError as error:
        raise TrustError(f"a trust anchor cannot be used: {error.reason}") from None
    return context


def pin_match(connection: ssl.SSLObject) -> PinMatch | None:
    """Return what the path of an established connection carried; None where its context does not inspect paths.

    Ask `Pinning.allows_credential` with it before a credential is attached.
    """
    return connection._match if isinstance(connection, PinnedTls) else None  # noqa: SLF001 -- same module


def checked_io(connection: PinnedTls) -> tuple[Callable[[int], bytes], Callable[[bytes | memoryview], int]]:
    """Return `read` and `write` of a connection whose path was checked, or raise `ssl.SSLCertVerificationError`.

    They are those of the C object below, for the hot path: `PinnedTls` asks on every call what cannot change any more,
    since nothing is renegotiated. `read(n)` returns b"" once the peer has ended the stream in order.
    """
    if not connection._passed:  # noqa: SLF001 -- same module
        raise _refusal(_NOT_CHECKED)
    inner: Any = connection._sslobj  # type: ignore[attr-defined]  # noqa: SLF001 -- typeshed does not know it
    return inner.read, inner.write


def parse_pem(text: str) -> list[bytes]:
    """Return the certificates of a PEM text as DER, or raise `ConfigError` for a block that is not base64."""
    try:
        return [binascii.a2b_base64(block) for block in _PEM.findall(text)]
    except binascii.Error:
        raise ConfigError("a CERTIFICATE block is not base64; export the CA certificates again as PEM") from None


def _verified_path(connection: ssl.SSLObject) -> list[bytes]:
    """Return the path that OpenSSL verified, leaf first, as DER; empty where there is none.

    The method is public from Python 3.13; before, the same C method is reached through a private attribute and
    returns certificate objects.
    """
    if sys.version_info >= (3, 13):  # pragma: no cover -- the other branch, on the other interpreter
        return [bytes(each) for each in connection.get_verified_chain() or ()]
    import _ssl  # noqa: PLC0415 -- private to the branch that needs its constant

    inner: Any = connection._sslobj  # type: ignore[attr-defined]  # noqa: SLF001 -- no public getter before 3.13
    return [each.public_bytes(_ssl.ENCODING_DER) for each in inner.get_verified_chain() or ()]


def _refusal(message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(ssl.SSL_ERROR_SSL.value, message)
    error.library, error.reason = "SSL", "CERTIFICATE_VERIFY_FAILED"
    error.verify_code, error.verify_message = 50, message  # X509_V_ERR_APPLICATION_VERIFICATION
    return error
