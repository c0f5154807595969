"""`helper list` without a session, and the operator's socket with callers that do not speak as they must."""

import functools
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from codingagents.rewrite import places
from codingagents.supervisor import __main__ as entry
from codingagents.supervisor import operator_client, operator_socket
from codingagents.trust import unix_socket

DOCUMENT = b'{"schema":"coding-agents/helpers/v1","session":"s-1","taken_at":"now","helpers":[]}\n'
GET = b"GET /helpers HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/usr/bin/python3", "-I", "-m", "codingagents.supervisor", "init", "--session", "/a", "--", "x"], "/a"),
        (["python", "-m", "codingagents.supervisor", "init", "--control-fd", "3", "--session=/b"], "/b"),
        (["python", "-m", "codingagents.supervisor", "init", "--", "x", "--session", "/c"], ""),
        (["python", "-m", "codingagents.supervisor", "init", "--nonsense"], ""),
        (["python", "-m", "codingagents.supervisor", "doctor"], ""),
        (["python", "-m", "codingagents.supervisor"], ""),
        (["cat"], ""),
        ([], ""),
    ],
)
def test_a_supervisor_is_known_by_its_command_line(argv: list[str], expected: str) -> None:
    assert operator_client.session_of(argv) == expected


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = entry.main(["helper", "list", *words])
    said = capsys.readouterr()
    assert said.out == ""
    return code, said.err


def test_where_no_session_is_it_is_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = f"coding-agents: no session runs in {tmp_path}\n"
    assert complaint(capsys, "--session", str(tmp_path)) == (3, nowhere)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "operator.sock"))
    assert complaint(capsys, "--session", str(tmp_path)) == (3, nowhere), "as after a KILL"
    code, said = complaint(capsys, "--session", str(tmp_path / "none"))
    assert (code, "No such file or directory" in said) == (3, True)


def serving(directory: Path, act: Callable[[], Awaitable[None]]) -> list[str]:
    """Serve `DOCUMENT` while `act` goes on; return the complaints."""
    complaints: list[str] = []

    async def document() -> bytes:
        return DOCUMENT

    async def scene() -> None:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(operator_socket.serve, str(directory), {"/helpers": document}, complaints.append)
                await trio.testing.wait_all_tasks_blocked()
                await act()
                nursery.cancel_scope.cancel()

    trio.run(scene)
    return complaints


def talk(directory: Path, data: bytes) -> bytes:
    answer = b""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(directory / "operator.sock"))
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        while piece := client.recv(65536):
            answer += piece
    return answer


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (GET, b"200"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET /helpers?x HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"DELETE /helpers HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"POST /helpers HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", b"405"),
        (b"HEAD /helpers HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"HEAD /helpers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n", b"400"),
        (b"\x16\x03\x01nonsense\r\n\r\n", b"400"),
        (b"GET /helpers HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /helpers HTTP/1.1\r\nX: " + b"x" * 20_000, b"431"),
    ],
)
def test_each_request_has_its_status(tmp_path: Path, request_bytes: bytes, status: bytes) -> None:
    async def act() -> None:
        answer = await trio.to_thread.run_sync(talk, tmp_path, request_bytes)
        assert answer.split(b" ")[1] == status
        assert (DOCUMENT in answer) == (status == b"200")

    assert serving(tmp_path, act) == []
    assert list(tmp_path.iterdir()) == [], "the socket is gone with the session"


@pytest.mark.parametrize("request_bytes", [b"", b"GET /hel", GET[:-2]])
def test_one_that_breaks_off_gets_nothing(tmp_path: Path, request_bytes: bytes) -> None:
    async def act() -> None:
        answer = await trio.to_thread.run_sync(talk, tmp_path, request_bytes)
        assert DOCUMENT not in answer
        assert b"200" in await trio.to_thread.run_sync(talk, tmp_path, GET), "and the next one is served"

    serving(tmp_path, act)


def test_a_directory_that_takes_no_socket_is_said(tmp_path: Path) -> None:
    (tmp_path / "operator.sock").touch()

    async def act() -> None:
        await trio.lowlevel.checkpoint()

    assert serving(tmp_path, act) == [f"no operator socket in {tmp_path}: Address already in use"]
    assert serving(tmp_path / "none", act) == [f"no operator socket in {tmp_path}/none: No such file or directory"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "it says 500"),
        (b"", "it says nothing"),
        (b"nonsense\r\n\r\n", "illegal status line"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "the session's answer cannot be read"),
    ],
)
def test_an_answer_that_cannot_be_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: bytes, why: str
) -> None:
    place = os.open(tmp_path, os.O_PATH)
    with unix_socket.bind(place, places.OPERATOR_SOCKET, 1) as listener:

        async def act() -> None:
            async with trio.open_nursery() as nursery:
                run = functools.partial(complaint, capsys, "--session", str(tmp_path))
                nursery.start_soon(lambda: trio.to_thread.run_sync(serve_once, listener, answer))
                code, said = await trio.to_thread.run_sync(run)
                assert code == 1
                assert why in said

        trio.run(act)
    os.close(place)


def test_a_socket_of_another_user_is_no_sessions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anyone can run a process that looks like a supervisor, and names a directory of their own."""
    place = os.open(tmp_path, os.O_PATH)
    with unix_socket.bind(place, places.OPERATOR_SOCKET, 1):
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        expected = f"coding-agents: the socket in {tmp_path} is not a session's: another user made it\n"
        assert complaint(capsys, "--session", str(tmp_path)) == (1, expected)
    os.close(place)


def serve_once(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(answer)


def test_the_list_is_printed_as_text_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def act() -> None:
        for words, start in (([], "session s-1 has no helpers"), (["--json"], '{\n  "schema"')):
            argv = ["helper", "list", "--session", str(tmp_path), *words]
            assert await trio.to_thread.run_sync(entry.main, argv) == 0
            assert capsys.readouterr().out.startswith(start)

    serving(tmp_path, act)


@pytest.mark.parametrize(("output", "code"), [(">/dev/null", 0), (">&-", 0), (">/dev/full", 1)])
def test_a_list_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path, output: str, code: int) -> None:
    command = (sys.executable, "-I", "-m", "codingagents.supervisor", "helper", "list", "--session", str(tmp_path))
    argv = ["sh", "-c", f'exec "$@" {output}', "sh", *command]

    async def act() -> None:
        done = await trio.run_process(argv, check=False, capture_stderr=True)
        assert done.returncode == code
        assert done.stderr.startswith(b"coding-agents: standard output cannot be written: " if code else b"")
        assert done.stderr.count(b"\n") == code

    serving(tmp_path, act)
