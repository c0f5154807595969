"""The supervisor's end of the control descriptor, over real sockets, pipes and files."""

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from codingagents.rewrite.specs import AnyControl, ControlCheckpoint, RenewedSecrets, SessionSecrets
from codingagents.supervisor.control import Control
from codingagents.trust import wire
from codingagents.trust.errors import ProcessError, WireError
from codingagents.trust.vocabulary import Secret

SECRETS = SessionSecrets(secrets={"A": Secret("x" * 300_000)}, signing_key=Secret("k"))
LINE = wire.encode(SECRETS, reveal_secrets=True)


@dataclass(frozen=True)
class Pair:
    launcher: socket.socket
    control: Control

    def drained(self) -> bytes:
        """Everything that was sent and not read yet."""
        self.launcher.setblocking(False)
        data = bytearray()
        with contextlib.suppress(BlockingIOError):
            while more := self.launcher.recv(65536):
                data += more
        return bytes(data)


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    control = Control(theirs.detach())
    with ours:
        yield Pair(ours, control)
    control.close()


def note(number: int, size: int = 10) -> ControlCheckpoint:
    return ControlCheckpoint(note=f"{number} ".ljust(size, "."))


def test_secrets_come_however_they_are_cut(pair: Pair) -> None:
    async def send() -> None:
        for at in range(0, len(LINE), 50_000):
            await trio.to_thread.run_sync(pair.launcher.sendall, LINE[at : at + 50_000])

    async def scene() -> SessionSecrets:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            return await pair.control.receive_secrets()

    assert not pair.control.secrets_came.is_set()
    assert trio.run(scene) == SECRETS
    assert pair.control.secrets_came.is_set()


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_secrets_come_over_a_pipe_or_from_a_file_too(kind: str, tmp_path: Path) -> None:
    (tmp_path / "line").write_bytes(wire.encode(SECRETS, reveal_secrets=True))
    descriptor = os.open(tmp_path / "line", os.O_RDONLY)
    if kind == "pipe":
        line = wire.encode(SessionSecrets(secrets={}, signing_key=Secret("k")), reveal_secrets=True)
        os.close(descriptor)
        descriptor, write_end = os.pipe()
        os.write(write_end, line)
        os.close(write_end)
    control = Control(descriptor)

    async def scene() -> SessionSecrets:
        secrets = await control.receive_secrets()
        with trio.move_on_after(0.05):
            await control.next_renewal()
            pytest.fail("the end of a pipe or file is not the launcher's")
        return secrets

    assert trio.run(scene).signing_key.reveal() == "k"
    control.send(note(1))  # nobody is there to hear it
    control.close()


def test_a_launcher_that_ends_before_it_sent_anything_is_said(pair: Pair) -> None:
    pair.launcher.sendall(LINE[:1000])
    pair.launcher.shutdown(socket.SHUT_WR)
    with pytest.raises(ProcessError, match="before it sent the session's secrets"):
        trio.run(pair.control.receive_secrets)
    assert not pair.control.secrets_came.is_set()


def test_nonsense_is_refused_without_being_shown(pair: Pair) -> None:
    pair.launcher.sendall(b'{"secrets": {"A": ["s3cr3t-value"]}}\n')
    with pytest.raises(WireError) as refused:
        trio.run(pair.control.receive_secrets)
    assert "s3cr3t" not in str(refused.value)


@pytest.mark.parametrize("unread", [False, True])
def test_the_launchers_end_is_seen(pair: Pair, unread: bool) -> None:
    """Also when it leaves something unread, which makes of the end a reset."""
    if unread:
        pair.control.send(note(1))
    pair.launcher.close()

    async def scene() -> None:
        with trio.fail_after(5):
            assert await pair.control.next_renewal() is None

    trio.run(scene)


def renewal(value: str) -> bytes:
    return wire.encode(RenewedSecrets(secrets={"A": Secret(value)}), reveal_secrets=True)


@pytest.mark.parametrize("together", [False, True])
def test_renewed_secrets_come_after_the_first_line(pair: Pair, together: bool) -> None:
    """Also in one piece with it; one that is none is said, without being shown, and the next one is heard."""
    small = SessionSecrets(secrets={}, signing_key=Secret("k"))
    lines = [wire.encode(small, reveal_secrets=True), renewal("one"), b'{"secrets": "s3cr3t"}\n', renewal("two")]

    async def scene() -> None:
        with trio.fail_after(5):
            pair.launcher.sendall(b"".join(lines) if together else lines[0])
            await pair.control.receive_secrets()
            if not together:
                pair.launcher.sendall(b"".join(lines[1:])[:-5])
            first = await pair.control.next_renewal()
            with pytest.raises(WireError) as refused:
                await pair.control.next_renewal()
            assert "s3cr3t" not in str(refused.value)
            if not together:
                pair.launcher.sendall(lines[-1][-5:])
            second = await pair.control.next_renewal()
            assert isinstance(first, RenewedSecrets)
            assert isinstance(second, RenewedSecrets)
            assert [each.secrets["A"].reveal() for each in (first, second)] == ["one", "two"]

    trio.run(scene)


def test_messages_arrive_whole_and_in_order(pair: Pair) -> None:
    sent: list[AnyControl] = [note(1), note(3), note(2)]
    for message in sent:
        pair.control.send(message)
    assert pair.drained() == b"".join(map(wire.encode, sent))


def test_a_launcher_that_does_not_read_blocks_nobody_and_gets_no_torn_line(pair: Pair) -> None:
    """Whole messages are left out; the one that the socket took in part is completed before the next."""
    for number in range(50):
        pair.control.send(note(number, size=101_001))
    first = pair.drained()
    assert not first.endswith(b"\n"), "nothing was cut, so nothing is tested"
    for number in range(50, 100):
        pair.control.send(note(number, size=101_001))
    lines = (first + pair.drained()).split(b"\n")[:-1]
    notes: list[ControlCheckpoint] = [wire.decode(AnyControl, line) for line in lines]
    numbers = [int(message.note.split()[0]) for message in notes]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 0
    assert numbers[-1] >= 50, "nothing was sent once there was room again"
    assert len(numbers) < 50


def test_a_launcher_that_is_gone_is_no_error(pair: Pair) -> None:
    pair.launcher.close()
    pair.control.send(note(1))
    pair.control.send(note(2))


def test_the_descriptor_is_not_for_children() -> None:
    ours, theirs = socket.socketpair()
    theirs.set_inheritable(True)
    control = Control(theirs.fileno())
    assert not theirs.get_inheritable()
    control.close()
    theirs.detach()
    ours.close()


def test_a_number_that_is_no_descriptor_is_said() -> None:
    with pytest.raises(ProcessError, match="descriptor 987 "):
        Control(987)
