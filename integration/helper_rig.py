"""Real helper processes for integration tests and benchmarks: a zygote, helpers cloned by it, their facts.

with Zygote() as zygote, Helper(zygote, remote) as helper:
    helper.request(b"GET /mcp HTTP/1.1\\r\\n…")
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Self, TypeVar

from codingagents.rewrite.specs import AnyHelperCommand, Cloned, CloneRequest, HelperSpec, RemoteSpec
from codingagents.trust import facts, wire
from codingagents.trust.vocabulary import Secret

PATIENCE = 10.0  # seconds; only a failing test waits that long
HELPER_UID = 58011  # no account of a Debian or Ubuntu machine has it
BEARER = "local-bearer-of-this-test"
TOKEN = "upstream-token-of-this-test"

_Fact = TypeVar("_Fact", bound=facts.Fact)


class Zygote:
    """The zygote process and our end of its socket."""

    def __init__(self, prefix: tuple[str, ...] = ()) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [
                    *(*prefix, sys.executable, "-I", "-m", "codingagents.proxies.zygote"),
                    *("--fd", str(theirs.fileno())),
                ],
                pass_fds=[theirs.fileno()],
                env={},
            )
        self.socket = ours

    def clone(self, server: str, *descriptors: int) -> tuple[Cloned, list[int]]:
        socket.send_fds(self.socket, [wire.encode(CloneRequest(server=server))], descriptors)
        return self.answer()

    def answer(self) -> tuple[Cloned, list[int]]:
        data, received, _, _ = socket.recv_fds(self.socket, 4096, 4)
        cloned: Cloned = wire.decode(Cloned, data)
        return cloned, list(received)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        assert self.process.wait(PATIENCE) == 0


class Helper:
    """One helper process, made as the supervisor makes it."""

    def __init__(
        self,
        zygote: Zygote,
        remote: RemoteSpec,
        *,
        start: bool = True,
        listener: socket.socket | None = None,
        sock_diag: socket.socket | None = None,
        **spec: Any,
    ) -> None:
        """Make it listen on `listener`, or on a free port; with `start` its spec, changed by `spec`, is sent."""
        self.listener = listener or socket.create_server(("127.0.0.1", 0))
        on_tcp = self.listener.family == socket.AF_INET
        self.port: int = self.listener.getsockname()[1] if on_tcp else 0
        self.channel, theirs = socket.socketpair()
        passed = [self.listener.fileno(), *([] if sock_diag is None else [sock_diag.fileno()])]
        with theirs:
            cloned, descriptors = zygote.clone(remote.name, theirs.fileno(), *passed)
        assert cloned.pid is not None, cloned.error
        self.pid = cloned.pid
        (self.pidfd,) = descriptors
        self._lines = wire.LineBuffer()
        self._facts: list[facts.AnyFact] = []
        self.status: int | None = None
        if start:
            try:
                self.send_spec(remote, **spec)
                self.ready = self.fact(facts.Ready)
            except BaseException:
                self.__exit__()
                raise

    def send_spec(self, remote: RemoteSpec, **changes: Any) -> None:
        fields: dict[str, Any] = {
            "remote": remote, "uid": HELPER_UID, "gid": HELPER_UID, "agent_uid": os.getuid(), "listen_port": self.port,
            "bearer": Secret(BEARER), "secrets": {"TOKEN": Secret(TOKEN)},
        }  # fmt: skip
        self.channel.sendall(wire.encode(HelperSpec(**fields | changes), reveal_secrets=True))

    def tell(self, command: AnyHelperCommand) -> None:
        self.channel.sendall(wire.encode(command, reveal_secrets=True))

    def fact(self, kind: type[_Fact]) -> _Fact:
        """Return the next fact of `kind`, dropping those before it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            while self._facts:
                found: Any = self._facts.pop(0)
                if isinstance(found, kind):
                    return found
                assert not isinstance(found, facts.Failed), found.reason
            readable, _, _ = select.select([self.channel], [], [], max(0, deadline - time.monotonic()))
            assert readable, f"no {kind.__name__} fact"
            data = self.channel.recv(1 << 16)
            assert data, f"the helper ended before a {kind.__name__} fact"
            self._facts += [wire.decode(facts.AnyFact, line) for line in self._lines.feed(data)]

    def signal(self, number: signal.Signals) -> None:
        signal.pidfd_send_signal(self.pidfd, number)

    def wait(self) -> int:
        """Return the exit code, negative for a signal, as the supervisor would get it from its own child."""
        if self.status is None:
            readable, _, _ = select.select([self.pidfd], [], [], PATIENCE)
            assert readable, "the helper does not end"
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def connect(self) -> socket.socket:
        client = socket.socket(self.listener.family)
        client.settimeout(PATIENCE)
        try:
            client.connect(self.listener.getsockname())
        except OSError:
            client.close()
            raise
        if client.family != socket.AF_UNIX:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def head(
        self, first: str = "POST /mcp HTTP/1.1", *more: str, bearer: str = BEARER, length: int | None = None
    ) -> bytes:
        host = f"127.0.0.1:{self.port}" if self.port else "localhost"
        lines = [first, f"Host: {host}", f"Authorization: Bearer {bearer}", *more]
        if length is not None:
            lines.append(f"Content-Length: {length}")
        return "\r\n".join([*lines, "", ""]).encode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        with contextlib.suppress(ProcessLookupError):
            if self.status is None and not select.select([self.pidfd], [], [], PATIENCE)[0]:
                self.signal(signal.SIGKILL)
        self.wait()
        os.close(self.pidfd)
        self.listener.close()


def read_all(client: socket.socket) -> bytes:
    """Return everything until the end of the stream."""
    pieces = iter(lambda: client.recv(1 << 16), b"")
    return b"".join(pieces)


def read_response(client: socket.socket) -> bytes:
    """Return one response, read to its Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(1 << 16)
        assert piece, f"broken off after {data!r}"
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = (
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    )
    while len(body) < length:
        piece = client.recv(1 << 16)
        assert piece, f"broken off after {data!r}"
        body += piece
    return head + b"\r\n\r\n" + body


def ask(helper: Helper, data: bytes) -> bytes:
    """Send `data` on a connection of its own and return the one response."""
    with helper.connect() as client:
        client.sendall(data)
        return read_response(client)


def status(response: bytes) -> int:
    return int(response.split(b" ", 2)[1])


def code(response: bytes) -> str:
    """Return the stable code of an answer that the helper made itself; it never holds what is secret."""
    content: dict[str, Any] = json.loads(response.partition(b"\r\n\r\n")[2])
    assert TOKEN not in repr(response)
    assert BEARER not in repr(response)
    found: str = content["error"]["data"]["code"] if "error" in content else content["code"]
    return found


@contextlib.contextmanager
def closing_children() -> Iterator[None]:
    """Assert that the block left no child of ours behind."""
    yield
    try:
        left = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return
    assert left is None, f"a child was not waited for: {left}"
