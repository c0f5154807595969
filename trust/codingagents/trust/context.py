"""SHELL: TLS client contexts that refuse a wrong server before a byte of any request, credential or body is sent.

OpenSSL verifies the chain and the name as ever; then, inside the handshake call and before anybody hears of a
connection, the verified path is shown to the `Pinning` of the upstream. Helpers, asyncio and uvloop build their TLS
objects with `wrap_bio`, from `sslobject_class`, so every route (direct, CONNECT, next address) passes here. Everything
fails closed: no path, a resumed session or any surprise is a certificate error. Nothing is read from the environment
or a default store. It does no socket I/O and knows no clock (whoever sends asks `Pinning.expired`).

A client certificate is a credential that TLS itself sends, under TLS 1.2 before a path can be shown to anybody. So it
is put only into a context whose anchors let no other path through (`Pinning.closed_by`), or that speaks TLS 1.3 only,
where the client's last words wait for the check.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codingagents.trust.der import certificate_sha256, not_after, self_issued
from codingagents.trust.errors import ConfigError, TrustError
from codingagents.trust.identity import Identity, show
from codingagents.trust.pem import parse_pem
from codingagents.trust.pins import PinMatch, PinMismatchError, Pinning, VerifiedPath, verified_path
from codingagents.trust.vocabulary import MinVersion, Store

_NOT_CHECKED = "the connection's certificate path was not checked"
_MIN_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_ALLOWED_VERSIONS = {ssl.TLSVersion.TLSv1_2: ("TLSv1.2", "TLSv1.3"), ssl.TLSVersion.TLSv1_3: ("TLSv1.3",)}
# X509_V_ERR_*: what OpenSSL says where no path ends in an anchor: UNABLE_TO_GET_ISSUER_CERT,
# DEPTH_ZERO_SELF_SIGNED_CERT, SELF_SIGNED_CERT_IN_CHAIN, UNABLE_TO_GET_ISSUER_CERT_LOCALLY.
_NO_ANCHOR = frozenset({2, 18, 19, 20})
# From PATHLEN_INVALID_FOR_NON_CA to EC_KEY_EXPLICIT_PARAMS: what VERIFY_X509_STRICT adds, extensions most of all.
_NOT_STRICT = range(80, 95)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTrust:
    """Why an established connection is trusted, and under which rules it was made."""

    match: PinMatch | None  # None where pins are off
    path: VerifiedPath
    anchored_by: str  # "host", "certifi", "custom", "pinned-only", or "override NAME"
    leaf_not_after: str  # RFC 3339, UTC
    tls_version: str  # "TLSv1.2" or "TLSv1.3"
    server_name: str
    allows_credential: bool
    strict_x509: bool
    identity: str | None  # fingerprint of the client certificate

    @property
    def anchor_sha256(self) -> str:
        """The SHA-256 of the anchor in which the path ends, hexadecimal."""
        return self.path.anchor

    @property
    def leaf_sha256(self) -> str:
        """The SHA-256 of the server's certificate, hexadecimal."""
        return self.path.leaf


class PinnedTls(ssl.SSLObject):
    """One connection; the path is checked when the handshake returns, and data passes only after that."""

    context: PinnedContext
    _outgoing: ssl.MemoryBIO
    _trust: PeerTrust | None = None

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
            if context.strict_x509 and error.verify_code in _NOT_STRICT:
                raise _refusal(f"{error.verify_message}, which strict_x509 = true does not allow") from error
            raise
        if self._trust is None:
            try:
                self._trust = self._check()
            except ssl.SSLError:
                self._outgoing.read()  # under TLS 1.3 the client's certificate waits there: nobody is to send it now
                raise

    def _check(self) -> PeerTrust:
        if self.session_reused:
            raise _refusal("the TLS session was resumed, so there is no certificate path to check")
        try:
            chain = verified_chain(self)
            return self.context.judge(chain, server_name=str(self.server_hostname), tls_version=str(self.version()))
        except TrustError as error:
            raise _refusal(str(error)) from error
        except Exception as error:
            # Whatever it is, the caller must see a failed handshake: event loops treat only ssl.SSLError as one.
            raise _refusal(f"the certificate path could not be checked ({type(error).__name__})") from error

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002, ANN401 -- as ssl has it
        """Read decrypted data, on a checked connection only: OpenSSL's own read would do the handshake itself."""
        if self._trust is None:
            raise _refusal(_NOT_CHECKED)
        return ssl.SSLObject.read(self, len, buffer)

    def write(self, data: Any) -> int:  # noqa: ANN401 -- any buffer, as ssl has it
        """Send data, on a checked connection only: OpenSSL's own write would do the handshake itself."""
        if self._trust is None:
            raise _refusal(_NOT_CHECKED)
        return ssl.SSLObject.write(self, data)


class PinnedContext(ssl.SSLContext):
    """A client context for one upstream; make it with `pinned_context`, once, and use it for nothing else."""

    sslobject_class = PinnedTls
    pinning: Pinning
    narrowed: bool  # only anchors that are pinned are trusted
    server_name: str  # that `still_trusts` holds connections to; the check itself is OpenSSL's, for `wrap_bio`'s name
    anchors: frozenset[str]  # SHA-256 of each certificate that a path can end in
    store: Store
    overrides: Mapping[str, str]  # SHA-256 of anchors that were added to the store -> the name of the override
    strict_x509: bool
    identity: str | None  # fingerprint of the client certificate

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> PinnedTls:
        """Return one connection, whose bytes come and go through the two BIOs."""
        connection = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        assert isinstance(connection, PinnedTls)
        connection._outgoing = outgoing  # noqa: SLF001 -- same module
        return connection

    def wrap_socket(self, *_args: object, **_kwargs: object) -> ssl.SSLSocket:
        """Refuse: an `SSLSocket` would skip the check. Use `wrap_bio`, as event loops do."""
        raise RuntimeError("a pinned context makes no SSLSocket, which would skip the pin check; use wrap_bio")

    def judge(self, chain: Sequence[bytes], *, server_name: str, tls_version: str) -> PeerTrust:
        """Return why the DER `chain`, which OpenSSL verified, is trusted; `TrustError` where it is not."""
        path = verified_path(chain)
        match = self.pinning.check(path) if self.pinning.inspects else None
        override = self.overrides.get(path.anchor)
        return PeerTrust(
            match=match,
            path=path,
            anchored_by=self.store if override is None else f"override {override}",
            leaf_not_after=not_after(chain[0]),
            tls_version=tls_version,
            server_name=server_name,
            allows_credential=self.pinning.allows_credential(match),
            strict_x509=self.strict_x509,
            identity=self.identity,
        )

    def still_trusts(self, trust: PeerTrust) -> bool:
        """Whether a connection of another context, trusted for `trust`, would be one of this context too.

        What the two decide about the credential may differ: whoever lets the connection live on, to finish what was
        begun, sends no further request on it.
        """
        if trust.path.anchor not in self.anchors or trust.server_name != self.server_name:
            return False
        if trust.tls_version not in _ALLOWED_VERSIONS[self.minimum_version]:
            return False
        if (self.strict_x509 and not trust.strict_x509) or self.identity != trust.identity:
            return False
        try:
            self.pinning.check(trust.path)
        except PinMismatchError:
            return False
        return True


def pinned_context(
    anchors_pem: str,
    pinning: Pinning,
    *,
    server_name: str = "",
    min_version: MinVersion = "1.2",
    store: Store = "custom",
    overrides: Mapping[str, str] | None = None,
    roots: Mapping[str, Collection[str]] | None = None,
    strict_x509: bool = False,
    identity: Identity | None = None,
) -> PinnedContext:
    """Return the context that trusts the certificates of `anchors_pem` (all of them, and nothing else).

    With the store "pinned-only" it keeps only anchors that are pinned, intermediate CAs among them; so does, without
    being asked, a pinning whose pins all stand at the root (`Pinning.narrow`). `overrides` maps the SHA-256 of anchors
    that were added to the store to the names that they were added under; `roots` has the SHA-256 of the roots that came
    under a name, also of those that the store had anyway. `strict_x509`: as RFC 5280 has it, to the letter. `identity`
    is shown to the server, if it asks.

    Raises `TrustError` where no usable anchor is left, and `ConfigError` where `identity` is no pair, or would be shown
    to a server without a pin although the pinning allows that to no credential.
    """
    overrides = overrides or {}
    given = parse_pem(anchors_pem)
    anchors = pinning.narrow(given, pinned_only=store == "pinned-only")
    context = PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.pinning = pinning
    context.narrowed = pinning.refuses and len(anchors) < len(given)
    context.server_name = server_name
    context.minimum_version = _MIN_VERSIONS[min_version]
    context.store = store
    context.overrides = overrides
    context.strict_x509 = strict_x509
    context.identity = None if identity is None else identity.fingerprint
    context.hostname_checks_common_name = False
    # A resumed session has no path, a renegotiated one a path that nobody looked at.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    if strict_x509:
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    ends, helps = _added_below_a_root(anchors, overrides, roots or {})
    if store == "pinned-only" or ends:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN:
        anchors = [anchor for anchor in anchors if anchor not in helps]
    try:
        context.load_verify_locations(cadata=b"".join(anchors))
    except ssl.SSLError as error:
        raise TrustError(f"a trust anchor cannot be used: {error.reason}") from None
    anywhere = context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    context.anchors = frozenset(certificate_sha256(each) for each in anchors if anywhere or self_issued(each))
    if identity is not None:
        _show(context, identity, anchors)
    return context


def _show(context: PinnedContext, identity: Identity, anchors: Sequence[bytes]) -> None:
    if not context.pinning.may_show_certificate:
        raise ConfigError(
            "the client certificate would be shown to a server without a pin, since pins are not enforced, or an "
            "override bypasses them; set credential_without_pin = true if that is meant"
        )
    if not context.pinning.closed_by(anchors):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    show(context, identity, "the client certificate")


def _added_below_a_root(
    anchors: Sequence[bytes], overrides: Mapping[str, str], roots: Mapping[str, Collection[str]]
) -> tuple[set[bytes], set[bytes]]:
    """Return which of `anchors` were added although they are no roots: without their root, and together with it.

    OpenSSL trusts the first only if it is told to. The second help to find the path to their root, which must not end
    at them: what the root says of those below it (names, depth) would count for nothing. So it is where the store had
    the root anyway; a root that is no anchor, since it is not pinned, counts for nothing here.
    """
    here = {certificate_sha256(anchor): anchor for anchor in anchors}
    added = {here[digest]: overrides[digest] for digest in here.keys() & overrides.keys()}
    rooted = {name for anchor, name in added.items() if self_issued(anchor)}
    rooted |= {name for name, digests in roots.items() if not here.keys().isdisjoint(digests)}
    below = {anchor for anchor in added if not self_issued(anchor)}
    helps = {anchor for anchor in below if added[anchor] in rooted}
    return below - helps, helps


def peer_trust(connection: ssl.SSLObject) -> PeerTrust:
    """Return why an established connection is trusted, or raise `ssl.SSLCertVerificationError` where none stands.

    A credential may be attached where its `allows_credential` says so.
    """
    trust = connection._trust if isinstance(connection, PinnedTls) else None  # noqa: SLF001 -- same module
    if trust is None:
        raise _refusal(_NOT_CHECKED)
    return trust


def checked_io(connection: PinnedTls) -> tuple[Callable[[int], bytes], Callable[[bytes | memoryview], int]]:
    """Return `read` and `write` of a connection whose path was checked, or raise `ssl.SSLCertVerificationError`.

    They are those of the C object below, for the hot path: `PinnedTls` asks on every call what cannot change any more,
    since nothing is renegotiated. `read(n)` returns b"" once the peer has ended the stream in order.
    """
    if connection._trust is None:  # noqa: SLF001 -- same module
        raise _refusal(_NOT_CHECKED)
    inner: Any = connection._sslobj  # type: ignore[attr-defined]  # noqa: SLF001 -- typeshed does not know it
    return inner.read, inner.write


def verified_chain(connection: ssl.SSLObject) -> list[bytes]:
    """Return the path that OpenSSL verified on this connection, leaf first, as DER; empty where there is none.

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
