"""A runner without a session: takes requests on a socket of its own and runs them as this user, with no sandbox.

It is for tests of the client, which no session need be started for, and says what no runner says when a test wants it.

with standing_in(directory):
    subprocess.run([install(directory, os.getuid()), "-c", "…"])
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from codingagents.supervisor import shells
from codingagents.supervisor.task_wire import Request, body_length, parse_request, parse_signal

_SOCKET = "runner.sock"
Said = Callable[[socket.socket, Request, list[int]], None]


def install(directory: Path, agent_uid: int) -> str:
    """Write the task shells of a runner in `directory` below it, and return that of bash."""
    (directory / "shells").mkdir()
    shells.install(
        agent_uid,
        shells=f"{directory}/shells",
        client=f"{directory}/client",
        runner=f"{directory}/{_SOCKET}",
    )
    return f"{directory}/shells/bash"


def receive(connection: socket.socket) -> tuple[Request, list[int]]:
    """Return a request and the descriptors that came with it."""
    rights = array.array("i")
    data, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(16 * rights.itemsize))
    for _, _, raw in ancillary:
        rights.frombytes(raw)
    while b"\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\n")
    while len(body) < body_length(head):
        body += connection.recv(1 << 20)
    return parse_request(body), list(rights)


def run(connection: socket.socket, request: Request, descriptors: list[int]) -> None:
    """Run `request` to its end, with what the client signals meanwhile, and kill it where the client goes."""
    master = -1
    if request.terminal:
        master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", request.rows, request.columns, 0, 0))
        socket.send_fds(connection, [b"terminal\n"], [master])
        _close(descriptors)
        descriptors += [slave, slave, slave]
    pid = os.fork()
    if not pid:
        _become(request, descriptors)
    _close(descriptors)
    if master >= 0:
        os.close(master)
    pidfd = os.pidfd_open(pid)
    connection.sendall(b"started %d\n" % pid)
    buffer = b""
    while True:
        ready, _, _ = select.select([connection.fileno(), pidfd], [], [])
        if pidfd in ready:
            break
        data = connection.recv(65536)
        *lines, buffer = (buffer + data).split(b"\n")
        for number in map(parse_signal, lines) if data else (signal.SIGKILL,):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)
        if not data:
            break
    _, status = os.waitpid(pid, 0)
    os.close(pidfd)
    number = status & 0x7F
    with contextlib.suppress(OSError):
        connection.sendall(b"killed %d\n" % number if number else b"exited %d\n" % (status >> 8))


def _become(request: Request, descriptors: list[int]) -> None:
    try:
        os.setsid()
        for number, descriptor in enumerate(os.dup(each) for each in descriptors):
            os.dup2(descriptor, number)
        if request.terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.closerange(3, 256)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(request.cwd)
        os.execvpe(request.argv[0], list(request.argv), dict(request.environment))
    finally:
        os._exit(127)


def _close(descriptors: list[int]) -> None:
    while descriptors:
        number = descriptors.pop()
        if number not in descriptors:
            os.close(number)


@contextlib.contextmanager
def standing_in(directory: Path, say: Said = run) -> Iterator[str]:
    """Listen below `directory` and have `say` answer each request, in a thread; yields the socket's path."""
    path = f"{directory}/{_SOCKET}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(128)

        def serve(connection: socket.socket) -> None:
            with connection:
                request, descriptors = receive(connection)
                say(connection, request, descriptors)
                _close(descriptors)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield path
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
