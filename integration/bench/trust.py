"""SHELL: what it costs a helper that pins decide whom it trusts: CPU time of a handshake, and memory for each store.

Handshakes are done in memory, and only what the client does is timed. Memory is what the kernel counts as a real
helper's own (USS): cloned by a zygote, confined, its anchors read on the host as a session reads them.
"""

from __future__ import annotations

import contextlib
import ssl
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import pki
from bench.processes import uss
from bench.results import Figure, Part, Plan, Table, differences, ratios
from codingagents.rewrite.anchors import read_anchors
from codingagents.rewrite.config import AnchorSource
from codingagents.rewrite.override_store import OverrideStore
from codingagents.rewrite.parse_tls import HOST_STORE
from codingagents.rewrite.specs import NewTrust, PinSpec, RemoteSpec, TlsSpec
from codingagents.rewrite.upstream_tls import upstream_context
from codingagents.trust import facts
from codingagents.trust.context import pinned_context
from codingagents.trust.der import spki_pin
from codingagents.trust.pem import parse_pem
from codingagents.trust.pins import parse_pin, pinning
from codingagents.trust.vocabulary import MinVersion, Store
from helper_rig import Helper, Zygote
from witness import VERSIONS

HOST = "upstream.test"
HANDSHAKES = 200  # of each context in a round
ROUNDS = 5


def handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> float:
    """Do a handshake, and return the µs of CPU time that the client took for it."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    begun = time.thread_time_ns()
    ours = client.wrap_bio(to_client, to_server, server_hostname=HOST)
    spent = time.thread_time_ns() - begun
    while True:
        begun = time.thread_time_ns()
        try:
            ours.do_handshake()
        except ssl.SSLWantReadError:
            spent += time.thread_time_ns() - begun
        else:
            return (spent + time.thread_time_ns() - begun) / 1000
        with contextlib.suppress(ssl.SSLWantReadError):
            theirs.do_handshake()


def serving(leaf: pki.Issued, version: MinVersion) -> ssl.SSLContext:
    """Return the context of a server with `leaf` that speaks `version` alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = VERSIONS[version]
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(leaf.key_pem + leaf.chain_pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def contexts(store_pem: str, leaf: pki.Issued, root: pki.Issued) -> dict[str, ssl.SSLContext]:
    """Return what is compared; all trust the certificates of the store and `root`."""
    anchors = store_pem + root.pem
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    plain.load_verify_locations(cadata=anchors)
    checked = pinning("enforce", [parse_pin(leaf.pin, "leaf")])
    narrowed = pinning("enforce", [parse_pin(root.pin, "root")])
    return {
        "plain ssl": plain,
        "a leaf pinned": pinned_context(anchors, checked, server_name=HOST),
        "the root pinned, anchors narrowed to it": pinned_context(anchors, narrowed, server_name=HOST),
    }


def _handshakes(plan: Plan, store_pem: str) -> Table:
    root = pki.make_root(key=pki.make_key("rsa"))
    leaf = root.issue_ca("Intermediate", key=pki.make_key("rsa")).issue((HOST,))
    compared = contexts(store_pem, leaf, root)
    rows = []
    for version in VERSIONS:
        server = serving(leaf, version)
        found: dict[str, list[float]] = {name: [] for name in compared}
        for _ in range(1 if plan.quick else ROUNDS):
            turns = [
                [handshake(client, server) for client in compared.values()]
                for _ in range(20 if plan.quick else HANDSHAKES)
            ]
            for name, times in zip(compared, zip(*turns, strict=True), strict=True):
                found[name].append(statistics.median(times))
        base = found["plain ssl"]
        for name, medians in found.items():
            added = Figure.of(differences(medians, base)).text(0)
            rows.append([name, version, Figure.of(medians).text(0), added, ratios(medians, base).text()])
    return Table(["context", "TLS", "µs of client CPU", "µs over plain", "÷ plain"], rows)


def stores() -> dict[str, TlsSpec]:
    """Return how each kind of server is trusted; the first has one anchor, and the others are held against it.

    In two of them a root of the host's is pinned, in the last two a key that could stand below any anchor.
    """
    where: dict[Store, str | None] = {"host": HOST_STORE, "certifi": None}
    sources = {str(store): AnchorSource(store=store, path=path, server_name=HOST) for store, path in where.items()}
    with tempfile.TemporaryDirectory() as folder:
        anchors = {name: read.pem for name, read in read_anchors(sources, "", OverrideStore(Path(folder))).items()}
    one = pki.make_root()
    root = PinSpec(spki=spki_pin(parse_pem(anchors["host"])[0]), at="root")
    below = PinSpec(spki=one.pin, at="intermediate")
    return {
        "custom": _trust("custom", one.pem, below),
        "pinned-only": _trust("pinned-only", anchors["host"], root),
        "host, a root pinned": _trust("host", anchors["host"], root),
        "certifi": _trust("certifi", anchors["certifi"], below),
        "host": _trust("host", anchors["host"], below),
    }


def _trust(store: Store, anchors_pem: str, pin: PinSpec) -> TlsSpec:
    return TlsSpec(server_name=HOST, anchors_pem=anchors_pem, store=store, pins=[pin])


def _weigh(zygote: Zygote, trusted: dict[str, TlsSpec]) -> tuple[list[float], list[float]]:
    """Return the USS of a fresh helper for each, and after a reload of the same trust; all are there at once.

    So that what helpers share with each other is nobody's: of a lone one that would count.
    """
    fields: dict[str, Any] = {"scheme": "https", "host": HOST, "port": 443, "path": "/mcp"}
    with contextlib.ExitStack() as stack:
        helpers = [
            stack.enter_context(Helper(zygote, RemoteSpec(name="bench", connect_to="127.0.0.1:9", tls=tls, **fields)))
            for tls in trusted.values()
        ]
        fresh = [uss(helper.pid) for helper in helpers]
        for helper, tls in zip(helpers, trusted.values(), strict=True):
            helper.tell(NewTrust(tls=tls))
            assert helper.fact(facts.TrustTaken).problem is None
        return fresh, [uss(helper.pid) for helper in helpers]


def _memory(plan: Plan, trusted: dict[str, TlsSpec]) -> Table:
    with Zygote() as zygote:
        rounds = [_weigh(zygote, trusted) for _ in range(1 if plan.quick else ROUNDS)]
    fresh, reloaded = (list(zip(*taken, strict=True)) for taken in zip(*rounds, strict=True))
    rows = []
    for (name, tls), first, later in zip(trusted.items(), fresh, reloaded, strict=True):
        kept = upstream_context(tls, {}).cert_store_stats()["x509"]
        over = Figure.of(differences(first, fresh[0])).text()
        rows.append([name, str(kept), Figure.of(first).text(), over, Figure.of(later).text()])
    return Table(["store", "anchors", "USS, MB", "over one anchor, MB", "USS after a reload, MB"], rows)


def measure(plan: Plan) -> Part:
    """Return what pins and stores cost."""
    trusted = stores()
    tables = [_handshakes(plan, trusted["host"].anchors_pem), _memory(plan, trusted)]
    how = (
        "The client's share of a handshake in memory, contexts in turn, all with the host's store; an ECDSA leaf under "
        "an RSA intermediate and root. The memory of real helpers that have answered nothing yet, one for each row at "
        "once, fresh and after a reload of the same trust."
    )
    return Part("Trust", how, tables, [])
