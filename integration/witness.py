"""A TLS server that witnesses what reaches it: every application byte, the name asked for, client certificates.

    with Witness([leaf, intermediate], "1.2", asks_for=clients) as server:
        …                                  # clients come, and go
    assert server.data == b""              # of all connections, which have ended by now

A client certificate counts once its handshake message is here, whether or not the handshake was ever finished. Requests
are answered by `answer`, which is 200 and a few bytes at first.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import pki
from codingagents.trust.vocabulary import MinVersion

PATIENCE = 20.0  # seconds; only a failing test waits that long
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
VERSIONS: dict[MinVersion, ssl.TLSVersion] = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_CERTIFICATE = 11  # the type of the handshake message (RFC 8446 4)


@dataclass
class Met:
    """One connection."""

    asked_for: str | None = None  # SNI
    established: bool = False
    resumed: bool = False
    certificate: bytes = b""  # the client's Certificate message; one that names none is a few zeros
    data: bytes = b""


class _Socket(ssl.SSLSocket):
    met: Met


class Witness:
    """Shows `chain`, the first with its key, and speaks `version` alone; without a chain it speaks plain HTTP."""

    def __init__(
        self,
        chain: Sequence[pki.Issued] = (),
        version: MinVersion = "1.3",
        *,
        asks_for: pki.Issued | None = None,
        answer: bytes = OK,
        place: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.answer = answer
        self.met: list[Met] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = self._context.maximum_version = VERSIONS[version]
        self._context.sslsocket_class = _Socket
        self._context.sni_callback = self._named
        # Private to CPython, and the only one to see a message of a handshake that does not end.
        self._context._msg_callback = self._message  # type: ignore[attr-defined]  # private, see above
        if asks_for is not None:
            self._context.verify_mode = ssl.CERT_OPTIONAL
            self._context.load_verify_locations(cadata=asks_for.pem)
        self._tls = bool(chain)
        if chain:
            self.show("".join(each.pem for each in chain), chain[0].key_pem)
        self._place = place
        self._threads: list[threading.Thread] = []

    def show(self, chain_pem: str, key_pem: str) -> None:
        """Show these certificates from now on."""
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(key_pem + chain_pem)
            file.flush()
            self._context.load_cert_chain(file.name)

    @property
    def data(self) -> bytes:
        """All application bytes that came."""
        return b"".join(met.data for met in self.met)

    def was_shown(self, identity: pki.Issued) -> bool:
        return any(identity.der in met.certificate for met in self.met)

    @property
    def certificates(self) -> bytes:
        """All that clients sent as their certificates; an empty message is nothing."""
        return b"".join(met.certificate for met in self.met if any(met.certificate[4:]))

    def __enter__(self) -> Self:
        self._listening = socket.create_server(self._place)
        self.port: int = self._listening.getsockname()[1]
        self._threads.append(threading.Thread(target=self._serve))
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self.settle()
        self._listening.close()

    def settle(self) -> None:
        """Wait until all connections that were made have ended; nothing more comes on them."""
        for thread in self._threads[1:]:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a connection did not end"

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, _ = self._listening.accept()
                self._threads.append(threading.Thread(target=self._attend, args=(raw,)))
                self._threads[-1].start()

    def _attend(self, raw: socket.socket) -> None:
        met = Met()
        self.met.append(met)
        raw.settimeout(PATIENCE)
        with raw, contextlib.suppress(OSError):
            if not self._tls:
                self._listen(raw, met)
                return
            tls: Any = self._context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
            with tls:
                tls.met = met
                tls.do_handshake()
                met.established, met.resumed = True, bool(tls.session_reused)
                self._listen(tls, met)

    def _listen(self, client: socket.socket, met: Met) -> None:
        waiting = b""
        while piece := client.recv(1 << 16):
            met.data += piece
            waiting = self._answered(client, waiting + piece)

    def _answered(self, client: socket.socket, waiting: bytes) -> bytes:
        """Answer each request that is complete, and return what is left."""
        while True:
            head, end, rest = waiting.partition(b"\r\n\r\n")
            length = re.search(rb"(?im)^content-length: *(\d+)", head)
            size = int(length[1]) if length else 0
            if not end or len(rest) < size:
                return waiting
            waiting = rest[size:]
            client.sendall(self.answer)

    @staticmethod
    def _named(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _context: ssl.SSLContext) -> None:
        assert isinstance(connection, _Socket)
        connection.met.asked_for = name

    @staticmethod
    def _message(
        connection: _Socket, direction: str, _version: object, _content: object, message: Any, data: bytes
    ) -> None:
        if direction == "read" and message == _CERTIFICATE:
            connection.met.certificate += data
