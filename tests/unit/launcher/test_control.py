"""The control channel over a real socket pair."""

import selectors
import socket
from collections.abc import Iterator

import pytest

from codingagents.launcher.engines.control import MAX_LINE, ControlChannel
from codingagents.rewrite.specs import AnyControl, ControlCheckpoint, RenewedSecrets, SessionSecrets
from codingagents.trust import wire
from codingagents.trust.errors import WireError
from codingagents.trust.vocabulary import Secret

SECRETS = SessionSecrets(secrets={"A": Secret("x" * 400_000)}, signing_key=Secret("k"))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_secrets_larger_than_the_socket_take_several_turns(pair: tuple[socket.socket, socket.socket]) -> None:
    """A supervisor that is slow to read does not block the launcher."""
    ours, theirs = pair
    channel = ControlChannel(ours, SECRETS, lambda _: None)
    received = bytearray()
    turns = 0
    while not received.endswith(b"\n"):
        channel.send()
        received += theirs.recv(1 << 20)
        turns += 1
    assert turns > 1
    assert wire.decode(SessionSecrets, received) == SECRETS
    assert channel.receive()  # nothing has come, and the other end is there


def test_renewed_secrets_follow_whole(pair: tuple[socket.socket, socket.socket]) -> None:
    """Also where the first line was not through yet."""
    ours, theirs = pair
    channel = ControlChannel(ours, SECRETS, lambda _: None)
    channel.send()
    renewed = RenewedSecrets(secrets={"A": Secret("y")})
    channel.renew(renewed)
    received = bytearray()
    while received.count(b"\n") < 2:
        channel.send()
        received += theirs.recv(1 << 20)
    first, second = received.splitlines()
    assert wire.decode(SessionSecrets, first) == SECRETS
    assert wire.decode(RenewedSecrets, second) == renewed
    assert channel.wanted == selectors.EVENT_READ


def test_messages_arrive_in_order_until_the_other_end_closes(pair: tuple[socket.socket, socket.socket]) -> None:
    """However the bytes were cut."""
    ours, theirs = pair
    seen: list[AnyControl] = []
    channel = ControlChannel(ours, SECRETS, seen.append)
    sent = [ControlCheckpoint(note="one"), ControlCheckpoint(note="two")]
    data = b"".join(map(wire.encode, sent))
    theirs.sendall(data[:10])
    assert channel.receive()
    theirs.sendall(data[10:])
    theirs.close()
    assert not channel.receive()
    assert seen == sent


@pytest.mark.parametrize("line", [b"{}\n", b'{"control":"other"}\n', b"\xff\n", b"x" * (MAX_LINE + 1)])
def test_what_is_no_message_is_an_error(pair: tuple[socket.socket, socket.socket], line: bytes) -> None:
    """A line without an end is one as well."""
    ours, theirs = pair
    channel = ControlChannel(ours, SECRETS, lambda _: None)
    theirs.sendall(line)
    with pytest.raises(WireError):
        channel.receive()


def test_a_supervisor_that_is_gone_ends_the_sending(pair: tuple[socket.socket, socket.socket]) -> None:
    """Its exit code is what is reported, not a broken pipe."""
    ours, theirs = pair
    channel = ControlChannel(ours, SECRETS, lambda _: None)
    theirs.close()
    channel.send()
    assert not channel.receive()
