"""SHELL: finds the session that runs here and asks its operator socket for one document, for the container's commands.

Shows nothing and does not read what it is given.
"""

from __future__ import annotations

import os
import socket
from typing import Final

import h11

from codingagents.rewrite import places
from codingagents.supervisor.init_options import InitUsageError, parse
from codingagents.trust import linux, unix_socket
from codingagents.trust.errors import AgentError, NotFoundError, UsageError

_SECONDS: Final = 10.0
_MOST: Final = 1 << 22  # bytes of an answer


def the_one_that_runs() -> str:
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


def ask(directory: str, target: str) -> bytes:
    """Return the document of `GET target` of the session in `directory`.

    Raises `NotFoundError` where no session runs, `UsageError` for who is not root, `AgentError` where it does not
    answer.
    """
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
            return _converse(connection, target)
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotFoundError(f"no session runs in {directory}") from None
    except PermissionError:
        raise UsageError(f"only root may ask the session in {directory}") from None
    except (OSError, h11.RemoteProtocolError) as error:
        raise AgentError(f"the session in {directory} does not answer: {str(error) or 'no answer'}") from None
    finally:
        os.close(place)


def _converse(connection: socket.socket, target: str) -> bytes:
    http = h11.Connection(h11.CLIENT)
    request = h11.Request(method="GET", target=target, headers=[("Host", "localhost"), ("Connection", "close")])
    connection.sendall((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
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
