"""New anchors and pins while connections stand, are made, and are used; on real sockets, with a real TLS server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl

import pytest

from codingagents.proxies import upstream_trust
from codingagents.proxies.connection import Connection
from codingagents.proxies.upstream_trust import Trust
from codingagents.rewrite.specs import OverrideSpec, PinSpec
from codingagents.trust import facts
from codingagents.trust.errors import TrustError
from codingagents.trust.events import CredentialRule
from codingagents.trust.pins import Pin, pinning
from codingagents.trust.vocabulary import MinVersion
from pki import Issued, make_root
from tls_bench import ROOT, Owner, serving, trust_by
from upstream_bench import Bench, Peer, with_upstream

ONE, OTHER = ROOT.issue(), ROOT.issue()
SERVING_ONE, SERVING_OTHER = serving(ONE), serving(OTHER)
STRANGER = make_root("Stranger")


def pinned(*leaves: Issued, roots: tuple[Issued, ...] = (ROOT,), min_version: MinVersion = "1.2") -> Trust:
    return trust_by(
        [PinSpec(spki=leaf.pin, at="leaf") for leaf in leaves], "enforce", roots=roots, min_version=min_version
    )


BOTH = pinned(ONE, OTHER)

BYPASS = [OverrideSpec(name="corp", anchors=[hashlib.sha256(ROOT.der).hexdigest()], override_pins=True)]
WRONG = [PinSpec(spki=STRANGER.pin)]
RIGHT = [PinSpec(spki=ONE.pin, at="leaf"), PinSpec(spki=STRANGER.pin, backup=True)]


async def used(bench: Bench, context: ssl.SSLContext) -> tuple[Connection, Peer, Owner]:
    connection, peer = await bench.dial(context)
    connection.owner = owner = Owner()
    return connection, peer, owner


async def gone(bench: Bench, peer: Peer) -> None:
    """Wait for the end of the server's connection; nothing may come before it."""
    with contextlib.suppress(ConnectionResetError):
        assert await bench.loop.sock_recv(peer.end, 1 << 16) == b""


def test_what_is_in_use_lives_on_exactly_where_the_new_pins_accept_it() -> None:
    """What lives on takes no further request; what is idle takes none either."""

    async def test(bench: Bench) -> None:
        good, peer_of_good, of_good = await used(bench, SERVING_ONE)
        bad, peer_of_bad, of_bad = await used(bench, SERVING_OTHER)
        idle, peer_of_idle = await bench.dial(SERVING_ONE)
        idle.release(None)
        with peer_of_good.end, peer_of_bad.end, peer_of_idle.end:
            assert bench.upstream.renew_trust(pinned(ONE)) == (1, 1)
            assert (of_good.failed, of_bad.failed) == ([], ["trust_withdrawn"])
            bad.close()  # as a relay does then
            await gone(bench, peer_of_bad)
            await gone(bench, peer_of_idle)
            await peer_of_good.write(b"event")
            await bench.settle(lambda: of_good.data == b"event")
            good.write(b"more")
            assert await peer_of_good.read(4) == b"more"
            assert (of_good.ends, of_bad.ends) == ([], [])
            good.release(None)
            assert bench.upstream.take() is None
            await bench.settle(lambda: bench.upstream.open == 0)

    with_upstream(test, BOTH)


@pytest.mark.parametrize(
    ("new", "kept"),
    [
        (BOTH, True),
        (pinned(ONE), True),
        (pinned(ONE, roots=(ROOT, STRANGER)), True),
        (trust_by([PinSpec(spki=ROOT.pin, at="root")], "enforce"), True),
        (trust_by(WRONG, "report"), True),
        (trust_by(), True),
        (pinned(OTHER), False),
        (pinned(ONE, roots=(STRANGER,)), False),
        (pinned(ONE, min_version="1.3"), True),
        (trust_by([PinSpec(spki=ONE.pin)], "enforce", server_name="127.0.0.1"), False),
    ],
)
def test_pins_anchors_and_name_are_all_asked_again(new: Trust, kept: bool) -> None:
    async def test(bench: Bench) -> None:
        connection, peer, owner = await used(bench, SERVING_ONE)
        with peer.end:
            assert bench.upstream.renew_trust(new) == ((1, 0) if kept else (0, 1))
            assert owner.failed == ([] if kept else ["trust_withdrawn"])
            connection.close()

    with_upstream(test, BOTH)


def test_a_lower_version_than_the_new_least_one_is_broken_off() -> None:
    async def test(bench: Bench) -> None:
        connection, peer, _ = await used(bench, serving(ONE, "1.2"))
        with peer.end:
            assert bench.upstream.renew_trust(pinned(ONE, min_version="1.3")) == (0, 1)
            connection.close()

    with_upstream(test, BOTH)


def test_a_handshake_under_way_begins_anew_by_the_new_pins() -> None:
    """The server that only the former ones allow is sent nothing more, not even the end of the handshake."""

    async def test(bench: Bench) -> None:
        dialing = asyncio.ensure_future(bench.upstream.dial())
        there, _ = await bench.loop.sock_accept(bench.server)
        former = Peer(bench.loop, there, SERVING_OTHER)
        with there:
            hello = await bench.loop.sock_recv(there, 1 << 16)
            assert hello
            bench.upstream.renew_trust(pinned(ONE))
            assert await bench.loop.sock_recv(there, 1 << 16) == b""
            again, _ = await bench.loop.sock_accept(bench.server)
            latter = Peer(bench.loop, again, SERVING_ONE)
            with again:
                await latter.do(latter.tls.do_handshake)
                connection = await dialing
                assert connection.trusted
                connection.owner = Owner()
                connection.write(b"request")
                assert await latter.read(7) == b"request"
                connection.close()
        assert former.tls.version() is None

    with_upstream(test, BOTH)


@pytest.mark.parametrize("change", ["trust", "secrets"])
def test_a_connection_that_came_with_the_change_is_made_again(change: str) -> None:
    """It was judged by the former pins; nobody gets it.

    Connections take the time of their birth between the end of the handshake and the moment at which who dialed hears.
    """

    async def test(bench: Bench) -> None:
        upstream = bench.upstream
        then = upstream.begin_epoch if change == "secrets" else lambda: upstream.renew_trust(pinned(ONE))
        bench.sudden.append(lambda: bench.loop.call_soon(then))
        dialing = asyncio.ensure_future(upstream.dial())
        there, _ = await bench.loop.sock_accept(bench.server)
        former = Peer(bench.loop, there, SERVING_OTHER)
        with there:
            await former.do(former.tls.do_handshake)
            again, _ = await bench.loop.sock_accept(bench.server)
            latter = Peer(bench.loop, again, SERVING_ONE)
            with again:
                await latter.do(latter.tls.do_handshake)
                connection = await dialing
                await gone(bench, former)
                assert not bench.sudden
                assert connection.epoch == upstream.epoch == 1
                connection.close()

    with_upstream(test, BOTH)


def test_after_the_change_new_connections_are_judged_by_it() -> None:
    """The control: before it, the same server was accepted."""

    async def test(bench: Bench) -> None:
        async def shake(there: socket.socket) -> None:
            peer = Peer(bench.loop, there, SERVING_OTHER)
            with contextlib.suppress(OSError):
                await peer.do(peer.tls.do_handshake)

        connection, peer = await bench.dial(SERVING_OTHER)
        with peer.end:
            connection.close()
        bench.upstream.renew_trust(pinned(ONE))
        assert (await bench.refused(shake)).code == "pin_mismatch"

    with_upstream(test, BOTH)


@pytest.mark.parametrize(
    ("trust", "anchored_by", "pins", "credential", "allowed"),
    [
        (trust_by(RIGHT, "enforce"), "custom", [f"{ONE.pin} at leaf"], "pinned", True),
        (trust_by(RIGHT, "enforce", attaches=False), "custom", [f"{ONE.pin} at leaf"], "none", True),
        (trust_by(RIGHT, "report"), "custom", [f"{ONE.pin} at leaf"], "withheld", False),
        (trust_by(WRONG, "report"), "custom", [], "withheld", False),
        (trust_by(WRONG, "report", credential_without_pin=True), "custom", [], "without-pin", True),
        (trust_by(), "custom", [], "withheld", False),
        (trust_by(credential_without_pin=True, store="host"), "host", [], "without-pin", True),
        (trust_by(WRONG, "enforce", overrides=BYPASS), "override corp", [], "withheld", False),
        (
            trust_by(WRONG, "enforce", overrides=BYPASS, credential_without_pin=True),
            *("override corp", [], "without-pin", True),
        ),
        (trust_by(RIGHT, "enforce", overrides=BYPASS), "override corp", [f"{ONE.pin} at leaf"], "pinned", True),
    ],
)
def test_why_a_connection_is_trusted_is_told_once(
    trust: Trust, anchored_by: str, pins: list[str], credential: CredentialRule, allowed: bool
) -> None:
    """And whether it may carry the credential is what is done. Where pins are only reported, so is a mismatch."""

    async def test(bench: Bench) -> None:
        connection, peer = await bench.dial(SERVING_ONE)
        with peer.end:
            mismatch = trust.pinning.mode == "report" and not pins
            first, *more = await bench.told(1 + mismatch)
            assert first == facts.UpstreamTrusted(
                address=f"127.0.0.1 port {bench.server.getsockname()[1]}",
                tls_version="TLSv1.3",
                anchored_by=anchored_by,
                anchor_sha256=hashlib.sha256(ROOT.der).hexdigest(),
                leaf_sha256=hashlib.sha256(ONE.der).hexdigest(),
                leaf_not_after=ONE.certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
                pins=pins,
                credential=credential,
            )
            assert connection.trusted is allowed
            seen = [f"{ONE.pin} at leaf", f"{ROOT.pin} at root"]
            reported = facts.PinMismatch(address=first.address, expected=[STRANGER.pin], seen=seen, refused=False)
            assert more == ([reported] if mismatch else [])
            connection.release(None)
            assert bench.upstream.take() is connection  # for another request: nothing is told again
            connection.close()
            bench.upstream._facts.flush()
            bench.facts.setblocking(False)
            with pytest.raises(BlockingIOError):
                bench.facts.recv(1)

    with_upstream(test, trust)


def test_the_text_of_the_anchors_is_let_go() -> None:
    """All that is kept of it is its hash."""
    trust = trust_by()
    assert trust.spec.anchors_pem == ""
    assert trust.store_sha256 == hashlib.sha256(ROOT.pem.encode()).hexdigest()


def test_pins_that_would_let_anything_through_are_not_served_by() -> None:
    """No spelling of a pin leads here: it is the last of several lines."""
    with pytest.raises(TrustError, match="let a path through that carries none of them"):
        upstream_trust._try(pinning("enforce", [Pin("sha256/")]))
