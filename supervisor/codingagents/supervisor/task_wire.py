r"""CORE: what a task shell and the supervisor say to each other on the runner's socket. Imports nothing; no I/O.

Shared by both ends, so that they cannot differ; the task shell, whose start everybody waits for, loads only this.

The client connects (a stream) and sends one request: a head, `T1 LENGTH\n`, and LENGTH bytes of NUL-terminated byte
strings, with the descriptors that are to be the task's 0, 1 and 2 as SCM_RIGHTS on its first byte. A variable that
somebody asked for by its name, and not just has, is written `=NAME=VALUE`. From then on the client may send `signal N`
lines. It is answered with lines: at most one `terminal`, which brings the master of the task's
pseudo-terminal as SCM_RIGHTS, then `started PID`, then `exited CODE` or `killed SIGNAL`; or, instead of `started`,
`failed CODE SENTENCE`: our own failure, with an engine's exit code. EOF from the client ends the task, whatever it is
doing; EOF from the supervisor means that the session has ended.
"""

from __future__ import annotations

TYPE_CHECKING = False  # see signals.py
if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_HEAD = 16  # bytes, newline included
MAX_REQUEST = 4 * 1024 * 1024  # bytes; execve(2) takes 2 MiB by default
MAX_LINE = 64 * 1024  # of an answer, or of what the client says later
_MAX_STRINGS = 131072
_MAGIC = b"T1 "
_KINDS = (b"pipes", b"terminal")


class RequestError(ValueError):
    """What arrived is no request; the text is one clause."""


class Request:
    """What a client asks for: `argv` to be run in `cwd`, with what of `environment` a task may have, and with `named`.

    All strings are bytes as the client has them; none holds a NUL. `rows` and `columns` are of its window, 0 where
    unknown, and mean nothing without `terminal`.
    """

    __slots__ = ("argv", "columns", "cwd", "environment", "named", "rows", "terminal")

    def __init__(
        self,
        *,
        argv: Sequence[bytes],
        cwd: bytes,
        environment: Sequence[tuple[bytes, bytes]],
        named: Sequence[tuple[bytes, bytes]] = (),
        terminal: bool = False,
        rows: int = 0,
        columns: int = 0,
    ) -> None:
        """Hold these; nothing is checked."""
        self.argv = argv
        self.cwd = cwd
        self.environment = environment
        self.named = named
        self.terminal = terminal
        self.rows = rows
        self.columns = columns


def encode_request(request: Request) -> bytes:
    """Return a request as it is sent, head included; `RequestError` where it is too long, or a string holds a NUL."""
    strings = [
        _KINDS[request.terminal],
        b"%d" % request.rows,
        b"%d" % request.columns,
        request.cwd,
        b"%d" % len(request.argv),
        *request.argv,
        *(name + b"=" + value for name, value in request.environment),
        *(b"=" + name + b"=" + value for name, value in request.named),
    ]
    body = b"\0".join(strings) + b"\0"
    if body.count(b"\0") != len(strings):
        raise RequestError("a string holds a NUL")
    if len(body) > MAX_REQUEST:
        raise RequestError(f"it is over {MAX_REQUEST} bytes")
    return _MAGIC + b"%d\n" % len(body) + body


def body_length(head: bytes) -> int:
    """Return how many bytes follow `head`, a line without its newline; `RequestError` where it is none."""
    number = head[len(_MAGIC) :]
    if not head.startswith(_MAGIC) or not _is_number(number):
        raise RequestError("it does not start as a request")
    if int(number) > MAX_REQUEST:
        raise RequestError(f"it is over {MAX_REQUEST} bytes")
    return int(number)


def parse_request(body: bytes) -> Request:
    """Return the request that `body` holds; `RequestError` where it holds none."""
    if not body.endswith(b"\0") or body.count(b"\0") > _MAX_STRINGS:
        raise RequestError("its strings are not terminated, or too many")
    kind, *strings = body[:-1].split(b"\0")
    if kind not in _KINDS or len(strings) < 4:
        raise RequestError("it is neither for pipes nor for a terminal")
    rows, columns, cwd, count, *rest = strings
    if not (_is_number(rows) and _is_number(columns) and _is_number(count)):
        raise RequestError("a number in it is none")
    arguments = int(count)
    if not 1 <= arguments <= len(rest) or not rest[0]:
        raise RequestError("it names no program")
    if not cwd.startswith(b"/"):
        raise RequestError("its working directory is not absolute")
    environment: list[tuple[bytes, bytes]] = []
    named: list[tuple[bytes, bytes]] = []
    for variable in rest[arguments:]:
        is_named = variable.startswith(b"=")
        name, sign, value = variable[is_named:].partition(b"=")
        if not (name and sign):
            raise RequestError("a variable in it has no name or no value")
        (named if is_named else environment).append((name, value))
    return Request(
        argv=rest[:arguments],
        cwd=cwd,
        environment=environment,
        named=named,
        terminal=kind == b"terminal",
        rows=min(int(rows), 0xFFFF),
        columns=min(int(columns), 0xFFFF),
    )


def parse_signal(line: bytes) -> int:
    """Return N of a `signal N` line, 1 to 64; `RequestError` where it is none."""
    word, _, number = line.partition(b" ")
    if word != b"signal" or not _is_number(number) or not 1 <= int(number) <= 64:
        raise RequestError("it is no signal")
    return int(number)


def _is_number(text: bytes) -> bool:
    return 0 < len(text) <= 9 and text.isdigit()
