"""SHELL: the requester's side of a task: hands a command to the runner, passes signals on, ends as the command ended.

The agent waits for this at each of its commands, so its start is the point: nothing is imported that Python has not
loaded anyway, or that is not C (`signal`, `socket` and `os` cost milliseconds each). It runs as the agent, has no
rights of its own and decides nothing; where there is no runner it fails, and never runs the command itself.
"""

from __future__ import annotations

import _socket
import posix
import select
import sys
from posix import _exit as exit_now

from codingagents.supervisor.task_wire import MAX_LINE, Request, RequestError, encode_request

TYPE_CHECKING = False  # see signals.py
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Mapping
    from types import FrameType
    from typing import NoReturn

    Handler = Callable[[int, FrameType | None], object]
else:
    import _signal

ENGINE_FAILED = 125  # as `trust.errors.EXIT_ENGINE` and the two after it, which cost more to import than to repeat
NOT_EXECUTABLE = 126
NO_PROGRAM = 127
_PASSED_ON = (
    *(_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT),
    *(_signal.SIGUSR1, _signal.SIGUSR2, _signal.SIGCONT),
)
_STANDARD = (0, 1, 2)
_RESTORED = (_signal.SIGPIPE, _signal.SIGXFSZ)  # what Python ignores from its start on


class TaskError(Exception):
    """The command did not run, or nobody can tell how it ended: a sentence, and the code to end with."""

    def __init__(self, sentence: str, code: int = ENGINE_FAILED) -> None:
        """Hold both."""
        super().__init__(sentence)
        self.code = code


class Runner:
    """A connection to the runner, for one request."""

    def __init__(self, path: str) -> None:
        """Connect; `TaskError` where nobody listens at `path`, or not to us."""
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            self._socket.connect(path)
        except PermissionError:
            raise TaskError(f"only a session's agent and root may ask for tasks at {path}") from None
        except OSError as error:
            raise TaskError(f"no session takes tasks at {path}: {error.strerror}") from None
        self._asked = False
        self._early: list[int] = []
        self._buffer = b""
        self.ending: int | None = None  # the exit code, or -N for death by signal N
        self.terminal: int | None = None  # the master of the task's pseudo-terminal, once it came

    def fileno(self) -> int:
        """Return the descriptor that is readable when `hear` has something to read."""
        return self._socket.fileno()

    def ask(self, request: Request) -> None:
        """Send `request`, with the standard descriptors; `TaskError` where it cannot be sent."""
        try:
            data = memoryview(encode_request(request))
        except RequestError as error:
            raise TaskError(f"the command cannot be asked for: {error}") from None
        rights = b"".join(number.to_bytes(4, sys.byteorder) for number in _STANDARD)
        try:
            sent = self._socket.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
            while sent < len(data):
                sent += self._socket.send(data[sent:])
        except (BrokenPipeError, ConnectionResetError):
            return  # refused before all of it was read: the answer says why
        self._asked = True
        for number in self._early:
            self.pass_on(number)

    def pass_on(self, number: int, _frame: FrameType | None = None) -> None:
        """Have the task signalled; a handler of signals. What comes before the request is sent follows it."""
        if not self._asked:
            self._early.append(number)
            return
        try:
            self._socket.sendall(b"signal %d\n" % number)
        except OSError:
            return  # it is over: the answer, or EOF, is there to be read

    def hear(self) -> None:
        """Read once, and take in what the runner said; `TaskError` for what is not about the command's end."""
        try:
            data, ancillary, _flags, _address = self._socket.recvmsg(MAX_LINE, _socket.CMSG_SPACE(4))
        except ConnectionResetError:
            data, ancillary = b"", []
        for _level, _kind, rights in ancillary:
            if self.terminal is not None:
                posix.close(self.terminal)
            self.terminal = int.from_bytes(rights[:4], sys.byteorder)
        if not data:
            raise TaskError("the session ended before the command did")
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            word, _, rest = line.partition(b" ")
            if word == b"exited":
                self.ending = int(rest)
            elif word == b"killed":
                self.ending = -int(rest)
            elif word == b"failed":
                code, _, sentence = rest.partition(b" ")
                raise TaskError(sentence.decode("utf-8", "replace"), int(code))


def listen(handlers: Mapping[int, Handler]) -> int:
    """Have `handlers` called for their signals, but for those that were ignored when this program started.

    Returns a descriptor that becomes readable with each signal: a wait that it is part of ends, so that Python gets to
    call the handler. Without it a signal that comes just before the wait would be heard after it.
    """
    reader, writer = posix.pipe2(posix.O_NONBLOCK | posix.O_CLOEXEC)
    _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number, handler in handlers.items():
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, handler)
    return reader


def drain(woken: int) -> None:
    """Empty what `listen` returned."""
    try:
        posix.read(woken, 4096)
    except BlockingIOError:
        return


def suspend() -> None:
    """Stop this process as SIGTSTP does without a handler; returns when it goes on, or at once where it may not."""
    handler = _signal.signal(_signal.SIGTSTP, _signal.SIG_DFL)
    posix.kill(posix.getpid(), _signal.SIGTSTP)
    _signal.signal(_signal.SIGTSTP, handler)


def run(request: Request, path: str) -> int:
    """Have `request` run by the runner at `path`, to its end; returns its exit code, or -N for death by signal N.

    Raises `TaskError`.
    """
    runner = Runner(path)
    if request.terminal:
        from codingagents.supervisor.task_relay import relay  # noqa: PLC0415 -- most commands have no terminal

        return relay(runner, request)

    def stop(_number: int, _frame: FrameType | None) -> None:
        runner.pass_on(_signal.SIGSTOP)  # SIGTSTP would do nothing: the task's group is an orphaned one
        suspend()
        runner.pass_on(_signal.SIGCONT)

    woken = listen({**dict.fromkeys(_PASSED_ON, runner.pass_on), _signal.SIGTSTP: stop})
    runner.ask(request)
    poll = select.poll()
    poll.register(woken, select.POLLIN)
    poll.register(runner, select.POLLIN)
    while runner.ending is None:
        for descriptor, _ in poll.poll():
            if descriptor == woken:
                drain(woken)
            else:
                runner.hear()
    return runner.ending


def end_as(ending: int) -> NoReturn:
    """End this process as the command did: with exit code `ending`, or by signal -`ending`, without a core of it."""
    if ending < 0:
        import resource  # noqa: PLC0415 -- most commands end by themselves

        # 1 byte: that is no core for a file, and none for a program that core_pattern pipes them to (core(5)).
        _, most = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (min(1, most) if most >= 0 else 1, most))
        if -ending not in {_signal.SIGKILL, _signal.SIGSTOP}:
            _signal.signal(-ending, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [-ending])
        posix.kill(posix.getpid(), -ending)
        ending = 128 - ending  # the signal is one that does not end a process
    exit_now(ending)


def open_what_is_closed() -> None:
    """Have 0, 1 and 2 lead nowhere rather than to what is opened next."""
    for number in _STANDARD:
        try:
            posix.fstat(number)
        except OSError:
            posix.open("/dev/null", posix.O_RDWR)  # the lowest that is free


def window() -> tuple[int, int]:
    """Return rows and columns of the terminal on 0; 0 where it does not know."""
    columns, rows = posix.get_terminal_size(0)
    return rows, columns


def complain(sentence: str) -> None:
    """Say `sentence` on standard error, if that can be."""
    try:
        posix.write(2, f"coding-agents: {sentence}\n".encode("utf-8", "replace"))
    except OSError:
        return


def environment() -> list[tuple[bytes, bytes]]:
    """Return the variables that this process was started with: where the locale is C, Python adds one (PEP 538)."""
    pairs = (variable.partition(b"=") for variable in _strings("environ"))
    return [(name, value) for name, sign, value in pairs if name and sign]


def working_directory() -> bytes:
    """Return where this process is; `TaskError` where that has no path."""
    try:
        return posix.getcwdb()
    except OSError as error:
        raise TaskError(f"the working directory cannot be told: {error.strerror}") from None


def stand_for(shell: bytes, agent_uid: int, path: str) -> NoReturn:
    """Be `shell`, for a script of its name: a task of the runner at `path` for the agent, itself for everybody else.

    Everybody else is above all a task that calls a shell by the name that the agent gave it.
    """
    count = len(sys.argv) - 1  # Python has decoded them by the locale: as bytes they are elsewhere
    argv = [shell, *(_strings("cmdline")[-count:] if count else ())]
    if posix.getuid() != agent_uid:
        _become(shell, argv)
    try:
        open_what_is_closed()
        terminal = all(map(posix.isatty, _STANDARD))
        rows, columns = window() if terminal else (0, 0)
        request = Request(
            argv=argv,
            cwd=working_directory(),
            environment=environment(),
            terminal=terminal,
            rows=rows,
            columns=columns,
        )
        ending = run(request, path)
    except TaskError as error:
        complain(str(error))
        ending = error.code
    end_as(ending)


def _strings(name: str) -> list[bytes]:
    """Return the NUL-terminated strings of one of this process's files in /proc."""
    parts = []
    descriptor = posix.open(f"/proc/self/{name}", posix.O_RDONLY)
    while part := posix.read(descriptor, 1 << 20):
        parts.append(part)
    posix.close(descriptor)
    return b"".join(parts).split(b"\0")[:-1]


def _become(shell: bytes, argv: list[bytes]) -> NoReturn:
    if sys.argv[0].encode("utf-8", "surrogateescape") == shell:
        complain(f"{sys.argv[0]} is a task shell here, mounted over the shell that it stands for")
        exit_now(NOT_EXECUTABLE)
    for number in _RESTORED:
        _signal.signal(number, _signal.SIG_DFL)
    try:
        posix.execve(shell, argv, dict(environment()))
    except OSError as error:
        complain(f"cannot execute {shell.decode('utf-8', 'replace')}: {error.strerror}")
        exit_now(NO_PROGRAM if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)
