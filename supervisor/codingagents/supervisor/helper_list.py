"""ENTRY: `coding-agents helper list`: asks a running session for its helpers, and prints them.

Shows what the session's supervisor says; looks at no helper itself, and changes nothing.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Final

import h11
import msgspec

from codingagents.rewrite import places
from codingagents.supervisor import helper_view
from codingagents.supervisor.helper_listing import HelperList
from codingagents.supervisor.init_options import InitUsageError, parse
from codingagents.trust import errors, linux, unix_socket, wire
from codingagents.trust.commandline import Parser
from codingagents.trust.errors import AgentError, NotFoundError, UsageError, WireError

_SECONDS: Final = 10.0
_MOST: Final = 1 << 22  # bytes of an answer
_REQUEST: Final = h11.Request(method="GET", target="/helpers", headers=[("Host", "localhost"), ("Connection", "close")])


def main(argv: list[str]) -> int:
    """Print the helpers of a session; 0.

    Raises `UsageError`; `NotFoundError` where no session runs; `AgentError` where it does not answer.
    """
    parser = Parser(
        prog="coding-agents helper list",
        description="List the helpers of a running session: state, requests, connections, memory.",
        epilog="exit codes: 0 ok; 1 the session does not answer; 2 usage; 3 there is no such session",
        allow_abbrev=False,
    )
    parser.add_argument("--session", metavar="DIR", help="the session's directory (default: that of the one that runs)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    document = _ask(options.session or _the_one_that_runs())
    listed: HelperList = _decode(document)
    if options.json:
        sys.stdout.write(msgspec.json.format(document, indent=2).decode().rstrip() + "\n")
    else:
        sys.stdout.write(helper_view.as_text(listed, sys.stdout.isatty()))
    return errors.EXIT_OK


def _the_one_that_runs() -> str:
    """Return the directory of the only session whose supervisor runs here, as its command line has it."""
    found = set()
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}").st_uid == 0:  # anyone can run a program of that name
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    directory = session_of(os.fsdecode(file.read()).split("\0")[:-1])
                if directory:
                    found.add(os.path.join(os.readlink(f"/proc/{pid}/cwd"), directory))
        except OSError:  # it ended, or is not ours to look at
            continue
    if not found:
        raise NotFoundError("no session runs here; name one by --session DIR")
    if len(found) > 1:
        raise UsageError(f"several sessions run here; name one by --session DIR: {', '.join(sorted(found))}")
    return found.pop()


def session_of(argv: list[str]) -> str:
    """Return the session directory that this command line of a supervisor names, "" where it is none."""
    module = "codingagents.supervisor"
    if module not in argv or argv[argv.index(module) + 1 :][:1] != ["init"]:
        return ""
    try:
        return parse(argv[argv.index(module) + 2 :]).session or ""
    except InitUsageError:
        return ""


def _ask(directory: str) -> bytes:
    """Return the document of `GET /helpers`."""
    try:
        place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NotFoundError(f"{directory}: {error.strerror}; --session takes a session's directory") from None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_SECONDS)
            connection.connect(unix_socket.address(place, places.OPERATOR_SOCKET))
            if linux.peer_of_unix_socket(connection) != os.geteuid():  # a directory named by somebody else's process
                raise AgentError(f"the socket in {directory} is not a session's: another user made it")
            return _converse(connection)
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotFoundError(f"no session runs in {directory}") from None
    except PermissionError:
        raise UsageError(f"only root may ask the session in {directory}") from None
    except (OSError, h11.RemoteProtocolError) as error:
        raise AgentError(f"the session in {directory} does not answer: {str(error) or 'no answer'}") from None
    finally:
        os.close(place)


def _converse(connection: socket.socket) -> bytes:
    http = h11.Connection(h11.CLIENT)
    connection.sendall((http.send(_REQUEST) or b"") + (http.send(h11.EndOfMessage()) or b""))
    status, content = 0, b""
    while len(content) < _MOST:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = connection.recv(65536)
            if not data and not status:
                break
            http.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            content += event.data
        else:
            break
    if status != 200:
        raise OSError(f"it says {status or 'nothing'}")
    return content


def _decode(document: bytes) -> HelperList:
    try:
        listed: HelperList = wire.decode(HelperList, document)
    except WireError as error:
        raise AgentError(f"the session's answer cannot be read: {error}; it may be of another version") from None
    return listed
