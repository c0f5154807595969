"""The agent of the task runner's tests: says to the runner what a test wrote, byte by byte, and passes descriptors.

Takes a JSON line a command on its standard input and answers each with one, as `session_agent` does. Knows where the
runner's socket is from its environment, and nothing of the protocol: requests come encoded.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

PATIENCE = 30.0
SOCKET = os.environ.get("AGENT_TASK_RUNNER_SOCKET", "")


class Asked:
    """A connection, and what its task writes."""

    def __init__(self) -> None:
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(PATIENCE)
        self.connection.connect(SOCKET)
        self.buffer = b""
        self.output = -1

    def send(self, data: bytes, descriptors: Sequence[int]) -> None:
        sent = socket.send_fds(self.connection, [data], list(descriptors)) if descriptors else 0
        if data[sent:]:
            self.connection.sendall(data[sent:])

    def line(self) -> str:
        while b"\n" not in self.buffer:
            try:
                data = self.connection.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return ""
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode(errors="replace")

    def close(self) -> None:
        self.connection.close()
        if self.output >= 0:
            os.close(self.output)


_asked: dict[str, Asked] = {}


def ask(name: str, request: str, files: list[str] | None = None) -> str:
    """Send a request with /dev/null and a pipe, or with `files` opened for reading and twice for appending."""
    asked = Asked()
    if files is None:
        asked.output, writing = os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        descriptors = [nothing, writing, writing]
    else:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        descriptors = [os.open(files[0], os.O_RDONLY), *(os.open(file, flags, 0o666) for file in files[1:])]
    try:
        asked.send(base64.b64decode(request), descriptors)
    finally:
        for descriptor in set(descriptors):
            os.close(descriptor)
    _asked[name] = asked
    return name


def connect(name: str) -> str:
    _asked[name] = Asked()
    return name


def say(name: str, data: str, descriptors: int = 0) -> str:
    """Send some bytes, with so many descriptors; return the errno's name where that fails."""
    try:
        _asked[name].send(base64.b64decode(data), [0] * descriptors)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    return ""


def line(name: str) -> str:
    return _asked[name].line()


def output(name: str) -> str:
    """Return what the task wrote, up to the end of its pipe."""
    with open(_asked[name].output, "rb", closefd=False) as file:
        return base64.b64encode(file.read()).decode()


def close(name: str) -> None:
    _asked.pop(name).close()


def answer(request: str) -> dict[str, Any]:
    """Send a request, and return all that came of it."""
    ask("answer", request)
    try:
        asked = _asked["answer"]
        lines = []
        while said := asked.line():
            lines.append(said)
        return {"lines": lines, "output": output("answer")}
    finally:
        close("answer")


def answer_many(requests: list[str]) -> list[list[str]]:
    """Send all of them at once; return the lines that each was answered with."""
    with selectors.DefaultSelector() as selector:
        lines: list[list[str]] = [[] for _ in requests]
        for number, request in enumerate(requests):
            asked = Asked()
            nothing = os.open(os.devnull, os.O_RDWR)
            asked.send(base64.b64decode(request), [nothing] * 3)
            os.close(nothing)
            selector.register(asked.connection, selectors.EVENT_READ, (number, asked))
        deadline = time.monotonic() + PATIENCE
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(1):
                number, asked = key.data
                said = asked.line()
                if said:
                    lines[number].append(said)
                while b"\n" in asked.buffer:
                    lines[number].append(asked.line())
                if not said:
                    selector.unregister(asked.connection)
                    asked.close()
        return lines


def spawn(request: str) -> int:
    """Have a process of its own ask and wait, as a task shell does; return its PID."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            ask("spawned", request)
            while line("spawned"):
                pass
        os._exit(0)
    return pid


def kill(pid: int, name: str) -> int:
    """Send a signal to a process that `spawn` made, and return how it ended, as waitpid(2) has it."""
    os.kill(pid, getattr(signal, name))
    return os.waitpid(pid, 0)[1]


def leave(code: int) -> None:
    os._exit(code)


def whoami() -> dict[str, int]:
    return {"pid": os.getpid(), "uid": os.getuid()}


VERBS: dict[str, Callable[..., Any]] = {
    verb.__name__: verb
    for verb in (ask, connect, say, line, output, close, answer, answer_many, spawn, kill, leave, whoami)
}


def main() -> None:
    print(json.dumps("up"), flush=True)
    while command := sys.stdin.readline():
        verb, *arguments = json.loads(command)
        print(json.dumps(VERBS[verb](*arguments)), flush=True)


main()
