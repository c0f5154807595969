"""SHELL: what a helper in the foreground has around it: console, socket, bearer's file, confinement.

What is said on the console is `console`'s to word. Everything made here is gone at the end.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import resource
import socket
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator

from codingagents.proxies import compiled, console
from codingagents.rewrite.foreground_plan import ForegroundSpec
from codingagents.trust import bpf, linux
from codingagents.trust.errors import ProcessError, UsageError
from codingagents.trust.facts import AnyFact

_BACKLOG = 128


class Console:
    """Writes facts to standard output, and to the file of `--events` where there is one."""

    def __init__(self, spec: ForegroundSpec, on_gone: Callable[[], None]) -> None:
        """Open the file; `UsageError` where that fails. `on_gone` is called once one of the two takes no more."""
        self._on_gone = on_gone
        self._spec = spec
        self._server = spec.helper.remote.name
        self._color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._events = None if spec.events is None else _open_events(spec.events)

    def introduce(self, reached: console.Reached, confined: str) -> None:
        """Say where the helper is."""
        if self._spec.as_json:
            self._print(console.introduction_json(self._spec, reached, confined, compiled.form(), _now()))
        else:
            self._lines(console.introduction(self._spec, reached, confined, compiled.form(), color=self._color))

    def fact(self, fact: AnyFact) -> None:
        """Say `fact`."""
        now = _now()
        line = console.fact_json(fact, self._server, now)
        if self._events is not None:
            self._record(self._events, line)
        if self._spec.as_json:
            self._print(line)
        else:
            self._lines(console.fact_lines(fact, self._server, now, color=self._color))

    def _lines(self, lines: list[str]) -> None:
        self._print("".join(f"{line}\n" for line in lines).encode())

    def _record(self, descriptor: int, line: bytes) -> None:
        try:
            os.write(descriptor, line)
        except OSError as error:
            sys.stderr.write(f"coding-agents: cannot write {self._spec.events}: {error.strerror}; ending\n")
            self._events = None
            self._on_gone()

    def _print(self, data: bytes) -> None:
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # else who read it has gone, or the terminal was hung up
                sys.stderr.write(f"coding-agents: standard output cannot be written: {error.strerror}; ending\n")
            os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())
            self._on_gone()


def _open_events(path: str) -> int:
    """Open the file of `--events`, for writes that wait as those to a terminal do; `UsageError` where that fails."""
    try:
        # A pipe that nobody reads would be waited for here, and no Ctrl-C heard: open(2), ENXIO.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o600)
        os.set_blocking(descriptor, True)
    except OSError as error:
        reason = "nobody reads it; start its reader first" if error.errno == errno.ENXIO else error.strerror
        raise UsageError(f"--events: cannot write {path}: {reason}") from None
    return descriptor


def confine() -> str:
    """Put on what an ordinary process can put on itself, for good, and say what that is and what it is not."""
    machine = linux.machine()
    denied = bpf.give(bpf.errno_action(errno.EPERM))
    execs = (bpf.on_call(number, denied) for number in machine.numbers("execve", "execveat"))
    x32 = bpf.KILL_PROCESS if machine.has_x32 else None
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        linux.set_no_new_privs()
        linux.install_filter(bpf.assemble(bpf.prologue(machine.audit_arch, x32), *execs, bpf.give(bpf.ALLOW)))
        linux.prctl(linux.PR_SET_DUMPABLE, 0)
    except OSError as error:
        raise ProcessError(f"the helper cannot be kept from starting programs: {error.strerror}") from None
    who = "root" if os.getuid() == 0 else f"UID {os.getuid()}"
    return (
        f"runs as {who}, with all that {who} may read and reach; starts no program, leaves no core and cannot be "
        "traced. A session's helper has a UID of its own and reads nothing"
    )


@contextlib.contextmanager
def listening(spec: ForegroundSpec) -> Iterator[socket.socket]:
    """Bind what the specification says; the path of a unix socket is ours alone, and gone at the end."""
    path = spec.socket_path
    try:
        if path:
            listener = socket.socket(socket.AF_UNIX)
            former = os.umask(0o177)
            try:
                listener.bind(path)
            finally:
                os.umask(former)
        else:
            listener = socket.socket(socket.AF_INET)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", spec.helper.listen_port))
        listener.listen(_BACKLOG)
    except OSError as error:
        what = path or f"127.0.0.1:{spec.helper.listen_port}"
        raise UsageError(f"--listen: cannot listen on {what}: {error.strerror}") from None
    made = os.stat(path) if path else None
    with listener:
        try:
            yield listener
        finally:
            with contextlib.suppress(OSError):
                if made is not None and os.path.samestat(os.stat(path), made):
                    os.unlink(path)


@contextlib.contextmanager
def bearer_file(spec: ForegroundSpec) -> Iterator[str]:
    """Write the local bearer where it is demanded, for our user alone, and yield the file's path, else ""."""
    if "bearer" not in spec.helper.remote.client_auth:
        yield ""
        return
    with _private_directory() as directory:
        path = f"{directory}/bearer"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(spec.helper.bearer.reveal())
        yield path


@contextlib.contextmanager
def _private_directory() -> Iterator[str]:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    usable = False
    with contextlib.suppress(OSError):
        found = os.stat(runtime)
        usable = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    try:
        directory = tempfile.TemporaryDirectory(prefix="coding-agents-helper-", dir=runtime if usable else None)
    except OSError as error:
        raise ProcessError(f"cannot keep the local bearer in {error.filename}: {error.strerror}") from None
    with directory as path:
        yield path


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
