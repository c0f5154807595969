"""A helper takes new trust: the date of the pins is checked, and holds for requests from then on."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
from collections.abc import Iterator

import pytest

from codingagents.proxies.facts_out import FactsOut
from codingagents.proxies.server import Server
from codingagents.rewrite.specs import HelperSpec, PinSpec, RemoteSpec, TlsSpec
from codingagents.trust.errors import ConfigError, TrustError
from codingagents.trust.vocabulary import PinMode, Secret
from pki import make_root

ROOT = make_root()
PINS = [PinSpec(spki=ROOT.pin, at="root"), PinSpec(spki=make_root().pin, at="root", backup=True)]
TODAY = datetime.datetime.now(datetime.UTC).date()
PAST, TO_COME = (str(TODAY + datetime.timedelta(days)) for days in (-2, 30))


def by(expires: str, mode: PinMode = "enforce", anchors: str = ROOT.pem) -> TlsSpec:
    return TlsSpec(
        server_name="localhost", anchors_pem=anchors, store="custom", pin_mode=mode, pins=PINS, pins_expire=expires
    )


@contextlib.contextmanager
def helper(tls: TlsSpec | None) -> Iterator[Server]:
    """Everything behind a helper's socket, which is not opened."""
    remote = RemoteSpec(
        name="srv", scheme="https" if tls else "http", host="localhost", port=443, path="/", tls=tls,
        client_auth=["bearer"],
    )  # fmt: skip
    spec = HelperSpec(remote=remote, uid=1, gid=1, agent_uid=2, listen_port=8080, bearer=Secret("local"), secrets={})
    loop = asyncio.new_event_loop()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.closing(loop), ours, theirs:
        yield Server(loop, spec, FactsOut(loop, ours))


def test_pins_that_are_past_are_not_taken() -> None:
    """Nothing changes then: neither trust, nor date, nor the epoch of connections."""
    with helper(by(TO_COME)) as server:
        former = server.trust
        with pytest.raises(ConfigError, match="past the date on which they expire"):
            server.renew_trust(by(PAST))
        assert server.trust is former
        assert (server.config.refusal(), server.upstream.epoch) == (None, 0)
        with pytest.raises(TrustError):
            server.renew_trust(by(TO_COME, anchors=make_root().pem))
        assert (server.trust, server.upstream.epoch) == (former, 0)
        assert (server.renew_trust(by(TO_COME)).kept, server.upstream.epoch) == (0, 1)  # the control
        assert server.trust is not former


def test_requests_go_by_the_date_of_the_new_pins() -> None:
    """A helper whose pins have ended serves again, once it is told of a new date."""
    with helper(by(PAST)) as server:
        assert server.config.refusal() == "pins_expired"
        server.renew_trust(by(TO_COME))
        assert server.config.refusal() is None


def test_the_date_of_pins_that_are_off_counts_for_nothing() -> None:
    """And may be past."""
    with helper(by(TO_COME)) as server:
        server.renew_trust(by(PAST, "off"))
        assert server.config.refusal() is None


def test_over_plain_http_there_is_no_trust_to_take() -> None:
    with helper(None) as server, pytest.raises(ConfigError, match="nothing to trust"):
        server.renew_trust(by(TO_COME))
