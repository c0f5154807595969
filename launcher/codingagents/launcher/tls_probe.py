"""SHELL: the certificates that a server shows, fetched over a throw-away connection: nothing is verified, nothing sent.

A TLS handshake and its end; no byte of HTTP goes to the server. For commands that show a person whom they would trust.
Decides nothing about trust.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import time
from typing import Any

from codingagents.trust.errors import AgentError, TrustError

DEFAULT_SECONDS = 10.0
_CHUNK = 16 * 1024
_MAX_HANDSHAKE = 256 * 1024  # bytes that a server may send for it
_MAX_HEAD = 16 * 1024  # bytes of a proxy's answer


def fetch_chain(
    host: str,
    port: int,
    *,
    server_name: str,
    connect_to: str | None = None,
    proxy: str | None = None,
    timeout: float = DEFAULT_SECONDS,
) -> list[bytes]:
    """Return the certificates as DER, the leaf first, in the order in which the server sent them.

    `connect_to` and `proxy` are HOST:PORT, as a `RemoteSpec` has them; `timeout` is in seconds and for all of it. A
    server that demands a client certificate shows its own before it ends the handshake, and they are returned all the
    same. Raises `AgentError` where the server cannot be reached, `TrustError` where it does not speak TLS.
    """
    place = connect_to or _host_port(host, port)
    deadline = time.monotonic() + timeout
    try:
        with socket.create_connection(_split(proxy or place), timeout=timeout) as connection:
            if proxy is not None:
                _tunnel(connection, place, deadline)
            return _handshake(connection, server_name, deadline, place)
    except TimeoutError:
        raise AgentError(f"{place} did not answer within {timeout:g} seconds; is it up, and reachable?") from None
    except OSError as error:
        what = f"{proxy} (proxy for {place})" if proxy is not None else place
        raise AgentError(f"cannot connect to {what}: {error.strerror or error}") from None


def _handshake(connection: socket.socket, server_name: str, deadline: float, place: str) -> list[bytes]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(received, to_send, server_hostname=server_name)
    total = 0
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            _send(connection, to_send.read(), deadline)
            chunk = _receive(connection, _CHUNK, deadline)
            total += len(chunk)
            if total > _MAX_HANDSHAKE:
                raise TrustError(f"{place} sends too much for a TLS handshake") from None
            received.write(chunk) if chunk else received.write_eof()
            continue
        except ssl.SSLError as error:
            chain = _chain_as_sent(tls)
            if chain:
                return chain
            raise TrustError(
                f"{place} does not answer with TLS: {error.reason or 'it closed the connection'}"
            ) from None
        chain = _chain_as_sent(tls)
        if not chain:
            raise TrustError(f"{place} shows no certificate")
        return chain


def _chain_as_sent(tls: ssl.SSLObject) -> list[bytes]:
    if sys.version_info >= (3, 13):  # pragma: no cover -- the other branch, on the other interpreter
        return [bytes(each) for each in tls.get_unverified_chain() or ()]
    import _ssl  # noqa: PLC0415 -- private to the branch that needs its constant

    inner: Any = tls._sslobj  # type: ignore[attr-defined]  # noqa: SLF001 -- no public getter before 3.13
    return [each.public_bytes(_ssl.ENCODING_DER) for each in inner.get_unverified_chain() or ()]


def _tunnel(connection: socket.socket, place: str, deadline: float) -> None:
    """Ask an HTTP proxy for a connection to `place` (RFC 9110, section 9.3.6)."""
    _send(connection, f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode(), deadline)
    head = b""
    while b"\r\n\r\n" not in head:
        byte = _receive(connection, 1, deadline)  # what follows the head is the server's
        head += byte
        if not byte or len(head) > _MAX_HEAD:
            raise AgentError(f"the proxy did not open a way to {place}")
    status = head.split(b"\r\n", 1)[0].split(b" ")
    if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or status[1][:1] != b"2":
        said = status[1].decode("ascii", "replace")[:20] if len(status) > 1 else "no HTTP"
        raise AgentError(f"the proxy opens no way to {place}: it answered {said}")


def _send(connection: socket.socket, data: bytes, deadline: float) -> None:
    connection.settimeout(_left(deadline))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # what it sent before that may still be there
        connection.sendall(data)


def _receive(connection: socket.socket, size: int, deadline: float) -> bytes:
    connection.settimeout(_left(deadline))
    return connection.recv(size)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _split(place: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":")
    return host.strip("[]"), int(port)
