"""Whose a client connection is; the kernel's answers themselves are `test_peer_uid`'s."""

import asyncio
import os
import socket

import pytest

from codingagents.proxies.listening import Peers
from codingagents.proxies.peer_uid import NETLINK_SOCK_DIAG
from codingagents.rewrite.specs import HelperSpec, Listen, RemoteSpec
from codingagents.trust.vocabulary import Secret


def peers(listen: Listen, agent_uid: int, sock_diag: socket.socket | None = None) -> Peers:
    remote = RemoteSpec(name="s", scheme="https", host="mcp.example", port=443, path="/mcp", listen=listen)
    spec = HelperSpec(remote=remote, uid=1, gid=1, agent_uid=agent_uid, listen_port=0, bearer=Secret("b"), secrets={})
    return Peers(spec, sock_diag)


def test_a_transport_without_a_socket_is_nobodys() -> None:
    """TLS transports have none between the loss of their connection and the news of it."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG) as sock_diag:
        assert peers("https", os.getuid(), sock_diag).look(asyncio.Transport()) == (False, None)
    assert peers("unix", os.getuid()).look(asyncio.Transport()) == (False, None)


@pytest.mark.parametrize(("difference", "allowed"), [(0, True), (1, False)])
def test_a_unix_socket_is_its_callers(difference: int, allowed: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport = asyncio.Transport(extra={"socket": ours})
        assert peers("unix", os.getuid() + difference).look(transport) == (allowed, os.getuid())
