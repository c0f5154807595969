"""A loopback port that plain HTTP goes to, held by the agent: the credential must not be sent to it.

The server is a process of its own, of the agent's UID or, as the control, of another.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from codingagents.rewrite.specs import HeaderTemplate, LimitsSpec, RemoteSpec
from codingagents.trust import facts
from helper_rig import PATIENCE, TOKEN, Helper, Zygote, closing_children

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="helpers take UIDs of their own: needs root")

AGENT, OTHER = 58051, 58052  # of no account
# Says its port, accepts one connection if it is told to, answers, and says what it was sent.
SERVER = """
import os, socket, sys
uid, host, accepts = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "accepts"
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET,
    dualstack_ipv6=host == "::")
print(listener.getsockname()[1], flush=True)
if not accepts:
    sys.stdin.read()
connection, _ = listener.accept()
received = connection.recv(65536)
if received:
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
print(received.decode("latin-1"))
"""


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with closing_children(), Zygote() as started:
        yield started


@contextmanager
def server(uid: int, host: str, accepts: str = "accepts") -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-I", "-c", SERVER, str(uid), host, accepts]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def remote(process: subprocess.Popen[str], host: str) -> RemoteSpec:
    assert process.stdout is not None
    return RemoteSpec(
        name="dev",
        scheme="http",
        host="::1" if host == "::1" else "127.0.0.1",
        port=int(process.stdout.readline()),
        path="/mcp",
        client_auth=["bearer"],
        headers=[HeaderTemplate(name="Authorization", template="Bearer ${TOKEN}")],
        limits=LimitsSpec(connect_seconds=0.5),
    )


def answer(helper: Helper) -> bytes:
    with helper.connect() as client:
        client.settimeout(PATIENCE)
        client.sendall(helper.head(length=0))
        return client.recv(65536)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::", "::1"])
def test_the_agent_that_holds_the_servers_port_is_sent_nothing(zygote: Zygote, host: str) -> None:
    """Also over a socket that takes both families, as those of Node do. The same server as another user gets it."""
    with server(AGENT, host) as process, Helper(zygote, remote(process, host), agent_uid=AGENT) as helper:
        assert b'"code":"server_is_agent"' in answer(helper)
        assert helper.fact(facts.UpstreamFailed).error_type == "server_is_agent"
        assert process.communicate()[0].strip() == ""
    with server(OTHER, host) as process, Helper(zygote, remote(process, host), agent_uid=AGENT) as helper:
        assert answer(helper).startswith(b"HTTP/1.1 200 ")
        assert f"Bearer {TOKEN}" in process.communicate()[0]


def test_a_connection_that_the_agent_leaves_in_its_queue_is_sent_nothing(zygote: Zygote) -> None:
    """Until it is accepted the kernel says that it is nobody's: UID 0."""
    host = "127.0.0.1"
    with server(AGENT, host, "waits") as process, Helper(zygote, remote(process, host), agent_uid=AGENT) as helper:
        assert b'"code":"connect_timeout"' in answer(helper)
        assert process.communicate("")[0].strip() == ""


def test_the_kernel_calls_an_unaccepted_connection_nobodys() -> None:
    """What the test above depends on."""
    from codingagents.proxies.peer_uid import Owner, PeerUid  # noqa: PLC0415 -- needed here only

    peers = PeerUid()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        assert peers.owner(client.getpeername(), client.getsockname()) == Owner(True, 0, 0)
        accepted, _ = listener.accept()
        with accepted:
            owner = peers.owner(client.getpeername(), client.getsockname())
            assert owner == Owner(True, os.getuid(), os.fstat(accepted.fileno()).st_ino)
    peers.close()
