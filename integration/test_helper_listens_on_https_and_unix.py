"""A helper's other listeners: TLS with a certificate of the session's own, and a unix socket; who is let in there."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import pki
from codingagents.rewrite.specs import ClientAuth, LimitsSpec, ListenCertificate, RemoteSpec
from codingagents.trust import facts
from codingagents.trust.vocabulary import Secret
from helper_rig import (
    BEARER,
    TOKEN,
    Helper,
    Zygote,
    ask,
    closing_children,
    code,
    read_all,
    read_response,
    status,
)
from scripted_upstream import Exchange, Upstream

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="helpers take UIDs of their own: needs root")

AGENT = 58013
STRANGER = 58014
CALL = """
import socket, ssl, sys
kind, place, cafile = sys.argv[1:]
client = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
client.settimeout(10)
client.connect(place if kind == "unix" else ("127.0.0.1", int(place)))
if cafile:
    client = ssl.create_default_context(cafile=cafile).wrap_socket(client, server_hostname="localhost")
client.sendall(sys.stdin.buffer.read())
sys.stdout.buffer.write(client.recv(65536))
"""


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with closing_children(), Zygote() as started:
        yield started


@pytest.fixture(scope="module")
def ca() -> pki.Issued:
    return pki.make_root("Session CA")


def certificate(ca: pki.Issued) -> ListenCertificate:
    leaf = ca.issue(("localhost", "127.0.0.1"))
    return ListenCertificate(chain_pem=leaf.chain_pem, key_pem=Secret(leaf.key_pem))


def client_context(ca: pki.Issued, *, newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca.pem)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if newest is not None:
        context.minimum_version = context.maximum_version = newest
    return context


def secured(helper: Helper, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(helper.connect(), server_hostname="localhost")


def call_as(uid: int, kind: str, place: str, request: bytes, *, cafile: str = "") -> bytes:
    """Send `request` as another user and return what comes first."""
    return subprocess.run(
        [sys.executable, "-I", "-c", CALL, kind, place, cafile],
        input=request, user=uid, group=uid, extra_groups=[], capture_output=True, check=True,
    ).stdout  # fmt: skip


@contextmanager
def unix_listener(folder: Path) -> Iterator[socket.socket]:
    folder.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "srv.sock"))
        (folder / "srv.sock").chmod(0o666)
        listener.listen(512)
        yield listener


def test_https_serves_with_the_sessions_certificate(zygote: Zygote, ca: pki.Issued) -> None:
    """HTTP/1.1 by ALPN, over TLS 1.2 and 1.3; several requests on a connection; its Origin is https."""
    with Upstream() as upstream, Helper(zygote, upstream.remote(listen="https"), certificate=certificate(ca)) as helper:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with secured(helper, client_context(ca, newest=version)) as client:
                assert client.selected_alpn_protocol() == "http/1.1"
                for number in range(3):
                    client.sendall(
                        helper.head("POST /mcp HTTP/1.1", f"Origin: https://localhost:{helper.port}", length=number)
                    )
                    client.sendall(b"x" * number)
                    assert status(read_response(client)) == 200
        with secured(helper, client_context(ca)) as client:
            client.sendall(helper.head("POST /mcp HTTP/1.1", f"Origin: http://localhost:{helper.port}", length=0))
            assert code(read_response(client)) == "origin_refused"
            assert client.recv(100) == b""
        assert b"Bearer " + TOKEN.encode() in bytes(upstream.received[0])


def test_https_wants_tls_and_not_an_old_one(zygote: Zygote, ca: pki.Issued) -> None:
    """No request in the clear is answered, and another CA's client is right not to trust it."""
    with Upstream() as upstream, Helper(zygote, upstream.remote(listen="https"), certificate=certificate(ca)) as helper:
        with helper.connect() as plain:
            plain.sendall(helper.head(length=0))
            try:
                answer = read_all(plain)
            except ConnectionResetError:
                answer = b""
            assert b"HTTP/1.1" not in answer
        old = client_context(ca)
        old.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            secured(helper, old)
        with pytest.raises(ssl.SSLCertVerificationError):
            secured(helper, client_context(pki.make_root()))
        with secured(helper, client_context(ca)) as client:  # the control
            client.sendall(helper.head(length=0))
            assert status(read_response(client)) == 200
        assert len(upstream.received) == 1


def test_the_key_of_the_certificate_is_in_no_file(zygote: Zygote, ca: pki.Issued) -> None:
    """The memory it was read from is gone: no descriptor, no mapping; and no fact says anything of it."""
    shown = certificate(ca)
    with Upstream() as upstream, Helper(zygote, upstream.remote(listen="https"), certificate=shown) as helper:
        with secured(helper, client_context(ca)) as client:
            client.sendall(helper.head(length=0))
            assert status(read_response(client)) == 200
        folder = Path(f"/proc/{helper.pid}/fd")
        targets = [os.readlink(folder / name) for name in os.listdir(folder)]
        assert not [target for target in targets if target.startswith("/") and target != "/dev/null"]
        assert "memfd" not in Path(f"/proc/{helper.pid}/maps").read_text()
        assert not [line for line in helper.ready.open_fds if "memfd" in line]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"certificate": None}, "exactly where it listens on https"),
        ({"chain_pem": "no certificate"}, "cannot be used"),
        ({"key_pem": Secret(pki.make_root().key_pem)}, "cannot be used"),
        (
            {"key_pem": Secret("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----")},
            "cannot be used",
        ),
    ],
)
def test_a_certificate_that_cannot_be_used_ends_the_helper(
    zygote: Zygote, ca: pki.Issued, changes: dict[str, Any], reason: str
) -> None:
    """It says so, and nothing of the key."""
    remote = RemoteSpec(name="srv", scheme="http", host="127.0.0.1", port=9, path="/mcp", listen="https")
    good = certificate(ca)
    fields: dict[str, Any] = {"chain_pem": good.chain_pem, "key_pem": good.key_pem}
    bad = changes["certificate"] if "certificate" in changes else ListenCertificate(**fields | changes)
    with Helper(zygote, remote, start=False) as helper:
        helper.send_spec(remote, certificate=bad)
        data = read_all(helper.channel)
        assert b'"fact":"failed"' in data
        assert reason.encode() in data
        assert b"PRIVATE" not in data
        assert helper.wait() == 1


def test_a_plain_listener_takes_no_certificate_and_https_no_unix_socket(
    zygote: Zygote, ca: pki.Issued, tmp_path: Path
) -> None:
    """Each kind gets what belongs to it; what does not fit is never served as something else."""
    plain = RemoteSpec(name="srv", scheme="http", host="127.0.0.1", port=9, path="/mcp")
    with Helper(zygote, plain, start=False) as helper:
        helper.send_spec(plain, certificate=certificate(ca))
        assert b"exactly where it listens on https" in read_all(helper.channel)
    secure = RemoteSpec(name="srv", scheme="http", host="127.0.0.1", port=9, path="/mcp", listen="https")
    with unix_listener(tmp_path) as listener, Helper(zygote, secure, start=False, listener=listener) as helper:
        helper.send_spec(secure, certificate=certificate(ca))
        assert b"was given a socket of family" in read_all(helper.channel)


@pytest.mark.parametrize("kind", ["http", "https", "unix"])
@pytest.mark.parametrize("client_auth", [["uid"], ["bearer"], ["uid", "bearer"], []])
def test_all_that_is_listed_must_hold(
    zygote: Zygote, ca: pki.Issued, tmp_path: Path, kind: str, client_auth: list[ClientAuth]
) -> None:
    """Two users, with the right bearer and a wrong one, on each listener: only what is listed counts, and all of it."""
    tmp_path.chmod(0o755)
    cafile = tmp_path / "ca.pem"
    cafile.write_text(ca.pem)
    cafile.chmod(0o644)
    for folder in (tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    with Upstream() as upstream, unix_listener(tmp_path) as listener:
        remote = upstream.remote(listen=kind, client_auth=client_auth)
        extra: dict[str, Any] = {"agent_uid": AGENT, "certificate": certificate(ca) if kind == "https" else None}
        with Helper(zygote, remote, listener=listener if kind == "unix" else None, **extra) as helper:
            place = listener.getsockname() if kind == "unix" else str(helper.port)
            for uid in (AGENT, STRANGER, 0):
                for bearer in (BEARER, "wrong"):
                    answer = call_as(
                        uid, kind, place, helper.head(bearer=bearer, length=0),
                        cafile=str(cafile) if kind == "https" else "",
                    )  # fmt: skip
                    if "uid" in client_auth and uid != AGENT:
                        expected = facts.Refused(reason="uid_refused", peer_user_id=uid)
                    elif "bearer" in client_auth and bearer != BEARER:
                        seen = uid if "uid" in client_auth else None
                        expected = facts.Refused(reason="bearer_refused", peer_user_id=seen)
                    else:
                        assert status(answer) == 200
                        continue
                    assert code(answer) == expected.reason
                    assert helper.fact(facts.Refused) == expected


def test_a_unix_socket_is_localhost_and_no_web_page_reaches_it(zygote: Zygote, tmp_path: Path) -> None:
    """Clients put into Host what their URL says; an Origin is always another one."""
    with Upstream() as upstream, unix_listener(tmp_path) as listener:
        with Helper(zygote, upstream.remote(listen="unix"), listener=listener) as helper:
            assert status(ask(helper, helper.head(length=0))) == 200
            request = helper.head(length=0)
            assert code(ask(helper, request.replace(b"Host: localhost", b"Host: evil.example"))) == "host_refused"
            assert (
                code(ask(helper, request.replace(b"\r\n\r\n", b"\r\nOrigin: http://localhost\r\n\r\n")))
                == "origin_refused"
            )
        assert len(upstream.received) == 1
        assert (tmp_path / "srv.sock").is_socket()  # it is the supervisor's, and waits for the next helper


@pytest.mark.parametrize("kind", ["http", "https", "unix"])
def test_a_stream_passes_and_its_end_crosses_on_every_listener(
    zygote: Zygote, ca: pki.Issued, tmp_path: Path, kind: str
) -> None:
    """Eight megabytes come whole; a client that goes away cancels; a torn body is seen as one."""
    blob = os.urandom(1 << 20) * 8

    async def answering(exchange: Exchange) -> None:
        if b"whole" in exchange.head:
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(blob) + blob)
            return
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        if b"torn" in exchange.head:
            raise ConnectionError
        await exchange.reader.readexactly(1)

    with Upstream(answering) as upstream, unix_listener(tmp_path) as listener:
        extra: dict[str, Any] = {"certificate": certificate(ca)} if kind == "https" else {}
        remote = upstream.remote(listen=kind)
        with Helper(zygote, remote, listener=listener if kind == "unix" else None, **extra) as helper:

            def connect() -> socket.socket:
                return secured(helper, client_context(ca)) if kind == "https" else helper.connect()

            with connect() as client:
                client.sendall(helper.head("GET /mcp?whole HTTP/1.1"))
                assert read_response(client).partition(b"\r\n\r\n")[2] == blob
            with connect() as client:
                client.sendall(helper.head("GET /mcp?torn HTTP/1.1"))
                data = b""
                with suppress(ConnectionResetError, ssl.SSLError):
                    data = read_all(client)
                assert not data.endswith(b"0\r\n\r\n")
            upstream.lost.clear()
            with connect() as client:
                client.sendall(helper.head("GET /mcp?left HTTP/1.1"))
                data = b""
                while b"half" not in data:
                    data += client.recv(1 << 16)
            assert upstream.lost.wait(5)


@pytest.mark.parametrize("kind", ["http", "https", "unix"])
def test_a_client_that_goes_while_nothing_is_read_from_it_is_noticed_on_every_listener(
    zygote: Zygote, ca: pki.Issued, tmp_path: Path, kind: str
) -> None:
    """Its server is still being dialed, for minutes; what it sent before it went waits unread."""
    with (
        Upstream() as upstream,
        socket.create_server(("127.0.0.1", 0)) as mute,
        unix_listener(tmp_path) as listener,
    ):
        extra: dict[str, Any] = {"certificate": certificate(ca)} if kind == "https" else {}
        remote = upstream.remote(
            listen=kind,
            connect_to=f"127.0.0.1:{mute.getsockname()[1]}",
            limits=LimitsSpec(connect_seconds=300, idle_seconds=300),
        )
        with Helper(zygote, remote, listener=listener if kind == "unix" else None, **extra) as helper:
            with secured(helper, client_context(ca)) if kind == "https" else helper.connect() as client:
                client.sendall(helper.head(length=100_000) + b"some")
                dialed, _ = mute.accept()
                client.sendall(b"more")
            with dialed:
                assert helper.fact(facts.Request).error_type == "client_closed"
                assert read_all(dialed)[:1] in (b"", b"\x16")  # nothing but the beginning of a handshake, and its end


def test_a_client_that_does_not_finish_its_handshake_holds_nobody_up(zygote: Zygote, ca: pki.Issued) -> None:
    """It is closed after seconds, and others are served meanwhile."""
    with (
        Upstream() as upstream,
        Helper(
            zygote, upstream.remote(listen="https", limits=LimitsSpec(connections=1)), certificate=certificate(ca)
        ) as helper,
        helper.connect() as silent,
    ):
        with secured(helper, client_context(ca)) as client:
            client.sendall(helper.head(length=0))
            assert status(read_response(client)) == 200
        silent.settimeout(20)
        with suppress(ConnectionResetError):
            assert silent.recv(100) == b""


CROWD = """
import select, socket, sys, time
port, number = map(int, sys.argv[1:])

def connect():
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(("127.0.0.1", port))
    return client

crowd = [connect() for _ in range(number)]
time.sleep(0.2)
print("here", flush=True)
while True:  # who is thrown out comes again
    waiting = select.poll()
    for client in crowd:
        waiting.register(client, select.POLLIN)
    gone = {number for number, _ in waiting.poll()}
    crowd = [connect() if client.fileno() in gone else client for client in crowd]
"""


def test_strangers_who_say_nothing_leave_the_agent_a_place(zygote: Zygote, ca: pki.Issued) -> None:
    """More than the helper may have descriptors, and they come again; the control is an agent of another UID."""
    limits = LimitsSpec(connections=16)
    for agent_uid, answers in ((os.getuid(), 5), (AGENT, 0)):
        with (
            Upstream() as upstream,
            Helper(
                zygote, upstream.remote(listen="https", limits=limits), certificate=certificate(ca), agent_uid=agent_uid
            ) as helper,
            subprocess.Popen(
                [sys.executable, "-I", "-c", CROWD, str(helper.port), "300"],
                stdout=subprocess.PIPE, user=STRANGER, group=STRANGER, extra_groups=[],
            ) as crowd,
        ):  # fmt: skip
            assert crowd.stdout is not None
            assert crowd.stdout.readline() == b"here\n"
            served = 0
            for _ in range(5):
                with suppress(OSError), secured(helper, client_context(ca)) as client:
                    client.sendall(helper.head(length=0))
                    served += status(read_response(client)) == 200
            crowd.kill()
        assert served == answers


@pytest.mark.parametrize("kind", ["http", "https"])
def test_what_is_accepted_has_keep_alive_and_no_delay(zygote: Zygote, ca: pki.Issued, kind: str) -> None:
    """Read from the helper's own socket: what a listener accepts has the options of the listener."""
    extra: dict[str, Any] = {"certificate": certificate(ca)} if kind == "https" else {}
    with Upstream() as upstream, Helper(zygote, upstream.remote(listen=kind), **extra) as helper:
        client = secured(helper, client_context(ca)) if kind == "https" else helper.connect()
        with client:
            client.sendall(helper.head(length=0))
            assert status(read_response(client)) == 200
            with open_in(helper, client.getsockname()) as accepted:
                options = [
                    (socket.SOL_SOCKET, socket.SO_KEEPALIVE), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL), (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
                    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
                ]  # fmt: skip
                assert [accepted.getsockopt(*option) for option in options] == [1, 60, 15, 4, 1]


@contextmanager
def open_in(helper: Helper, peer: tuple[str, int]) -> Iterator[socket.socket]:
    """Yield a duplicate of the helper's socket that is connected to `peer`, by pidfd_getfd(2)."""
    for name in os.listdir(f"/proc/{helper.pid}/fd"):
        if not re.match("socket:", os.readlink(f"/proc/{helper.pid}/fd/{name}")):
            continue
        copy = _pidfd_getfd(helper.pidfd, int(name))
        with socket.socket(fileno=copy) as candidate:
            try:
                if candidate.getpeername() == peer:
                    yield candidate
                    return
            except OSError:
                continue
    raise AssertionError("the helper has no such connection")


def _pidfd_getfd(pidfd: int, number: int) -> int:
    import ctypes  # noqa: PLC0415 -- for this one call

    libc = ctypes.CDLL(None, use_errno=True)
    copy = libc.syscall(438, pidfd, number, 0)
    assert copy >= 0, os.strerror(ctypes.get_errno())
    return int(copy)
