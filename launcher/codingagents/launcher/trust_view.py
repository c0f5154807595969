"""SHELL: `coding-agents trust list`, `show` and `remove`: which overrides there are, for whom, and who uses them.

What certificates say is printed escaped. Decides nothing.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path

from codingagents.launcher.running_trust import sessions_with
from codingagents.launcher.terminal import say
from codingagents.launcher.trust_shared import (
    Actions,
    base,
    certificate_lines,
    parser_text,
    print_json,
    print_table,
    store,
    users,
)
from codingagents.rewrite.certificates import describe, to_pem
from codingagents.rewrite.overrides import Override
from codingagents.trust.errors import EXIT_OK
from codingagents.trust.terminal import printable

_COLUMNS = ("name", "scope", "expires", "pins", "used by", "sha256")
_OVERRIDDEN = "OVERRIDDEN"

_LIST = """\
List the overrides: for which hosts, until when, who uses them, and whether they override pins.
"""
_SHOW = """\
Show one override and what its certificates say.
"""
_REMOVE = """\
Forget an override. Servers that name it in ca_overrides are refused until it is taken out there.

Sessions that run keep the trust that they started with; those that hold this override are listed.
"""


def add_parsers(actions: Actions) -> None:
    """Add `trust list`, `trust show` and `trust remove`."""
    listing = actions.add_parser("list", **parser_text(_LIST))
    listing.set_defaults(run=_list)
    showing = actions.add_parser("show", **parser_text(_SHOW))
    showing.set_defaults(run=_show)
    showing.add_argument("--pem", action="store_true", help="its certificates, as PEM, and nothing else")
    removing = actions.add_parser("remove", **parser_text(_REMOVE))
    removing.set_defaults(run=_remove)
    for each in (showing, removing):
        each.add_argument("name", metavar="NAME")
    for each in (listing, showing):
        each.add_argument("--json", action="store_true", help="for programs")
    for each in (listing, showing, removing):
        each.add_argument("--config", metavar="FILE", type=Path, help="configuration, for who uses an override")


def _list(options: argparse.Namespace) -> int:
    overrides = [found.override for found in store().all()]
    used = _used_by(options.config)
    if options.json:
        print_json([_document(each, used) for each in overrides])
    elif overrides:
        print_table(_COLUMNS, [_cells(each, used) for each in overrides], {_OVERRIDDEN})
    else:
        say("there are no trust overrides; see: coding-agents trust add --help")
    return EXIT_OK


def _show(options: argparse.Namespace) -> int:
    override, certificates = store().get(options.name)
    if options.pem:
        sys.stdout.write(to_pem(certificates))
        return EXIT_OK
    used = _used_by(options.config)
    if options.json:
        print_json({**_document(override, used), "certificates": to_pem(certificates)})
        return EXIT_OK
    sys.stdout.write(
        f"{override.name}\n"
        f"  scope     {', '.join(override.scope)}\n"
        f"  pins      {f'{_OVERRIDDEN}: no credential' if override.override_pins else 'demanded as ever'}\n"
        f"  used by   {', '.join(used.get(override.name, ())) or 'no server'}\n"
        f"  added     {override.added:%Y-%m-%d} from {printable(override.source)}\n"
    )
    now = datetime.datetime.now(datetime.UTC)
    for number, each in enumerate(certificates, 1):
        sys.stdout.write("\n".join((f"certificate {number}", *certificate_lines(describe(each), now))) + "\n")
    return EXIT_OK


def _remove(options: argparse.Namespace) -> int:
    store().remove(options.name)
    say(f"removed {options.name}")
    for server in _used_by(options.config).get(options.name, ()):
        say(f"[mcp_servers.{server}.tls] ca_overrides still names it: the server is refused until it does not")
    for session, servers in sessions_with(base(), options.name).items():
        names = ", ".join(servers)
        say(f"session {session} trusts it for {names} until its end, or: coding-agents trust reload {session}")
    return EXIT_OK


def _used_by(config: Path | None) -> dict[str, list[str]]:
    used: dict[str, list[str]] = {}
    for user in users(config):
        for name in user.overrides:
            used.setdefault(name, []).append(user.name)
    return used


def _document(override: Override, used: dict[str, list[str]]) -> dict[str, object]:
    return {
        "name": override.name,
        "scope": override.scope,
        "expires": override.not_after.isoformat(),
        "override_pins": override.override_pins,
        "used_by": used.get(override.name, []),
        "sha256": override.sha256,
        "spki": override.spki,
        "subject": override.subject,
        "issuer": override.issuer,
        "added": override.added.isoformat(),
        "source": override.source,
    }


def _cells(override: Override, used: dict[str, list[str]]) -> tuple[str, ...]:
    return (
        override.name,
        ", ".join(override.scope),
        f"{override.not_after:%Y-%m-%d}",
        _OVERRIDDEN if override.override_pins else "-",
        ", ".join(used.get(override.name, ())) or "-",
        override.sha256,
    )
