"""The agent of session tests: does what each JSON line on its standard input says, and answers each with one line.

Knows only the client configuration that the session wrote for it, and the standard library. It judges nothing.
"""

from __future__ import annotations

import errno
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import SplitResult, urlsplit

CONFIG = "/run/coding-agents/clients/claude/mcp.json"
SESSION_CA = "/run/coding-agents/session-ca.pem"
SOCKETS = "/run/coding-agents/mcp"

_held: dict[str, tuple[http.client.HTTPConnection, http.client.HTTPResponse]] = {}
_heard: list[str] = []


def _entry(server: str) -> tuple[SplitResult, str]:
    with open(CONFIG) as file:
        entry = json.load(file)["mcpServers"][server]
    return urlsplit(entry["url"]), entry["headers"]["Authorization"]


def endpoint(server: str) -> tuple[str, int, str, str]:
    url, bearer = _entry(server)
    return url.hostname or "", url.port or 0, url.path, bearer


class UnixConnection(http.client.HTTPConnection):
    """HTTP to the unix socket of a server, whose client configuration no client has."""

    def __init__(self, server: str) -> None:
        super().__init__("localhost", timeout=20)
        self._path = f"{SOCKETS}/{server}.sock"

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _send(server: str, below: str) -> http.client.HTTPConnection:
    connection: http.client.HTTPConnection
    headers = {"Content-Type": "application/json"}
    if os.path.exists(f"{SOCKETS}/{server}.sock"):
        connection, path = UnixConnection(server), "/mcp"
    else:
        url, headers["Authorization"] = _entry(server)
        host, port, path = url.hostname or "", url.port, url.path
        if url.scheme == "https":
            trust = ssl.create_default_context(cafile=SESSION_CA)
            connection = http.client.HTTPSConnection(host, port, timeout=20, context=trust)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=20)
    connection.request("POST", path + below, "{}", headers)
    return connection


def post(server: str, below: str = "") -> dict[str, Any]:
    """Ask the server, and say what came back and after how long."""
    begun = time.monotonic()
    answer: dict[str, Any]
    try:
        connection = _send(server, below)
        response = connection.getresponse()
        answer = {"status": response.status, "body": response.read().decode()}
        connection.close()
    except (OSError, http.client.HTTPException) as error:
        answer = {"status": None, "error": type(error).__name__}
    return answer | {"seconds": time.monotonic() - begun}


def post_at_once(*requests: list[str]) -> list[dict[str, Any]]:
    """Do as many `post`s, each in a thread; return their answers in the same order."""
    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(lambda request: post(*request), requests))


def begin(server: str, below: str) -> dict[str, Any]:
    """Ask the server, and leave the answer unfinished after its first line."""
    connection = _send(server, below)
    response = connection.getresponse()
    _held[server] = connection, response
    return {"status": response.status, "line": response.readline().decode()}


def finish(server: str) -> dict[str, Any]:
    """Read the rest of what `begin` began."""
    connection, response = _held.pop(server)
    try:
        return {"rest": response.read().decode(), "error": None}
    except (OSError, http.client.HTTPException) as error:
        return {"rest": None, "error": type(error).__name__}
    finally:
        connection.close()


def run(*argv: str) -> dict[str, Any]:
    """Run a program to its end."""
    try:
        done = subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    except OSError as error:
        return {"errno": errno.errorcode.get(error.errno or 0), "code": None}
    return {"errno": None, "code": done.returncode, "output": done.stdout.decode()}


def execute(
    path: str, argv: list[str], by: str = "path", cwd: str = "/", more: dict[str, str] | None = None
) -> dict[str, Any]:
    """Execute `path` in a child: by its name, a descriptor of it, or a copy of it in memory; `more` are variables."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        code = 0
        try:
            os.chdir(cwd)
            program: str | int = path
            if by != "path":
                program = os.open(path, os.O_RDONLY)
            if by == "memory":
                memory = os.memfd_create("copy", 0)
                while sent := os.sendfile(memory, int(program), None, 1 << 20):
                    assert sent
                program = memory
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)  # ours is for answers
            os.execve(program, argv, {**os.environ, **(more or {})})
        except OSError as error:
            code = error.errno or 255
        finally:
            os.write(theirs, errno.errorcode.get(code, "?").encode())
            os._exit(0)
    os.close(theirs)
    with open(ours) as said:  # which ends where nothing was said at the exec
        failed = said.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"errno": failed or None, "code": None if failed else code}


def copy(source: str, target: str, line: str = "") -> None:
    """Copy a program, or write one that has this `#!` line, and make it executable."""
    if line:
        with open(target, "w") as file:
            file.write(f"{line}\n")
    else:
        shutil.copyfile(source, target)
    os.chmod(target, 0o755)


def run_many(count: int, at_once: int) -> dict[str, int]:
    """Run /bin/true so often, from so many threads; return how often each outcome came."""
    with ThreadPoolExecutor(at_once) as pool:
        done = pool.map(lambda number: run("/bin/true", f"exec-{number}"), range(count))
        return dict(Counter(str(each["errno"] or each["code"]) for each in done))


def call(name: str, *arguments: Any) -> str:
    """Call a function of `os` and return the errno's name, or "" where it worked."""
    try:
        getattr(os, name)(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    return ""


def status() -> dict[str, str]:
    with open("/proc/self/status") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def daemonise(*argv: str) -> None:
    """Leave a program running that is no longer below us: forked twice, in a session of its own."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            os.execv(argv[0], argv)
        os._exit(0)
    os.wait()


def listen(*names: str) -> None:
    """Note these signals instead of acting on them."""
    for name in names:
        signal.signal(getattr(signal, name), lambda number, _: _heard.append(signal.Signals(number).name))


def heard() -> list[str]:
    return list(_heard)


def ignore(*names: str) -> None:
    for name in names:
        signal.signal(getattr(signal, name), signal.SIG_IGN)


def leave(code: int) -> None:
    os._exit(code)


def die(name: str) -> None:
    os.kill(os.getpid(), getattr(signal, name))


def whoami() -> dict[str, int]:
    return {"pid": os.getpid(), "parent": os.getppid()}


VERBS: dict[str, Callable[..., Any]] = {
    verb.__name__: verb
    for verb in (
        *(endpoint, post, post_at_once, begin, finish),
        *(run, run_many, execute, copy, daemonise, call, status, whoami),
        *(listen, heard, ignore, leave, die),
    )
}


def main() -> None:
    print(json.dumps("up"), flush=True)
    # Not `for line in sys.stdin`: its read-ahead is not retried after a signal in every version.
    while line := sys.stdin.readline():
        verb, *arguments = json.loads(line)
        print(json.dumps(VERBS[verb](*arguments)), flush=True)


main()
