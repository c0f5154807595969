"""A helper whose listener belongs to another network namespace: its clients are inside, its server outside."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from codingagents.proxies.peer_uid import NETLINK_SOCK_DIAG, question
from codingagents.rewrite.specs import RemoteSpec
from codingagents.trust import facts
from helper_rig import PATIENCE, Helper, Zygote, closing_children, code, read_all, read_response, status
from scripted_upstream import Upstream

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="network namespaces and UIDs of helpers: needs root")

STRANGER = 58017
_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
CALL = """
import socket, sys
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
client.sendall(sys.stdin.buffer.read())
sys.stdout.buffer.write(client.recv(65536))
"""
_Result = TypeVar("_Result")


class Namespace:
    """A network namespace with a loopback interface, and a thread in it: sockets made there belong to it for good."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self.run(self._enter)

    @staticmethod
    def _enter() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))

    def run(self, function: Callable[[], _Result]) -> _Result:
        return self._thread.submit(function).result(PATIENCE)

    def call(self, uid: int, port: int, request: bytes) -> bytes:
        """Send `request` from inside, as another user."""
        command = [sys.executable, "-I", "-c", CALL, str(port)]
        who: dict[str, Any] = {"user": uid, "group": uid, "extra_groups": []}
        done = self.run(lambda: subprocess.run(command, input=request, capture_output=True, check=True, **who))
        return bytes(done.stdout)

    def close(self) -> None:
        self._thread.shutdown()


def sock_diag() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with closing_children(), Zygote() as started:
        yield started


@pytest.fixture(scope="module")
def inside() -> Iterator[Namespace]:
    namespace = Namespace()
    yield namespace
    namespace.close()


def listener_of(inside: Namespace) -> socket.socket:
    return inside.run(lambda: socket.create_server(("127.0.0.1", 0)))


def test_clients_inside_are_known_by_a_netlink_socket_from_inside(zygote: Zygote, inside: Namespace) -> None:
    """The agent is served, others are refused by their UIDs, and nobody outside reaches the port."""
    with Upstream() as upstream, inside.run(sock_diag) as diag:
        agent = STRANGER + 1
        with Helper(zygote, upstream.remote(), listener=listener_of(inside), sock_diag=diag, agent_uid=agent) as helper:
            request = helper.head(length=0)
            assert status(inside.call(agent, helper.port, request)) == 200
            assert code(inside.call(STRANGER, helper.port, request)) == "uid_refused"
            assert helper.fact(facts.Refused).peer_user_id == STRANGER
            assert code(inside.call(0, helper.port, request)) == "uid_refused"
            assert helper.fact(facts.Refused).peer_user_id == 0
            with pytest.raises(ConnectionRefusedError):
                helper.connect()
            assert len(upstream.received) == 1


@pytest.mark.parametrize("wrong", ["outside", "another", "none"])
def test_a_netlink_socket_of_the_wrong_namespace_refuses_everybody(
    zygote: Zygote, inside: Namespace, wrong: str
) -> None:
    """The control: it knows no such connection, and what is not known is refused."""
    other = Namespace() if wrong == "another" else None
    diag = None if wrong == "none" else other.run(sock_diag) if other else sock_diag()
    with Upstream() as upstream:
        with Helper(zygote, upstream.remote(), listener=listener_of(inside), sock_diag=diag, agent_uid=0) as helper:
            assert code(inside.call(0, helper.port, helper.head(length=0))) == "uid_refused"
            assert helper.fact(facts.Refused).peer_user_id is None
        assert upstream.received == []
    if diag is not None:
        diag.close()
    if other is not None:
        other.close()


def test_it_holds_three_descriptors_and_says_so(zygote: Zygote, inside: Namespace) -> None:
    """The listing from outside and its own agree; the third is the netlink socket that was passed."""
    remote = RemoteSpec(name="quiet", scheme="http", host="127.0.0.1", port=9, path="/mcp")
    with (
        inside.run(sock_diag) as diag,
        Helper(zygote, remote, listener=listener_of(inside), sock_diag=diag) as helper,
    ):
        folder = Path(f"/proc/{helper.pid}/fd")
        outside = {name: os.readlink(folder / name) for name in os.listdir(folder)}
        assert outside == dict(line.split(" ", 1) for line in helper.ready.open_fds)
        assert outside["4"] == os.readlink(f"/proc/self/fd/{helper.listener.fileno()}")
        assert outside["5"] == os.readlink(f"/proc/self/fd/{diag.fileno()}")


def test_answers_to_a_former_holder_of_the_socket_are_nobodys(zygote: Zygote, inside: Namespace) -> None:
    """Questions that a helper asked before it died leave answers in the socket; the next one begins without them."""
    with inside.run(sock_diag) as diag, Upstream() as upstream, listener_of(inside) as listener:
        port = listener.getsockname()[1]
        with inside.run(lambda: socket.create_connection(("127.0.0.1", port))) as early:
            for sequence in range(1, 20):
                diag.sendto(question(early.getsockname(), early.getpeername(), sequence), (0, 0))
            listener.accept()[0].close()
        with Helper(zygote, upstream.remote(), listener=listener, sock_diag=diag, agent_uid=0) as helper:

            def request() -> bytes:
                client = socket.socket()
                client.settimeout(PATIENCE)
                client.connect(("127.0.0.1", helper.port))
                with client:
                    client.sendall(helper.head(length=0))
                    return read_response(client)

            assert status(inside.run(request)) == 200


@pytest.mark.parametrize("kind", ["tcp", "route"])
def test_a_third_descriptor_of_another_kind_ends_the_helper(zygote: Zygote, inside: Namespace, kind: str) -> None:
    """Before it serves anybody."""
    remote = RemoteSpec(name="quiet", scheme="http", host="127.0.0.1", port=9, path="/mcp")
    made = socket.socket() if kind == "tcp" else socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 0)
    with made, Helper(zygote, remote, start=False, listener=listener_of(inside), sock_diag=made) as helper:
        helper.send_spec(remote)
        assert b"must be a NETLINK_SOCK_DIAG socket" in read_all(helper.channel)
        assert helper.wait() == 1
