"""Who is at the other end: the kernel's real answers, and those that must not be believed."""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from codingagents.proxies.peer_uid import NETLINK_SOCK_DIAG, Owner, PeerUid, allowed, parse_answer, question
from codingagents.trust.errors import ProcessError


@contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket, socket.socket]]:
    """A client, the server's end of it, and the listening socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        with accepted:
            yield client, accepted, listener


def ask(client: tuple[str, int], server: tuple[str, int]) -> Owner | None:
    with closing(PeerUid()) as peers:
        return peers.owner(client, server)


def test_an_open_connection_has_its_owner() -> None:
    """UID and inode are those of this process's own socket."""
    with connection() as (client, accepted, _):
        owner = ask(client.getsockname(), accepted.getsockname())
        assert owner == Owner(True, os.getuid(), os.fstat(client.fileno()).st_ino)
        assert allowed(owner, os.getuid())
        assert not allowed(owner, os.getuid() + 1)


def test_a_closed_connection_is_nobodys() -> None:
    """The kernel says inode 0, and UID 0 or the one that it was of; neither is anybody's."""
    with connection() as (client, accepted, _):
        address, server = client.getsockname(), accepted.getsockname()
        client.close()
        owner = ask(address, server)
        assert owner is None or owner.inode == 0
        assert not allowed(owner, 0)
        assert not allowed(owner, os.getuid())


def test_a_half_closed_connection_is_not_enough() -> None:
    """A client that has shut down its side has an owner still, but is no longer established."""
    with connection() as (client, accepted, _):
        client.shutdown(socket.SHUT_WR)
        owner = ask(client.getsockname(), accepted.getsockname())
        assert not allowed(owner, os.getuid())


def test_a_reset_connection_does_not_exist() -> None:
    """ENOENT, which is an error message."""
    with connection() as (client, accepted, _):
        address, server = client.getsockname(), accepted.getsockname()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert ask(address, server) is None


def test_a_listener_does_not_answer_for_a_connection_that_is_not_there() -> None:
    """The kernel falls back to a listening socket at the address; its owner connected to nothing."""
    with connection() as (_, _, listener):
        assert ask(listener.getsockname(), ("127.0.0.1", 1)) is None


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        (None, False),
        (Owner(True, 1000, 7), True),
        (Owner(False, 1000, 7), False),
        (Owner(True, 1000, 0), False),
        (Owner(True, 0, 0), False),
        (Owner(True, 1001, 7), False),
    ],
)
def test_only_an_established_socket_of_the_right_user_is_let_through(owner: Owner | None, expected: bool) -> None:
    """Everything else is refused, UID 0 and inode 0 above all."""
    assert allowed(owner, 1000) == expected


def test_an_answer_to_another_question_is_not_believed() -> None:
    """Sequence, addresses, type and length must be those of the question."""
    client, server = ("127.0.0.1", 1234), ("127.0.0.1", 80)
    sockid = question(client, server, 9)[24:72]
    body = struct.pack("=BBBB", socket.AF_INET, 1, 0, 0) + sockid + struct.pack("=IIIII", 0, 0, 0, 1000, 7)
    good = struct.pack("=IHHII", 16 + len(body), 20, 0, 9, 0) + body
    assert parse_answer(good, client, server, 9) == Owner(True, 1000, 7)
    assert parse_answer(good, client, server, 8) is None
    assert parse_answer(good, ("127.0.0.1", 1235), server, 9) is None
    assert parse_answer(good[:-1], client, server, 9) is None
    assert parse_answer(good[:4] + struct.pack("=H", 2) + good[6:], client, server, 9) is None
    assert parse_answer(b"", client, server, 9) is None


def test_a_socket_that_was_passed_is_asked_and_begins_without_old_answers() -> None:
    """What its former holder asked for is thrown away, whatever sequence it has."""
    passed = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG)
    with connection() as (client, accepted, _), closing(PeerUid(passed)) as peers:
        address, server = client.getsockname(), accepted.getsockname()
        for sequence in range(1, 5):
            passed.send(question(server, address, sequence))
        with closing(PeerUid(passed.dup())) as next_holder:
            with pytest.raises(BlockingIOError):
                passed.recv(8192)
            assert next_holder.owner(address, server) == peers.owner(address, server) == ask(address, server)


@pytest.mark.parametrize(("family", "protocol"), [(socket.AF_INET, 0), (socket.AF_NETLINK, 0)])
def test_a_socket_of_another_kind_is_refused(family: int, protocol: int) -> None:
    """Nothing that answers could be taken for the kernel."""
    kind = socket.SOCK_DGRAM
    with socket.socket(family, kind, protocol) as other, pytest.raises(ProcessError, match="NETLINK_SOCK_DIAG"):
        PeerUid(other)
