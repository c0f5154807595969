"""A `TlsConnection` between recorders: its transport is in memory, its server a real TLS end in memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from codingagents.proxies.connection import Connection
from codingagents.proxies.tls_connection import Handshake, TlsConnection
from codingagents.proxies.upstream_trust import Trust, trust_of
from codingagents.rewrite.specs import PinSpec, TlsSpec
from codingagents.trust.context import PinnedContext, pinned_context
from codingagents.trust.pins import Pinning, pinning
from codingagents.trust.vocabulary import PinMode
from pki import Issued, make_root

Version = Literal["1.2", "1.3"]
VERSIONS: tuple[Version, ...] = ("1.2", "1.3")
ROOT = make_root()
LEAF = ROOT.issue()


def serving(identity: Issued = LEAF, version: Version = "1.3") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
    descriptor = os.memfd_create("identity")
    os.write(descriptor, (identity.key_pem + identity.chain_pem).encode())
    context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    os.close(descriptor)
    return context


SERVING = {version: serving(LEAF, version) for version in VERSIONS}


def trusting(pins: Pinning | None = None) -> PinnedContext:
    return pinned_context(ROOT.pem, pins or pinning("off", ()), server_name="localhost")


def trust_by(
    pins: Sequence[PinSpec] = (),
    mode: PinMode = "off",
    *,
    roots: Sequence[Issued] = (ROOT,),
    attaches: bool = True,
    **changes: Any,
) -> Trust:
    """Return what a helper trusts a server called localhost by; `changes` are those of its `TlsSpec`."""
    anchors = "".join(root.pem for root in roots)
    fields = {"server_name": "localhost", "anchors_pem": anchors, "store": "custom", "pin_mode": mode, **changes}
    return trust_of(TlsSpec(pins=list(pins), **fields), {}, attaches=attaches)


class Home:
    """The pool of one connection."""

    def __init__(self) -> None:
        self.epoch = 0
        self.happened: list[str] = []

    def now(self) -> float:
        return 1000.0

    def opened(self, connection: Connection) -> None:
        self.happened.append("opened")

    def keep(self, connection: Connection) -> None:
        self.happened.append("kept")

    def forget(self, connection: Connection) -> None:
        self.happened.append("forgotten")

    def lost(self, connection: Connection) -> None:
        self.happened.append("lost")


class Owner:
    """Records what a relay would be told; `then` is done at each piece of data."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ends: list[bool] = []
        self.full: list[bool] = []
        self.failed: list[str] = []
        self.then: Callable[[], None] = lambda: None

    def upstream_data(self, data: bytes) -> None:
        assert not self.ends, "data after the end"
        self.pieces.append(data)
        self.then()

    def upstream_closed(self, *, clean: bool) -> None:
        self.ends.append(clean)

    def upstream_failed(self, code: str) -> None:
        self.failed.append(code)

    def upstream_full(self, full: bool) -> None:
        self.full.append(full)

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)


class Pipe(asyncio.Transport):
    """A transport in memory, of asyncio's meaning: `written` is what would be on the wire."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: asyncio.BaseProtocol = asyncio.Protocol()
        self.written = b""
        self.paused = False
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed, "written after the end"
        self.written += data

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        assert not self.closed, "resumed after the end"
        self.paused = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        self.closed = True

    def lose(self, error: Exception | None = None) -> None:
        self.closed = True
        self.protocol.connection_lost(error)


class Bench:
    """A handshake, and what becomes of it; to be made in a running loop."""

    def __init__(self, context: PinnedContext, server: ssl.SSLContext = SERVING["1.3"]) -> None:
        self.home = Home()
        self.owner = Owner()
        self.pipe = Pipe()
        self.to_server, self.from_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = server.wrap_bio(self.to_server, self.from_server, server_side=True)
        self.secured: asyncio.Future[TlsConnection | None] = asyncio.get_running_loop().create_future()
        self.pipe.protocol = Handshake(self.home, context, self.secured)
        self.pipe.protocol.connection_made(self.pipe)

    @property
    def connection(self) -> TlsConnection:
        connection = self.secured.result()
        assert connection is not None
        return connection

    def arrive(self, data: bytes) -> None:
        """Let the client's socket read `data`."""
        assert not self.pipe.paused, "read while paused"
        assert isinstance(self.pipe.protocol, Handshake | TlsConnection)
        self.pipe.protocol.data_received(data)

    def from_client(self) -> bytes:
        """Let the server have what was written, and return what it reads."""
        self.to_server.write(self.pipe.written)
        self.pipe.written = b""
        read = b""
        try:
            while data := self.server.read(1 << 16):
                read += data
        except ssl.SSLWantReadError:
            pass
        return read

    def turns(self) -> Iterator[None]:
        """Yield until the handshake is over; nothing else would end one that makes no progress."""
        for _ in range(10):
            if self.secured.done():
                return
            yield
        raise AssertionError("the handshake does not end")

    def shake(self, last: Callable[[], bytes] = lambda: b"") -> None:
        """Do the handshake; the server sends the result of `last` at once with its own last flight."""
        over = False
        for _ in self.turns():
            self.to_server.write(self.pipe.written)
            self.pipe.written = b""
            try:
                self.server.do_handshake()
            except ssl.SSLWantReadError:
                pass
            else:
                over = True
            self.arrive(self.from_server.read() + (last() if over else b""))
        if not over:
            self.to_server.write(self.pipe.written)
            self.pipe.written = b""
            self.server.do_handshake()
            self.arrive(self.from_server.read() + last())

    def stand(self) -> TlsConnection:
        """Return the connection after its handshake, owned by `owner`."""
        self.shake()
        self.connection.owner = self.owner
        return self.connection

    def sealed(self, data: bytes) -> bytes:
        """Return `data` as the server encrypts it."""
        self.server.write(data)
        return self.from_server.read()

    def close_alert(self) -> bytes:
        """Return what a server sends that ends its stream; it sends nothing afterwards."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.server.unwrap()
        return self.from_server.read()

    def fatal_alert(self) -> bytes:
        """Return what a server sends that cannot read what came."""
        self.to_server.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        try:
            self.server.read()
        except ssl.SSLError:
            return self.from_server.read()
        raise AssertionError("no alert")
