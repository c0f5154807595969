"""ENTRY: `coding-agents trust rotate`: the pins that fit what a server shows now, written into config.toml.

Which pins is decided by `rewrite.pin_proposal`, how they are written by `config_edit`. Here is whose word it takes: a
pin that the server still carries, or, where it carries none, somebody's who compares a fingerprint. Nothing is written
before.
"""

from __future__ import annotations

import argparse
import datetime
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from codingagents.launcher.config_edit import with_pins
from codingagents.launcher.config_file import rewrite
from codingagents.launcher.terminal import say
from codingagents.launcher.tls_look import NoTls, Trusted, Untrusted, look
from codingagents.launcher.trust_report import certificate_lines
from codingagents.launcher.trust_shared import Actions, base, parser_text
from codingagents.launcher.trust_target import https_server, spec_of
from codingagents.launcher.trust_verdict import place_names
from codingagents.launcher.vouching import DIGITS, fingerprint_option, is_start_of, somebody_is_there, typed_line
from codingagents.rewrite.check import MAX_PIN_DAYS
from codingagents.rewrite.config import Config, RemoteServer
from codingagents.rewrite.parse import parse_config
from codingagents.rewrite.pin_proposal import VALID_DAYS, SeenPath, carries, digest, propose, renew, seen_path
from codingagents.rewrite.reading import read_text
from codingagents.rewrite.specs import PinSpec
from codingagents.trust.errors import EXIT_OK, AgentError, ConfigError, TrustError, UsageError
from codingagents.trust.pins import parse_pin
from codingagents.trust.terminal import printable

_HELP = """\
Write the pins that fit what SERVER shows now into the configuration, and a new date; the first ones where it has none.

Its certificates are verified as its helper does it. A pinned CA that is still there stays; else the CA that issues its
certificates now is pinned, and the pin that was in use stays as a backup until the next time. The rest of the file is
kept to the byte. What would change is shown, and asked for.

A server that carries none of its pins may be somebody else. With --from-unpinned its keys are taken all the same, if
somebody types the first 16 digits of its SHA-256, compared with what its owner says, or --fingerprint matches.

examples:
  coding-agents trust rotate github
  coding-agents trust rotate github --expires 2027-09-01 --yes
  coding-agents trust rotate lab --backup sha256/… --dry-run
"""


def add_parser(actions: Actions) -> None:
    """Add `trust rotate`."""
    parser = actions.add_parser("rotate", **parser_text(_HELP))
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("server", metavar="SERVER", help="an https server of the configuration")
    add("--config", metavar="FILE", type=Path, help="configuration (~/.config/coding-agents/config.toml)")
    add("--expires", metavar="DATE", help="last day of the pins, at most 400 days ahead (half a year)")
    add("--backup", metavar="PIN", action="append", default=[], help="sha256/… of a further backup key; repeatable")
    add("--from-unpinned", action="store_true", help="take the keys of a server that carries none of its pins")
    add("--fingerprint", metavar="SHA256", help="of the server's certificate, or of the one to be pinned")
    add("--yes", action="store_true", help="no question; it does not stand in for a fingerprint")
    add("--dry-run", action="store_true", help="show what would change, and write nothing")


def run(options: argparse.Namespace) -> int:
    """Do what the command line says. Raises `AgentError`."""
    path = options.config or base() / "config.toml"
    today = datetime.datetime.now(datetime.UTC).date()
    expires = _date(options.expires, today)
    added = [_backup(text) for text in options.backup]
    fingerprint = fingerprint_option(options.fingerprint)
    text = read_text(path)
    config, server = _server(text, path, options.server)
    old = [] if server.spec.tls is None else server.spec.tls.pins
    seen, bypass = _seen(config, server)
    known = any(carries(seen, pin) for pin in old) or not (old or bypass)
    if not known and not options.from_unpinned:
        why = f"is anchored by {bypass}, which overrides pins" if bypass else "carries none of its pins"
        raise TrustError(
            f"{server.name} {why}, and may be somebody else, so nothing was written; if its owner confirms its keys "
            "(coding-agents trust check shows them), use --from-unpinned"
        )
    pins = renew(old, seen, today, added)
    if not any(pin.backup for pin in pins):
        raise TrustError(f"{server.name} needs a backup: {'; '.join(propose(seen).advice)}; then give it with --backup")
    edited = with_pins(text, str(path), server.name, pins, expires)
    _show(seen, text, edited, path)
    if not old and not added:
        for sentence in propose(seen).advice:
            say(sentence)
    if edited == text:
        say(f"the pins of {server.name} are those already, with that date; nothing was written")
        return EXIT_OK
    if options.dry_run:
        say("nothing was written")
        return EXIT_OK
    _confirm(seen, old, pins, fingerprint, known=known, yes=options.yes)

    def edit(now: str) -> str:
        if _server(now, path, server.name)[1] != server:
            raise AgentError(
                f"{path}: [mcp_servers.{server.name}] was changed meanwhile; nothing was written, try again"
            )
        return with_pins(now, str(path), server.name, pins, expires)

    rewrite(path, edit)
    say(f"wrote the pins of {server.name}; running sessions take them with: coding-agents trust reload SESSION")
    return EXIT_OK


def _server(text: str, path: Path, name: str) -> tuple[Config, RemoteServer]:
    config = parse_config(text, str(path), unpinned_credentials=True)
    return config, https_server(config, name)


def _seen(config: Config, server: RemoteServer) -> tuple[SeenPath, str | None]:
    """Return what the server shows, verified, and the override below which no pin would be asked of it."""
    match look(spec_of(config, server), unpinned=True):
        case Trusted(trust, chain):
            return seen_path(chain), None if trust.match is None else trust.match.bypass
        case Untrusted(_, message, _):
            why = f"is not trusted: {printable(message)}"
        case NoTls(reason):
            why = f"makes no TLS connection: {reason}"
    raise TrustError(f"{server.name} {why}; nothing was written, see: coding-agents trust check {server.name}")


def _date(text: str | None, today: datetime.date) -> datetime.date:
    if text is None:
        return today + datetime.timedelta(VALID_DAYS)
    try:
        date = datetime.date.fromisoformat(text)
    except ValueError:
        raise UsageError("--expires must be a date like 2027-03-01") from None
    if not 0 < (date - today).days <= MAX_PIN_DAYS:
        raise UsageError(f"--expires must be a day to come, and at most {MAX_PIN_DAYS} days ahead")
    return date


def _backup(text: str) -> PinSpec:
    try:
        return PinSpec(spki=parse_pin(text).digest, backup=True)
    except ConfigError as error:
        raise UsageError(f"--backup: {error}") from None


def _show(seen: SeenPath, before: str, after: str, path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    sys.stdout.write("".join(f"{line}\n" for line in certificate_lines(seen.facts, place_names(seen), now)))
    name = str(path)
    changes = difflib.unified_diff(before.splitlines(), after.splitlines(), name, name, lineterm="")
    sys.stdout.write("".join(f"{printable(line)}\n" for line in changes))
    sys.stdout.flush()


def _confirm(
    seen: SeenPath, old: Sequence[PinSpec], new: Sequence[PinSpec], fingerprint: str | None, *, known: bool, yes: bool
) -> None:
    """Return once somebody wants it, and vouches for it unless the server is `known`; else raise an error."""
    active = {digest(pin) for pin in new if not pin.backup}
    leaf = seen.facts[0]
    pinned = next((each for each in seen.facts if {each.spki, each.sha256} & active), leaf)
    if fingerprint is not None:
        if fingerprint not in (leaf.sha256, pinned.sha256):
            raise TrustError(
                f"the fingerprints are {leaf.sha256} (the server's) and {pinned.sha256} (to be pinned), and not the "
                "one given; nothing was written: ask the server's owner which is right"
            )
        if not known:
            return
    if known and yes:
        return
    if not somebody_is_there():
        remedy = "--yes" if known else "--fingerprint with the SHA-256 that the server's owner tells you"
        raise UsageError(f"nobody is at a terminal to confirm it, so nothing was written; give {remedy}")
    if known:
        first = "" if old else "these are its first pins: compare the hashes by another way. "
        say(f"{first}type yes to write them:")
        confirmed = typed_line() == "yes"
    else:
        say(
            f"compare the SHA-256 of {printable(pinned.subject)} with what the server's owner tells you, and type its "
            f"first {DIGITS} digits to pin it:"
        )
        confirmed = is_start_of(pinned.sha256, typed_line())
    if not confirmed:
        raise TrustError("not confirmed; nothing was written")
