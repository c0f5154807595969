"""ENTRY: `coding-agents wrap`: puts wrappers in the place of clients' programs, takes them back, and lists them."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Final

import msgspec

from codingagents.rewrite import places
from codingagents.supervisor.wrap_rules import vendor_beside
from codingagents.supervisor.wrapping import Wrapping, locate
from codingagents.trust import errors
from codingagents.trust.commandline import Parser, complain
from codingagents.trust.errors import AgentError, UsageError

_DESCRIPTION: Final = """\
Guard the programs of clients (claude, codex, copilot) in an image, so that none runs unconfined by mistake.

install puts a wrapper in the place of BINARY; what stood there, a file or a link, is beside it from then on under the
name coding-agents-vendor-NAME. The wrapper runs it only as the agent of a session, behind the agent's layers, and else
refuses with 126. NAME exec COMMAND…, NAME run COMMAND… and NAME shell run a command, or a shell, as a task; where the
client has a subcommand of that name (codex exec), it stays the client's.

remove puts back what stood there. Both can be repeated, and go on where a former run was killed. An update of the
client may put its program in the wrapper's place; list says so, a session says so at its start, and install mends it.
"""
_EPILOG: Final = f"""\
examples:
  RUN coding-agents wrap install claude codex       in a Dockerfile, as the last step that needs them
  coding-agents wrap list --json
  coding-agents wrap remove /usr/local/bin/claude

files: {places.WRAPPERS} (what is wrapped, with the SHA-256 of either file)

exit codes: 0 ok; 1 one must not or cannot be wrapped, or is no longer what it was (list); 2 usage; 3 it is not there
"""


def main(argv: list[str]) -> int:
    """Install, remove or list wrappers; says a sentence for each. Raises `UsageError`."""
    parser = Parser(
        prog="coding-agents wrap",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="install|remove|list")
    for name, text in (("install", "put a wrapper in the place of each"), ("remove", "put back what stood there")):
        command = commands.add_parser(name, help=text, description=f"{text.capitalize()}.", allow_abbrev=False)
        command.add_argument("binary", nargs="+", metavar="BINARY", help="a path, or a name that is in PATH")
    listing = commands.add_parser("list", help="say what is wrapped, and whether it still is", allow_abbrev=False)
    listing.add_argument("--json", action="store_true", help="print one JSON array")
    options = parser.parse_args(argv)
    if options.command == "list":
        return _list(Wrapping(), as_json=options.json)
    if os.geteuid() != 0:
        raise UsageError(f"wrap {options.command} changes programs that are root's; run it as root")
    return _each(Wrapping(), options.command, options.binary)


def _each(wrapping: Wrapping, command: str, binaries: list[str]) -> int:
    """Work on each, whatever became of the others; returns the highest code."""
    code = errors.EXIT_OK
    work = wrapping.install if command == "install" else wrapping.remove
    for binary in binaries:
        try:
            sys.stdout.write(f"{work(locate(binary, os.environ.get('PATH', places.SYSTEM_PATH)))}\n")
        except AgentError as error:
            complain(str(error))
            code = max(code, error.exit_code)
    return code


def _list(wrapping: Wrapping, *, as_json: bool) -> int:
    found = list(wrapping.survey())
    if as_json:
        rows = [
            {**msgspec.to_builtins(record), "vendor": vendor_beside(record.path), "state": state}
            for record, state, _ in found
        ]
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode() + "\n")
    else:
        sys.stdout.write("".join(f"{sentence}\n" for _, _, sentence in found) or "nothing is wrapped\n")
    return errors.EXIT_OK if all(state == "wrapped" for _, state, _ in found) else errors.EXIT_REFUSED
