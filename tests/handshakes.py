"""TLS in memory: what a server gets to see of a client, and what crossed the wire."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass

from codingagents.trust.vocabulary import MinVersion
from pki import Issued

REQUEST = b"POST /mcp HTTP/1.1\r\nAuthorization: Bearer upstream-token\r\n\r\n"
VERSIONS: list[MinVersion] = ["1.2", "1.3"]


@dataclass
class Server:
    """One TLS server end in memory; `received` is every application byte that it got to decrypt."""

    tls: ssl.SSLObject
    from_client: ssl.MemoryBIO
    incoming: ssl.MemoryBIO
    received: bytes = b""
    established: bool = False
    wire: bytes = b""  # all that the client sent, as it crossed the wire

    @property
    def client_certificate(self) -> bytes | None:
        """What the client has shown, as DER."""
        return self.tls.getpeercert(True) if self.established else None

    def step(self) -> None:
        """Take whatever the client has put out, as a caller would that flushes after a refusal too."""
        data = self.from_client.read()
        self.wire += data
        self.incoming.write(data)
        try:
            if not self.established:
                self.tls.do_handshake()
                self.established = True
            while data := self.tls.read():
                self.received += data
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        except ssl.SSLError:
            pass  # the client went away


def server_context(
    identity: Issued, chain_pem: str | None = None, version: MinVersion = "1.3", *, asks_for: Issued | None = None
) -> ssl.SSLContext:
    """A server of that version at most; it takes no client but with a certificate of `asks_for`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
    context.set_alpn_protocols(["h2", "http/1.1"])
    if asks_for is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=asks_for.pem)
    descriptor = os.memfd_create("identity")
    os.write(descriptor, (identity.key_pem + (chain_pem or identity.chain_pem)).encode())
    context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    os.close(descriptor)
    return context


def connect(
    client_context: ssl.SSLContext,
    serving: ssl.SSLContext,
    *,
    name: str = "localhost",
    session: ssl.SSLSession | None = None,
) -> tuple[ssl.SSLObject, Server, ssl.SSLError | None]:
    """Do a handshake and send a request; also after a refusal, flushing all that the client had queued."""
    to_client, from_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, from_client, server_hostname=name, session=session)
    server = Server(serving.wrap_bio(to_server, to_client, server_side=True), from_client, to_server)
    for _ in range(6):
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            server.step()
            continue
        except ssl.SSLError as error:
            server.step()
            return client, server, error
        client.write(REQUEST)
        server.step()
        return client, server, None
    raise AssertionError("the handshake did not end")
