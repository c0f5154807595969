"""CORE: the local gate: is this caller one that the helper serves? Nothing upstream is contacted before it says yes.

Decides from a parsed head and from what the kernel said about the peer; does no I/O and no parsing. Every refusal is
a code of `answers.ANSWERS`. The checks stand in the order of what they give away: a web page (DNS rebinding) learns
nothing about the bearer, another user nothing about the paths.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence

from codingagents.proxies.heads import RequestForm, RequestHead
from codingagents.proxies.targets import climbs, is_well_known
from codingagents.rewrite.specs import ClientAuth, Listen
from codingagents.trust.vocabulary import Secret

_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_LOCALHOST = re.compile(rb"localhost:[0-9]{1,5}")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SCHEME = b"bearer "
MAX_ENDPOINTS = 256  # a server may name one per session


class Gate:
    """The gate of one helper."""

    def __init__(self, port: int, bearer: Secret, client_auth: Sequence[ClientAuth], listen: Listen = "http") -> None:
        """Serve callers that name `port`, and for whom everything in `client_auth` holds.

        On a unix socket there is no port, and no web page: Host is `localhost` with any port or none (clients put there
        what their URL says), and an Origin is always another one.
        """
        self._any_port = listen == "unix"
        if self._any_port:
            self._hosts = frozenset({b"localhost"})
            self._origins: frozenset[bytes] = frozenset()
        else:
            authorities = [f"{host}:{port}" for host in _HOSTS]
            authorities += _HOSTS if port == _DEFAULT_PORTS[listen] else ()
            self._hosts = frozenset(authority.encode("ascii") for authority in authorities)
            self._origins = frozenset(listen.encode("ascii") + b"://" + host for host in self._hosts)
        self._bearer = bearer.reveal().encode("utf-8")
        self._usual = b"Bearer " + self._bearer
        self._wants_bearer = "bearer" in client_auth
        self.wants_uid = "uid" in client_auth
        # The last form that passed. The bearer is in it, and a head is given it only where all its lines are the same,
        # by hashes under a key that is nobody's to know: how long that takes says nothing about half a bearer.
        self._let_through: RequestForm | None = None

    def check(self, head: RequestHead, peer_allowed: bool) -> str | None:
        """Return None to let the request through, or the code of its refusal."""
        form = head.form
        if form is self._let_through and (peer_allowed or not self.wants_uid):
            return None
        if form.host not in self._hosts and not (self._any_port and _LOCALHOST.fullmatch(form.host)):
            return "host_refused"
        if form.other_site or (form.origin is not None and form.origin not in self._origins):
            return "origin_refused"
        if self.wants_uid and not peer_allowed:
            return "uid_refused"
        if form.path_refusal == "well_known":
            return "well_known"
        if self._wants_bearer and not self._holds_bearer(form.authorization):
            return "bearer_refused"
        if form.path_refusal is None:
            self._let_through = form
        return form.path_refusal

    def _holds_bearer(self, authorization: bytes | None) -> bool:
        if authorization is None:
            return False
        if hmac.compare_digest(authorization, self._usual):
            return True
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            return False
        return hmac.compare_digest(authorization[len(_SCHEME) :].strip(b" "), self._bearer)


class Route:
    """The one part of the upstream that a helper's credential is for."""

    def __init__(self, path: str, *, legacy: bool) -> None:
        """`path` is that of the server's URL, query allowed: it and everything beneath it is the route.

        A `legacy` server, which speaks HTTP with SSE, names where to post later: there the route is the path alone, and
        what `learn` is told.
        """
        self._path = path.split("?", 1)[0].encode("ascii").removesuffix(b"/")
        self._beneath = None if legacy else self._path + b"/"
        self._learned: dict[bytes, None] = {}  # in the order of learning

    def learn(self, path: bytes) -> bool:
        """Add an endpoint; return whether it is new. The oldest is forgotten for one too many."""
        path = path.removesuffix(b"/")
        if path in self._learned:
            return False
        if len(self._learned) == MAX_ENDPOINTS:
            del self._learned[next(iter(self._learned))]
        self._learned[path] = None
        return True

    def judge(self, target: bytes) -> str | None:
        """Return None where `target`, an origin-form request target, is on the route, else a code.

        A slash at the end makes no other path: frameworks redirect from one spelling to the other.
        """
        path = target.split(b"?", 1)[0]
        if is_well_known(path):
            return "well_known"
        if climbs(path):
            return "bad_path"
        bare = path.removesuffix(b"/")
        if bare == self._path or bare in self._learned:
            return None
        return None if self._beneath is not None and path.startswith(self._beneath) else "outside_route"
