"""ENTRY: `coding-agents trust reload`: asks a running session's launcher to trust as the configuration now says.

Parses, asks over the launcher's socket, and prints what became of each server. Reads no configuration itself.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path

import msgspec

from codingagents.launcher.reload_plan import ReloadReport, ReloadRequest, sentences
from codingagents.launcher.session_trust import PATIENCE_SECONDS
from codingagents.launcher.terminal import say
from codingagents.launcher.trust_shared import Actions, base, parser_text
from codingagents.rewrite import places
from codingagents.trust import linux, unix_socket, wire
from codingagents.trust.errors import (
    EXIT_OK,
    EXIT_REFUSED,
    AgentError,
    ConfigError,
    NotFoundError,
    UsageError,
    WireError,
)
from codingagents.trust.terminal import printable
from codingagents.trust.vocabulary import parse_session_id

MAX_REPORT = 4 * 1024 * 1024  # bytes
# One reload may be before ours in the line.
_SECONDS = 2 * PATIENCE_SECONDS + 10

_HELP = """\
Have a running session trust its servers as config.toml, ca_file and the overrides say now.

Everything is read and checked again, as at the start; where anything is wrong, nothing changes. Connections that the
new pins and anchors would accept live on, the others are closed. A set that a helper cannot use is refused, and the
former one holds. What else changed in config.toml is not taken, and named.

SESSION is the session's id, or its directory. SIGHUP to a `coding-agents run` without a terminal does the same.

exit codes:
  0 taken, or nothing to take · 1 something was refused · 2 usage · 3 no such session runs
"""


def add_parser(actions: Actions) -> None:
    """Add `reload` below `trust`."""
    parser = actions.add_parser("reload", **parser_text(_HELP))
    parser.add_argument("session", metavar="SESSION", help="its id, or its directory")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=_reload)


def _reload(options: argparse.Namespace) -> int:
    report = ask(directory_of(options.session, base()))
    if options.json:
        sys.stdout.write(msgspec.json.format(wire.encode(report), indent=2).decode().rstrip() + "\n")
    else:
        for warning in report.warnings:
            say(f"warning: {warning}")
        for sentence in sentences(report):
            sys.stdout.write(printable(sentence) + "\n")
    return EXIT_REFUSED if report.refused else EXIT_OK


def directory_of(session: str, base_directory: Path) -> Path:
    """Return the directory of the session that is named by its id or directory; `UsageError` for what is neither."""
    if "/" in session:
        return Path(session)
    try:
        return base_directory / places.SESSIONS / parse_session_id(session)
    except ConfigError as error:
        raise UsageError(f"{error}; or a path, with a / in it") from None


def ask(directory: Path) -> ReloadReport:
    """Ask the launcher of the session in `directory`. Raises `NotFoundError` where none runs, or `AgentError`."""
    try:
        place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NotFoundError(f"there is no session {directory}: {error.strerror}") from None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_SECONDS)
            connection.connect(unix_socket.address(place, places.LAUNCHER_SOCKET))
            if linux.peer_of_unix_socket(connection) not in {0, os.geteuid()}:
                raise AgentError(f"the socket in {directory} is not a session's: another user made it")
            connection.sendall(wire.encode(ReloadRequest()))
            report: ReloadReport = wire.decode(ReloadReport, _line(connection))
            return report
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotFoundError(f"no session runs in {directory}") from None
    except PermissionError:
        raise UsageError(f"only root may ask the session in {directory}") from None
    except (OSError, WireError) as error:
        raise AgentError(f"the session in {directory} does not answer: {error}") from None
    finally:
        os.close(place)


def _line(connection: socket.socket) -> bytes:
    lines = wire.LineBuffer(MAX_REPORT)
    while data := connection.recv(1 << 16):
        if found := lines.feed(data):
            return found[0]
    raise WireError("it ended, or was asked too much at once")
