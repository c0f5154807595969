"""The launcher's socket with callers of all kinds; integration/ tries it with other users and a whole session."""

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from codingagents.launcher import reload_socket, trust_reload
from codingagents.launcher.reload_plan import ReloadReport, ReloadRequest, ServerReload
from codingagents.launcher.reload_socket import MAX_CALLERS, Caller, ReloadSocket
from codingagents.trust import linux, wire
from codingagents.trust.errors import AgentError, NotFoundError, UsageError

REQUEST = wire.encode(ReloadRequest())


class Desk:
    def __init__(self, directory: Path) -> None:
        self.complaints: list[str] = []
        self.directory = directory
        self.socket = ReloadSocket(directory, self.complaints.append)

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        connection.connect(str(self.directory / "launcher.sock"))
        return connection

    def turns(self, count: int = 3) -> list[Caller]:
        """Attend while there is something to do, so often at most."""
        asked: list[Caller] = []
        for _ in range(count):
            if not select.select([self.socket], [], [], 0.2)[0]:
                break
            asked += self.socket.attend()
        return asked


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.socket.close()
    assert os.listdir(tmp_path) == []
    assert made.complaints == []


def test_a_request_is_heard_however_it_is_cut_and_its_answer_comes_whole(desk: Desk) -> None:
    report = ReloadReport(session="s-1", servers=[ServerReload(server=f"s{n}", outcome="taken") for n in range(20_000)])
    with desk.connect() as connection:
        connection.sendall(REQUEST[:7])
        assert desk.turns() == []
        connection.sendall(REQUEST[7:])
        (caller,) = desk.turns()
        desk.socket.answer(caller, report)
        connection.setblocking(False)
        data = b""
        while not data.endswith(b"\n"):
            desk.turns(1)
            data += connection.recv(1 << 20)
        assert wire.decode(ReloadReport, data) == report
        desk.turns()
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"{}x\n", b"x" * 2000, REQUEST[:-2] + b',"x":1}\n', REQUEST.replace(b"trust", b"all")]
)
def test_who_sends_something_else_is_dropped(desk: Desk, data: bytes) -> None:
    with desk.connect() as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert desk.turns() == []
        with contextlib.suppress(ConnectionResetError):  # of what it was not read of
            assert connection.recv(1) == b""


def test_who_goes_on_after_its_request_or_leaves_gets_no_answer(desk: Desk) -> None:
    for leaves in (True, False):
        with desk.connect() as connection:
            connection.sendall(REQUEST)
            (caller,) = desk.turns()
            if not leaves:
                connection.sendall(REQUEST)
        desk.turns()
        desk.socket.answer(caller, ReloadReport(session="s-1"))
        desk.turns()


def test_who_leaves_before_it_reads_is_forgotten(desk: Desk) -> None:
    with desk.connect() as connection:
        connection.sendall(REQUEST)
        (caller,) = desk.turns()
    desk.socket.answer(caller, ReloadReport(session="s-1"))
    desk.turns()
    assert caller.connection.fileno() < 0


def test_only_so_many_at_a_time_and_not_for_long(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = []
    for _ in range(MAX_CALLERS):
        slow.append(desk.connect())
        desk.turns(1)
    with desk.connect() as one_more:
        desk.turns(1)
        assert one_more.recv(1) == b""
    later = time.monotonic() + reload_socket.SECONDS
    monkeypatch.setattr(time, "monotonic", lambda: later)
    desk.socket.attend()
    for connection in slow:
        assert connection.recv(1) == b""
        connection.close()


def test_another_user_is_turned_away(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for uid, heard in ((12345, 0), (0, 1)):
        monkeypatch.setattr(linux, "peer_of_unix_socket", lambda _, uid=uid: uid)
        with desk.connect() as connection:
            connection.sendall(REQUEST)
            assert len(desk.turns()) == heard


def test_where_there_is_no_room_for_it_the_session_goes_on(tmp_path: Path) -> None:
    (tmp_path / "launcher.sock").touch()
    desk = Desk(tmp_path)
    assert desk.turns() == []
    desk.socket.close()
    (complaint,) = desk.complaints
    assert complaint.startswith("warning: this session's trust cannot be reloaded: no socket in")
    assert (tmp_path / "launcher.sock").exists(), "it is not ours"


# -- the caller's side --------------------------------------------------------------------------------------------


def test_a_session_is_named_by_id_or_directory() -> None:
    base = Path("/home/x/.config/coding-agents")
    assert trust_reload.directory_of("20270301-9f86d081", base) == base / "sessions" / "20270301-9f86d081"
    assert trust_reload.directory_of("./here", base) == Path("here")
    with pytest.raises(UsageError, match="or a path"):
        trust_reload.directory_of("No Session", base)


def test_without_a_session_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no session"):
        trust_reload.ask(tmp_path / "none")
    with pytest.raises(NotFoundError, match="no session runs in"):
        trust_reload.ask(tmp_path)


def test_an_impostor_and_one_that_does_not_answer_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "launcher.sock"))
        listener.listen(2)
        monkeypatch.setattr(trust_reload, "_SECONDS", 0.1)
        with pytest.raises(AgentError, match="does not answer: timed out"):
            trust_reload.ask(tmp_path)
        monkeypatch.setattr(linux, "peer_of_unix_socket", lambda _: 12345)
        with pytest.raises(AgentError, match="another user made it"):
            trust_reload.ask(tmp_path)
