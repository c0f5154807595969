"""What other proxies and clients get wrong with TLS trust, tried against a real, confined helper, judged at the server.

Each attack is tried over TLS 1.2 and 1.3, direct and inside a tunnel of Debian's Squid, with the pin at the leaf, an
intermediate and the root; what counts is what the server received: application bytes, and client certificates. Each
has its control: a client that trusts as peers do (`naive_clients`) or a helper without the rule, which is taken in.

| mistake | shown by |
|---|---|
| a pin replaces verification | `test_an_impostor_…`: another name, an unknown authority, past its time |
| the unverified chain is searched | `test_an_impostor_…`: the genuine certificates appended |
| checked after the request, or after the client certificate | `test_an_impostor_…`: another authority of the store; |
| | `test_whoever_checks_after_the_handshake_…`; tests/unit/trust/test_client_certificates.py |
| redirects are followed | `test_a_redirect_…`; what is followed: test_helper_speaks_the_whole_transport.py |
| SNI and Host disagree | `test_sni_and_host_…`; a wrong Host: test_helper_relays_and_guards_its_credential.py |
| IP literals | `test_an_impostor_…`: the address as a dNSName; `test_the_pinned_server_…`: as an iPAddress |
| wildcards, CN | `test_an_impostor_…`: two labels, no SAN; `test_the_pinned_server_…`: one label; |
| | a host outside the pins' own: tests/unit/rewrite/test_parse_mistakes.py |
| pins expire open | `test_expired_pins_…`; warnings: tests/unit/supervisor/test_expiry.py |
| rotation is an outage | `test_mode_report_…`; test_helper_takes_new_trust.py, test_trust_is_reloaded_….py |
| pooled, resumed connections | `test_after_a_change_of_pins_…`; resumed: tests/unit/trust/test_context.py |
| proxy and trust from the environment | `test_nothing_of_the_environment_…`, `test_helper_run_…` |
| DNS rebinding, SSRF | `test_a_name_is_resolved_once_…`, `test_a_name_that_leads_into_the_machine_…`; |
| | tests/unit/proxies/test_dial.py, tests/unit/rewrite/test_reach.py |
| our own authority is trusted upstream | `test_a_sessions_own_authority_…`; tests/unit/rewrite/test_anchors.py |
| the wrong pin | `test_with_the_wrong_pin_…` |
"""

from __future__ import annotations

import contextlib
import datetime
import http.client
import os
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import naive_clients as naive
import pki
from codingagents.rewrite.specs import (
    ClientCertificate,
    HeaderTemplate,
    LimitsSpec,
    NewTrust,
    OverrideSpec,
    PinSpec,
    RemoteSpec,
    TlsSpec,
)
from codingagents.supervisor import session_ca
from codingagents.trust import facts
from codingagents.trust.der import certificate_sha256
from codingagents.trust.vocabulary import MinVersion, PinPosition, Secret
from foreground_rig import one_request
from helper_rig import TOKEN, Helper, Zygote, ask, closing_children, code, read_response, status
from rebinding_dns import Dns
from squid import Squid
from witness import Witness

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="helpers take UIDs of their own: needs root")

NAME = "upstream.test"
ROOT = pki.make_root("Genuine Root")
CA = ROOT.issue_ca("Genuine CA")
LEAF = CA.issue((NAME,))
KEY = LEAF.key
OTHER = pki.make_root("Other Root")
ROGUE = OTHER.issue_ca("Other CA").issue((NAME,))  # as valid as LEAF, for whoever has no pins
IDLE = pki.make_root("Idle Root")  # signs nothing
UNKNOWN = pki.make_root("Unknown Root")  # in no store
CORPORATE = pki.make_root("Corporate Root")  # an override
STORE = ROOT.pem + OTHER.pem + IDLE.pem
PINNED: dict[PinPosition, pki.Issued] = {"leaf": LEAF, "intermediate": CA, "root": ROOT}
PINS = [each.pin for each in PINNED.values()]

CLIENTS = pki.make_root("Clients")
ME = CLIENTS.issue(("client",))
SECRETS = {"TOKEN": Secret(TOKEN), "C": Secret(ME.chain_pem), "K": Secret(ME.key_pem)}
CREDENTIAL = f"Authorization: Bearer {TOKEN}\r\n".encode()

every_version = pytest.mark.parametrize("version", ["1.2", "1.3"])
every_route = pytest.mark.parametrize("route", ["direct", "CONNECT"])
every_position = pytest.mark.parametrize("at", PINNED)


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with closing_children(), Zygote() as started:
        yield started


@pytest.fixture(scope="module")
def squid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Squid]:
    with Squid(tmp_path_factory.mktemp("squid")) as started:
        yield started


@pytest.fixture
def proxy(route: str, squid: Squid) -> str | None:
    return squid.place if route == "CONNECT" else None


def served(issued: pki.Issued, *more: pki.Issued) -> list[pki.Issued]:
    """Return what a server sends: itself, its issuers without the root, and `more`."""
    return [issued, *issued.issuers, *more]


def pinned(at: PinPosition, issued: pki.Issued | None = None) -> list[PinSpec]:
    return [PinSpec(spki=(issued or PINNED[at]).pin, at=at)]


def remote(
    server: Witness,
    pins: Sequence[PinSpec],
    proxy: str | None = None,
    name: str = NAME,
    *,
    shows: bool = False,
    fields: dict[str, Any] | None = None,
    **tls: Any,
) -> RemoteSpec:
    """Return the spec of a helper for `server`, to which it attaches a bearer; with `shows` a client certificate."""
    if shows:
        tls["client_certificate"] = ClientCertificate(chain="C", key="K")
    given: dict[str, Any] = {
        "name": "srv", "scheme": "https", "host": name, "port": 443, "path": "/mcp",
        "connect_to": f"127.0.0.1:{server.port}", "proxy": proxy,
        "headers": [HeaderTemplate(name="Authorization", template="Bearer ${TOKEN}")],
        "limits": LimitsSpec(connect_seconds=10.0),
        "tls": TlsSpec(**{"server_name": name, "anchors_pem": STORE, "store": "custom", "pins": list(pins)} | tls),
    }  # fmt: skip
    return RemoteSpec(**given | (fields or {}))


def outcome(response: bytes) -> str:
    """Return "200", or the code of the error."""
    return "200" if status(response) == 200 else code(response)


def asked(zygote: Zygote, spec: RemoteSpec) -> str:
    """Ask a fresh helper once, and return the outcome."""
    with Helper(zygote, spec, secrets=SECRETS) as helper:
        return outcome(ask(helper, helper.head(length=4) + b"body"))


@dataclass(frozen=True)
class Attack:
    """A server that is not the pinned one, what the helper says of it, and by which mistake a client takes it."""

    what: str
    chain: Sequence[pki.Issued]
    said: str
    mistake: Callable[[ssl.SSLContext], ssl.SSLContext] = lambda context: context
    accepts: naive.Accepts = naive.anybody
    name: str = NAME


def pin_alone(what: str, *chain: pki.Issued) -> Attack:
    return Attack(what, chain, "tls_untrusted", naive.without_verification, naive.has_sent(PINS))


def names_alone(what: str, san: str, name: str) -> Attack:
    chain = (CA.issue((san,), key=KEY), CA)
    return Attack(what, chain, "tls_untrusted", naive.without_names, naive.names_itself(name), name)


APPENDED = served(ROGUE, LEAF, CA, ROOT)
ATTACKS = [
    Attack("another authority of the store", served(ROGUE), "pin_mismatch"),
    Attack("the genuine certificates appended", APPENDED, "pin_mismatch", accepts=naive.has_sent(PINS)),
    pin_alone("the pinned keys with another name", CA.issue(("other.test",), key=KEY), CA, ROOT),
    pin_alone("the pinned keys under an unknown authority", UNKNOWN.issue((NAME,), key=KEY), UNKNOWN, CA, ROOT),
    pin_alone("the pinned keys past their time", CA.issue((NAME,), key=KEY, expired=True), CA, ROOT),
    Attack("the name as a common name", (CA.issue((), key=KEY), CA), "tls_untrusted", name="localhost"),
    names_alone("two labels under a wildcard", f"*.{NAME}", f"a.b.{NAME}"),
    names_alone("the address as a dNSName", "dns:127.0.0.1", "127.0.0.1"),
]


@every_position
@every_route
@every_version
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.what)
def test_an_impostor_gets_no_byte_and_no_client_certificate(
    zygote: Zygote, proxy: str | None, version: MinVersion, attack: Attack, at: PinPosition
) -> None:
    """Neither from a helper that would show one nor from one that has none; a naive client gives it both."""
    said = {attack.said}
    if at == "root":
        said.add("pin_mismatch")  # no anchor but the pinned one was there to be found
    with Witness(attack.chain, version, asks_for=CLIENTS) as server:
        assert asked(zygote, remote(server, pinned(at), proxy, attack.name)) in said
        if version == "1.2" and at != "root":
            said = {"tls_failed"}  # where TLS itself would show it, it is not spoken
        assert asked(zygote, remote(server, pinned(at), proxy, attack.name, shows=True)) in said
    assert len(server.met) >= 2
    assert (server.data, server.certificates) == (b"", b"")

    with Witness(attack.chain, version, asks_for=CLIENTS) as server:
        mistaken = attack.mistake(naive.context(STORE, ME))
        assert naive.ask(server.port, proxy, mistaken, attack.name, attack.accepts)
    assert server.data == naive.REQUEST
    assert server.was_shown(ME)


@every_position
@every_route
@every_version
@pytest.mark.parametrize("names", [(NAME, NAME), (f"*.{NAME}", f"a.{NAME}"), ("127.0.0.1", "127.0.0.1")])
def test_the_pinned_server_gets_the_request_and_the_client_certificate(
    zygote: Zygote, proxy: str | None, version: MinVersion, at: PinPosition, names: tuple[str, str]
) -> None:
    """By its name, by one label under a wildcard, and by its address, which is no server name and so not sent."""
    san, name = names
    with Witness(served(CA.issue((san,), key=KEY)), version, asks_for=CLIENTS) as server:
        assert asked(zygote, remote(server, pinned(at), proxy, name)) == "200"
        assert CREDENTIAL in server.data
        assert server.certificates == b""
        if version == "1.3" or at == "root":
            assert asked(zygote, remote(server, pinned(at), proxy, name, shows=True)) == "200"
            assert server.was_shown(ME)
    assert {met.asked_for for met in server.met} == {None if name == "127.0.0.1" else name}


@every_route
@every_version
def test_where_pins_are_off_another_authority_is_as_good(
    zygote: Zygote, proxy: str | None, version: MinVersion
) -> None:
    """The control of all that the pins keep: the same helper, told to do without."""
    with Witness(served(ROGUE), version, asks_for=CLIENTS) as server:
        lax = remote(server, [], proxy, shows=True, pin_mode="off", credential_without_pin=True)
        assert asked(zygote, lax) == "200"
    assert CREDENTIAL in server.data
    assert server.was_shown(ME)


@every_route
@every_version
def test_whoever_checks_after_the_handshake_has_shown_the_client_certificate(
    proxy: str | None, version: MinVersion
) -> None:
    """The control of the certificate: a client that looks for its pins at once, and sends no request."""
    with Witness(served(ROGUE), version, asks_for=CLIENTS) as server:
        assert naive.ask(server.port, proxy, naive.context(STORE, ME), NAME, naive.has_sent(PINS)) == b""
    assert server.data == b""
    assert server.was_shown(ME)


OTHERWISE_VALID: dict[str, tuple[list[pki.Issued], str]] = {
    "the genuine one": (served(LEAF), NAME),
    "another authority": (served(ROGUE), NAME),
    "a wildcard": (served(CA.issue((f"*.{NAME}",))), f"a.{NAME}"),
    "an address": (served(CA.issue(("127.0.0.1",))), "127.0.0.1"),
    "an override": (served(CORPORATE.issue((NAME,))), NAME),
}


@every_route
@every_version
@pytest.mark.parametrize("peer", OTHERWISE_VALID)
def test_with_the_wrong_pin_every_otherwise_valid_server_is_refused(
    zygote: Zygote, proxy: str | None, version: MinVersion, peer: str
) -> None:
    """Whoever vouches for it, by whatever name; the control is each of them without the pin."""
    chain, name = OTHERWISE_VALID[peer]
    tls: dict[str, Any] = {
        "anchors_pem": STORE + CORPORATE.pem,
        "overrides": [OverrideSpec(name="corporate", anchors=[certificate_sha256(CORPORATE.der)])],
    }
    with Witness(chain, version) as server:
        for at in PINNED:
            assert asked(zygote, remote(server, pinned(at, IDLE), proxy, name, **tls)) == "pin_mismatch"
        server.settle()
        assert len(server.met) >= len(PINNED)
        assert server.data == b""
        lax = remote(server, [], proxy, name, pin_mode="off", credential_without_pin=True, **tls)
        assert asked(zygote, lax) == "200"
    assert CREDENTIAL in server.data


@every_route
@every_version
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_redirect_leads_to_no_connection(zygote: Zygote, proxy: str | None, version: MinVersion, scheme: str) -> None:
    """Elsewhere on this machine, plain or by TLS; a naive client takes its key there."""
    identity = served(CA.issue((NAME, "127.0.0.1")))
    with Witness(identity, version) as server, Witness(identity if scheme == "https" else ()) as elsewhere:
        place = f"{scheme}://127.0.0.1:{elsewhere.port}/mcp"
        server.answer = f"HTTP/1.1 307 Go\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()
        keyed = remote(
            server, pinned("root"), proxy,
            fields={"headers": [HeaderTemplate(name="X-Api-Key", template="${TOKEN}")]},
        )  # fmt: skip
        with Helper(zygote, keyed) as helper:
            assert code(ask(helper, helper.head(length=0))) == "redirect_refused"
            assert helper.fact(facts.Request).error_type == "redirect_refused"
        assert TOKEN.encode() in server.data
        assert elsewhere.met == []

        proxies = urllib.request.ProxyHandler({} if proxy is None else {"https": proxy})
        opener = urllib.request.build_opener(proxies, urllib.request.HTTPSHandler(context=naive.context(STORE)))
        request = urllib.request.Request(f"https://127.0.0.1:{server.port}/mcp", headers={"X-Api-Key": "naive"})
        with opener.open(request, timeout=naive.PATIENCE) as answer:
            assert answer.status == 200
    assert b"\r\nX-Api-Key: naive\r\n" in elsewhere.data


@every_route
@every_version
def test_sni_and_host_are_the_configurations(zygote: Zygote, proxy: str | None, version: MinVersion) -> None:
    """Whatever is dialed and whatever the client says; a naive client says the address."""
    with Witness(served(LEAF), version) as server:
        spec = remote(server, pinned("root"), proxy, fields={"host": "virtual.test"})
        with Helper(zygote, spec) as helper:
            assert f"Host: 127.0.0.1:{helper.port}\r\n".encode() in helper.head()
            assert outcome(ask(helper, helper.head(length=0))) == "200"
            assert f":{helper.port}".encode() not in server.data
        assert server.data.lower().count(b"\r\nhost:") == 1
        assert b"\r\nHost: virtual.test\r\n" in server.data
        assert server.met[0].asked_for == NAME

    with Witness(served(LEAF), version) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port)
        client.sock = naive.context(STORE).wrap_socket(naive.tcp(server.port, proxy), server_hostname=NAME)
        with contextlib.closing(client):
            client.request("POST", "/mcp")
            client.getresponse().read()
    assert server.met[0].asked_for == NAME
    assert f"\r\nHost: 127.0.0.1:{server.port}\r\n".encode() in server.data


@every_route
def test_expired_pins_refuse_and_do_not_lapse(zygote: Zygote, proxy: str | None) -> None:
    """Past their day nobody is even connected to; the control is the day after tomorrow."""
    today = datetime.datetime.now(datetime.UTC).date()
    with Witness(served(LEAF)) as server:
        for days, said in ((-1, "pins_expired"), (2, "200")):
            expires = (today + datetime.timedelta(days)).isoformat()
            assert asked(zygote, remote(server, pinned("leaf"), proxy, pins_expire=expires)) == said
            assert bool(server.met) == (said == "200")


@every_position
@every_route
@every_version
def test_mode_report_connects_and_reports_every_hash_and_keeps_the_credential(
    zygote: Zygote, proxy: str | None, version: MinVersion, at: PinPosition
) -> None:
    with Witness(served(ROGUE), version) as server:
        with Helper(zygote, remote(server, pinned(at), proxy, pin_mode="report")) as helper:
            assert outcome(ask(helper, helper.head(length=0))) == "200"
            told = helper.fact(facts.PinMismatch)
        path = zip((ROGUE, *ROGUE.issuers, OTHER), ("leaf", "intermediate", "root"), strict=True)
        assert told.seen == [f"{issued.pin} at {place}" for issued, place in path]
        assert (len(told.expected), told.refused) == (1, False)
    assert server.data.startswith(b"POST /mcp HTTP/1.1\r\n")
    assert TOKEN.encode() not in server.data


@every_route
@every_version
def test_after_a_change_of_pins_connections_are_new_checked_and_never_resumed(
    zygote: Zygote, proxy: str | None, version: MinVersion
) -> None:
    """The pool is left at once. That this server would resume is shown by a client that asks for it."""
    with (
        Witness(served(LEAF), version) as server,
        Helper(zygote, remote(server, pinned("leaf"), proxy)) as helper,
        helper.connect() as client,
    ):
        for pin, said in ((None, "200"), (None, "200"), (ROGUE, "pin_mismatch"), (LEAF, "200")):
            if pin is not None:
                tls = remote(server, pinned("leaf", pin)).tls
                assert tls is not None
                helper.tell(NewTrust(tls=tls))
                assert helper.fact(facts.TrustTaken).problem is None
            client.sendall(helper.head(length=0))
            assert outcome(read_response(client)) == said
    assert [met.data.count(CREDENTIAL) for met in server.met] == [2, 0, 1]
    assert not any(met.resumed for met in server.met)

    with Witness(served(LEAF), version) as server:
        paths = naive.twice(server.port, proxy, naive.context(STORE), NAME)
        assert list(map(len, paths)) == [3, 0]  # on the second there is nothing to look for pins in
    assert [met.resumed for met in server.met] == [False, True]


def environment(folder: Path, proxy: Witness) -> dict[str, str]:
    """Return what makes Python's own clients trust the unknown authority, log their keys, and go by `proxy`."""
    (folder / "unknown.pem").write_text(UNKNOWN.pem)
    place = f"http://127.0.0.1:{proxy.port}"
    return {
        "SSL_CERT_FILE": str(folder / "unknown.pem"),
        "SSLKEYLOGFILE": str(folder / "keys"),
        **dict.fromkeys(("HTTPS_PROXY", "https_proxy", "ALL_PROXY"), place),
    }


def test_nothing_of_the_environment_counts_in_a_helper(tmp_path: Path) -> None:
    """It is emptied, no file is read, and contexts look for nothing there (tests/unit/trust/test_context.py)."""
    impostor = served(UNKNOWN.issue((NAME, "127.0.0.1")))
    with Witness() as proxy, Witness(impostor) as rogue, Witness(served(LEAF)) as server:
        variables = environment(tmp_path, proxy)
        prefix = ("/usr/bin/env", *(f"{name}={value}" for name, value in variables.items()))
        with closing_children(), Zygote(prefix) as zygote:
            assert asked(zygote, remote(rogue, [], pin_mode="off", credential_without_pin=True)) == "tls_untrusted"
            assert asked(zygote, remote(server, pinned("leaf"))) == "200"
        rogue.settle()
        assert (rogue.data, proxy.met) == (b"", [])
        assert CREDENTIAL in server.data
        assert not (tmp_path / "keys").exists()

        proxy.answer = b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"
        assert not naive.opened("https://proxied.test/mcp", variables)
        assert proxy.data.startswith(b"CONNECT proxied.test:443 ")
        assert naive.opened(f"https://127.0.0.1:{rogue.port}/mcp", {**variables, "NO_PROXY": "127.0.0.1"})
        assert rogue.data.startswith(b"GET /mcp")
        assert "CLIENT_TRAFFIC_SECRET_0" in (tmp_path / "keys").read_text()


def test_helper_run_trusts_by_its_configuration_alone(tmp_path: Path) -> None:
    """As a user starts it, with the same variables in the shell; the control is above."""
    impostor = served(UNKNOWN.issue((NAME,)))
    (tmp_path / "store.pem").write_text(STORE)
    with Witness() as proxy, Witness(impostor) as rogue, Witness(served(LEAF)) as server:
        variables = environment(tmp_path, proxy)
        for asked_server, answer in ((rogue, 502), (server, 200)):
            config = tmp_path / "config.toml"
            config.write_text(
                f'[mcp_servers.docs]\nurl = "https://{NAME}/mcp"\nconnect_to = "127.0.0.1:{asked_server.port}"\n'
                f'[mcp_servers.docs.tls]\nca = "custom"\nca_file = "{tmp_path}/store.pem"\n'
            )
            assert one_request(config, "docs", variables)[0] == answer
    assert (rogue.data, proxy.met) == (b"", [])
    assert server.data.startswith(b"POST /mcp HTTP/1.1\r\n")
    assert not (tmp_path / "keys").exists()


def test_a_sessions_own_authority_is_never_trusted_upstream(tmp_path: Path) -> None:
    """Where it found its way into the store, it is left out; a client that takes the store as it is, is taken in."""
    authority, certificates = session_ca.issue("20270301-9f86d081", ["docs"], datetime.datetime.now(datetime.UTC))
    (tmp_path / "store.pem").write_text(STORE + authority)
    config = tmp_path / "config.toml"
    own = certificates["docs"]
    with Witness(served(LEAF)) as server:
        server.show(own.chain_pem, own.key_pem.reveal())
        config.write_text(
            f'[mcp_servers.docs]\nurl = "https://localhost:{server.port}/mcp"\nallow_private = true\n'
            f'[mcp_servers.docs.tls]\nca = "custom"\nca_file = "{tmp_path}/store.pem"\n'
        )
        answer, _, shown = one_request(config, "docs", {})
        assert answer == 502
        assert "a session's own authority is in its trust store, and was left out" in shown
        server.settle()
        assert (len(server.met), server.data) == (1, b"")
        assert naive.ask(server.port, None, naive.context(STORE + authority), "localhost")
    assert server.data == naive.REQUEST


def test_a_name_is_resolved_once_and_what_was_judged_is_dialed(tmp_path: Path) -> None:
    """It leads elsewhere when it is asked for again; whoever judges one answer and dials by name goes there."""
    with (
        Dns(tmp_path, ["127.0.0.2", "127.0.0.3"]) as dns,
        Witness(served(LEAF), place=("127.0.0.2", 0)) as first,
        Witness(served(LEAF), place=("127.0.0.3", first.port)) as second,
    ):
        fields = {"host": "rebound.test", "port": first.port, "connect_to": None, "allow_private": True}
        with closing_children(), Zygote(dns.prefix) as zygote:
            assert asked(zygote, remote(first, pinned("root"), fields=fields)) == "200"
        assert (dns.asked, second.met) == (1, [])
        assert CREDENTIAL in first.data

        dns.asked = 0
        program = (
            "import socket as s; s.getaddrinfo('rebound.test', 1); "
            f"s.create_connection(('rebound.test', {first.port})).sendall(b'naive')"
        )
        subprocess.run([*dns.prefix, sys.executable, "-c", program], check=True)
    assert len(second.met) == 1


@pytest.mark.parametrize("answer", ["127.0.0.2", "169.254.169.254", "10.0.0.1", "100.64.0.1", "168.63.129.16"])
def test_a_name_that_leads_into_the_machine_or_its_network_is_refused(tmp_path: Path, answer: str) -> None:
    """Loopback, metadata services, private and shared addresses, unless they are meant."""
    with Dns(tmp_path, [answer]) as dns, Witness(served(LEAF), place=("127.0.0.2", 0)) as server:
        fields = {"host": "rebound.test", "port": server.port, "connect_to": None}
        with closing_children(), Zygote(dns.prefix) as zygote:
            assert asked(zygote, remote(server, pinned("root"), fields=fields)) == "address_refused"
            assert server.met == []
            if answer == "127.0.0.2":  # the control: the name does lead there
                assert asked(zygote, remote(server, pinned("root"), fields={**fields, "allow_private": True})) == "200"
    assert dns.asked >= 1
