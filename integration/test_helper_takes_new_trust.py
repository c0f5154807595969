"""New anchors, pins and client certificates for a running, confined helper; judged by what its server received."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import pki
from codingagents.rewrite.specs import ClientCertificate, NewSecrets, NewTrust, OverrideSpec, Ping, PinSpec, TlsSpec
from codingagents.trust import facts
from codingagents.trust.der import certificate_sha256
from codingagents.trust.vocabulary import PinMode, Secret
from helper_rig import PATIENCE, TOKEN, Helper, Zygote, ask, closing_children, code, read_all, read_response, status
from scripted_upstream import NAME, Exchange, Upstream, answer_ok

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="helpers take UIDs of their own: needs root")

CREDENTIAL = f"Authorization: Bearer {TOKEN}".encode()


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with closing_children(), Zygote() as started:
        yield started


class Changing(Upstream):
    """A server that shows the certificate `shown` to whoever connects now; GETs get a stream that goes on for ever."""

    def __init__(self, clients: pki.Issued | None = None) -> None:
        super().__init__(self._answer)
        self.one, self.other = self.intermediate.issue((NAME,)), self.root.issue_ca("Other").issue((NAME,))
        self.shown = self.one
        self.streams: list[Exchange] = []
        self.certificates: list[str] = []  # SHA-256 of what clients showed
        self._clients = clients

    def _context(self) -> ssl.SSLContext:
        contexts = {each.pin: self._of(each) for each in (self.one, self.other)}
        outer = self._of(self.one)

        def choose(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = contexts[self.shown.pin]

        outer.sni_callback = choose
        return outer

    def _of(self, identity: pki.Issued) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(identity.key_pem + identity.chain_pem)
            file.flush()
            context.load_cert_chain(file.name)
        if self._clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=self._clients.pem)
        return context

    async def _answer(self, exchange: Exchange) -> None:
        if self._clients is not None:
            shown = exchange.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            self.certificates.append(certificate_sha256(shown))
        if not exchange.head.startswith(b"GET"):
            await answer_ok(exchange)
            return
        self.streams.append(exchange)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        await exchange.send(head + b"d\r\ndata: first\n\n\r\n")
        while await exchange.reader.read(1 << 16):
            pass
        raise ConnectionResetError

    def event(self, number: int, data: bytes) -> None:
        """Send an event on stream `number`."""
        event = b"data: " + data + b"\n\n"
        self.call(lambda: self.streams[number].writer.write(b"%x\r\n%s\r\n" % (len(event), event)))

    def trust(self, *pins: pki.Issued, mode: PinMode = "enforce", **changes: Any) -> TlsSpec:
        tls = self.remote(tls_pins=[PinSpec(spki=pin.pin) for pin in pins], tls_pin_mode=mode).tls
        assert tls is not None
        return TlsSpec(**{name: getattr(tls, name) for name in tls.__struct_fields__} | changes)


@contextlib.contextmanager
def streaming(helper: Helper) -> Iterator[socket.socket]:
    """Yield a client that has the first event of a stream."""
    with helper.connect() as client:
        client.sendall(helper.head("GET /mcp HTTP/1.1", "Accept: text/event-stream"))
        data = b""
        while b"data: first\n\n" not in data:
            piece = client.recv(1 << 16)
            assert piece, data
            data += piece
        yield client


def ended(client: socket.socket) -> bytes:
    """Return what comes until the end of the stream, of whatever kind it is."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(1 << 16):
            data += piece
    return data


def descriptors(helper: Helper) -> int:
    return len(os.listdir(f"/proc/{helper.pid}/fd"))


def connections(helper: Helper) -> int:
    helper.tell(Ping(number=0))
    return helper.fact(facts.Pong).upstream_connections


def renew(helper: Helper, tls: TlsSpec) -> facts.TrustTaken:
    helper.tell(NewTrust(tls=tls))
    return helper.fact(facts.TrustTaken)


@pytest.mark.parametrize(("mode", "state"), [("enforce", "enforced"), ("report", "partial"), ("off", "disabled")])
def test_a_helper_says_what_it_loaded_and_whether_pins_hold(zygote: Zygote, mode: PinMode, state: str) -> None:
    with Changing() as upstream, Helper(zygote, upstream.remote(tls_pin_mode=mode)) as helper:
        assert helper.ready.store_sha256 == hashlib.sha256(upstream.root.pem.encode()).hexdigest()
        (row,) = [row for row in helper.ready.layers if row.layer == "tls_pins"]
        assert row.state == state
        assert row.probe.startswith("a handshake with a wrong pin, before the helper was cloned: refused")
        other, of_other = ("off", "disabled") if mode == "enforce" else ("enforce", "enforced")
        tls = msgspec.structs.replace(upstream.trust(upstream.one), pin_mode=other)
        assert [(row.layer, row.state) for row in renew(helper, tls).layers] == [("tls_pins", of_other)]


def test_a_healthy_stream_goes_on_and_one_that_is_refused_ends_at_once_under_load(zygote: Zygote) -> None:
    """No request of the load fails, none goes on a connection of the former trust, and nothing is left open."""
    with Changing() as upstream:
        remote = upstream.remote(tls_pins=[PinSpec(spki=upstream.one.pin), PinSpec(spki=upstream.other.pin)])
        with Helper(zygote, remote) as helper:
            assert status(ask(helper, helper.head(length=0))) == 200
            before = descriptors(helper)
            with streaming(helper) as healthy:
                upstream.shown = upstream.other
                with streaming(helper) as refused:
                    upstream.shown = upstream.one
                    over = threading.Event()
                    answers: queue.Queue[int] = queue.Queue()
                    seen = []

                    def load() -> None:
                        with helper.connect() as client:
                            while not over.is_set():
                                client.sendall(helper.head(length=0))
                                answers.put(status(read_response(client)))

                    threads = [threading.Thread(target=load) for _ in range(4)]
                    for thread in threads:
                        thread.start()
                    seen += [answers.get(timeout=PATIENCE) for _ in range(100)]
                    taken = renew(helper, upstream.trust(upstream.one))
                    assert (taken.problem, taken.closed) == (None, 1)
                    assert taken.kept >= 1
                    rest = ended(refused)
                    assert b"0\r\n\r\n" not in rest  # never a clean end of its chunks
                    seen += [answers.get(timeout=PATIENCE) for _ in range(answers.qsize() + 100)]
                    over.set()
                    for thread in threads:
                        thread.join()
                upstream.event(0, b"still here")
                assert b"data: still here\n\n" in healthy.recv(1 << 16)
                received = [bytes(record) for record in upstream.received]
            assert set(seen) == {200}
            assert upstream.lost.wait(10)
            stream = next(record for record in received if record.startswith(b"GET"))
            assert stream.count(CREDENTIAL) == 1  # nothing more was asked on it
            assert connections(helper) <= 4 + 1
            # Each of the load's connections is idle, and closed by a last renewal.
            assert renew(helper, upstream.trust(upstream.one)).problem is None
            until = time.monotonic() + PATIENCE
            while connections(helper):
                assert time.monotonic() < until
            assert descriptors(helper) <= before


def test_the_control_of_the_refused_stream(zygote: Zygote) -> None:
    """By pins that still hold the other key, both streams live on."""
    with Changing() as upstream:
        remote = upstream.remote(tls_pins=[PinSpec(spki=upstream.one.pin), PinSpec(spki=upstream.other.pin)])
        with Helper(zygote, remote) as helper, streaming(helper):
            upstream.shown = upstream.other
            with streaming(helper) as client:
                taken = renew(helper, upstream.trust(upstream.other, upstream.one))
                assert (taken.kept, taken.closed, taken.problem) == (2, 0, None)
                upstream.event(1, b"both")
                assert b"data: both\n\n" in client.recv(1 << 16)


def test_requests_go_by_the_new_pins_from_then_on(zygote: Zygote) -> None:
    """The server of the former pins gets nothing; and when they come back, it is served again."""
    with Changing() as upstream, Helper(zygote, upstream.remote(tls_pins=[PinSpec(spki=upstream.one.pin)])) as helper:
        with helper.connect() as client:
            client.sendall(helper.head(length=0))
            assert status(read_response(client)) == 200
            assert helper.fact(facts.UpstreamTrusted).pins == [upstream.one.pin]
            first = renew(helper, upstream.trust(upstream.other))
            assert first.problem is None
            client.sendall(helper.head(length=0))
            assert code(read_response(client)) == "pin_mismatch"
            assert helper.fact(facts.PinMismatch).refused
        assert len(upstream.received) == 1
        upstream.shown = upstream.other
        assert status(ask(helper, helper.head(length=0))) == 200
        assert helper.fact(facts.UpstreamTrusted).pins == [upstream.other.pin]
        assert [record.count(CREDENTIAL) for record in upstream.received] == [1, 1]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"anchors_pem": ""}, "no trust anchor is left"),
        ({"anchors_pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, ""),
        ({"pins": []}, "need at least one pin"),
        ({"pins": [PinSpec(spki="sha256/x")]}, "sha256/"),
        ({"pins_expire": "2020-01-01"}, "past the date on which they expire"),
        ({"pins_expire": "soon"}, "expire on a date"),
        ({"client_certificate": ClientCertificate(chain="C", key="K")}, "needs the secret C"),
    ],
)
def test_a_set_that_cannot_be_used_is_refused_and_the_former_stays(
    zygote: Zygote, bad: dict[str, Any], problem: str
) -> None:
    """It goes on serving, the stream and new requests; the answer has the hash of what holds."""
    with Changing() as upstream, Helper(zygote, upstream.remote(tls_pins=[PinSpec(spki=upstream.one.pin)])) as helper:
        with streaming(helper) as client:
            taken = renew(helper, upstream.trust(upstream.one, **bad))
            assert taken.problem is not None
            assert problem in taken.problem
            assert taken.store_sha256 == helper.ready.store_sha256
            upstream.event(0, b"on")
            assert b"data: on\n\n" in client.recv(1 << 16)
            assert status(ask(helper, helper.head(length=0))) == 200
            assert all(CREDENTIAL in record for record in upstream.received)
        upstream.shown = upstream.other  # the former pins, and not none
        renew(helper, upstream.trust(upstream.one))
        assert code(ask(helper, helper.head(length=0))) == "pin_mismatch"


def test_a_new_date_holds_from_the_next_request_on(zygote: Zygote) -> None:
    """Pins that were past are renewed, without another change and without a new helper."""
    with Changing() as upstream:
        pins = [PinSpec(spki=upstream.one.pin)]
        with Helper(zygote, upstream.remote(tls_pins=pins, tls_pins_expire="2020-01-01")) as helper:
            assert code(ask(helper, helper.head(length=0))) == "pins_expired"
            assert renew(helper, upstream.trust(upstream.one, pins_expire="9000-01-01")).problem is None
            assert status(ask(helper, helper.head(length=0))) == 200


def test_the_credential_goes_by_the_new_rules_at_the_next_request(zygote: Zygote) -> None:
    """Withheld in mode report, on a connection that would have had it; attached again when a pin is enforced."""
    with Changing() as upstream, Helper(zygote, upstream.remote(tls_pins=[PinSpec(spki=upstream.one.pin)])) as helper:
        wrong = pki.make_root("Nobody's")
        override = OverrideSpec(name="corp", anchors=[certificate_sha256(upstream.root.der)], override_pins=True)
        steps = [
            (upstream.trust(upstream.one, mode="report"), "withheld", 0),
            (upstream.trust(upstream.one), "pinned", 1),
            (upstream.trust(wrong, overrides=[override]), "withheld", 0),
            (upstream.trust(wrong, overrides=[override], credential_without_pin=True), "without-pin", 1),
            (upstream.trust(mode="off"), "withheld", 0),
            (upstream.trust(mode="off", credential_without_pin=True), "without-pin", 1),
            (upstream.trust(wrong, mode="report", credential_without_pin=True), "without-pin", 1),
        ]
        with helper.connect() as client:
            for tls, rule, attached in steps:
                assert renew(helper, tls).problem is None
                for _ in range(2):
                    client.sendall(helper.head(length=0))
                    assert status(read_response(client)) == 200
                assert helper.fact(facts.UpstreamTrusted).credential == rule
                assert upstream.received[-1].count(CREDENTIAL) == 2 * attached
        assert len(upstream.received) == len(steps)


CLIENTS = pki.make_root("Clients")


def shown(identity: pki.Issued) -> dict[str, Secret]:
    return {"TOKEN": Secret(TOKEN), "C": Secret(identity.chain_pem), "K": Secret(identity.key_pem)}


def test_a_client_certificate_is_renewed_in_a_confined_helper(zygote: Zygote) -> None:
    """By new secrets and by new trust; a pair that does not fit is refused, and the former is shown."""
    first, second = CLIENTS.issue(("client",)), CLIENTS.issue(("client",))
    hashes = [certificate_sha256(each.der) for each in (first, second)]
    with Changing(CLIENTS) as upstream:
        certificate = ClientCertificate(chain="C", key="K")
        remote = upstream.remote(tls_pins=[PinSpec(spki=upstream.one.pin)], tls_client_certificate=certificate)
        with Helper(zygote, remote, secrets=shown(first)) as helper, streaming(helper) as client:
            helper.tell(NewSecrets(secrets=shown(first) | {"K": Secret(second.key_pem)}))
            assert "client certificate" in str(helper.fact(facts.SecretsTaken).problem)
            assert status(ask(helper, helper.head(length=0))) == 200
            helper.tell(NewSecrets(secrets=shown(second)))
            assert helper.fact(facts.SecretsTaken).problem is None
            assert status(ask(helper, helper.head(length=0))) == 200
            upstream.event(0, b"on")
            assert b"data: on\n\n" in client.recv(1 << 16)
            renewed = upstream.trust(upstream.one, client_certificate=certificate)
            assert renew(helper, renewed).problem is None
            assert status(ask(helper, helper.head(length=0))) == 200
    assert upstream.certificates == [hashes[0], hashes[0], hashes[1], hashes[1]]


@pytest.mark.parametrize("mode", ["report", "off"])
def test_no_client_certificate_is_shown_without_an_enforced_pin(zygote: Zygote, mode: PinMode) -> None:
    """Such rules are refused, at the start and later; it is a credential like another."""
    first = CLIENTS.issue(("client",))
    with Changing(CLIENTS) as upstream:
        certificate = ClientCertificate(chain="C", key="K")
        remote = upstream.remote(tls_pins=[PinSpec(spki=upstream.one.pin)], tls_client_certificate=certificate)
        with Helper(zygote, remote, secrets=shown(first)) as helper:
            weak = upstream.trust(upstream.one, mode=mode, client_certificate=certificate)
            assert "client certificate" in str(renew(helper, weak).problem)
            assert status(ask(helper, helper.head(length=0))) == 200
        lax = upstream.remote(tls_pin_mode=mode, tls_client_certificate=certificate)
        with Helper(zygote, lax, start=False) as helper:
            helper.send_spec(lax, secrets=shown(first))
            assert b"client certificate" in read_all(helper.channel)
            assert helper.wait() == 1
    assert len(upstream.certificates) == 1
