"""SHELL: `coding-agents trust add`: a CA from a file or a server, shown to a person, and kept once that person vouches.

What may be kept is decided by `trust_rules`; that somebody vouches is a fingerprint on the command line, or digits of
it typed on a terminal. Nothing is written before.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path

from codingagents.launcher.config_file import rewrite
from codingagents.launcher.override_edit import with_override
from codingagents.launcher.running_trust import running_sessions
from codingagents.launcher.terminal import say
from codingagents.launcher.trust_rules import Candidate, candidate_of
from codingagents.launcher.trust_shared import Actions, base, certificate_lines, parser_text, store, users
from codingagents.launcher.trust_source import Found, from_file, from_server, from_url
from codingagents.launcher.trust_target import configuration, https_server
from codingagents.launcher.vouching import DIGITS, fingerprint_option, is_start_of, somebody_is_there, typed_line
from codingagents.rewrite.anchors import is_session_authority
from codingagents.rewrite.config import RemoteServer
from codingagents.rewrite.overrides import MAX_SCOPE, Override, in_scope, is_wide, parse_name, parse_scope
from codingagents.rewrite.reading import read_text
from codingagents.trust.errors import EXIT_OK, TrustError, UsageError
from codingagents.trust.terminal import printable

_HELP = """\
Keep the certificate authority in FILE as override NAME, for the hosts of --scope.

FILE is PEM (text around it does not matter), DER or PKCS#7; - is standard input. Without FILE it is what a server
shows, that of --from or --server: its topmost CA, fetched over a connection on which nothing is sent. With --server,
the override is written into the ca_overrides of that server in config.toml, and its scope is that server.

What is found is shown first. Then either type the first 16 digits of its SHA-256, compared with what its owner tells
you, or give --fingerprint, which must match.

Refused are private keys, expired certificates, RSA under 2048 bits, SHA-1 signatures, unrelated roots in one file, and
what is no CA, unless --leaf says that this one certificate is meant.

examples:
  coding-agents trust add corp-root corp.pem --scope '*.corp.example' --scope mcp.example.com
  coding-agents trust add lab --server lab
  coding-agents trust add lab --from https://mcp.lab.example:8443 --fingerprint 4d3c…
"""


def add_parser(actions: Actions) -> None:
    """Add `trust add`."""
    parser = actions.add_parser("add", **parser_text(_HELP))
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("name", metavar="NAME", help="what ca_overrides will call it")
    add("file", metavar="FILE", nargs="?", help="certificates, or - for standard input")
    add("--from", metavar="URL", dest="url", help="https://HOST[:PORT] that shows it, instead of FILE")
    add("--server", metavar="SERVER", help="an https server of config.toml that is to use it; it is written there")
    add("--scope", metavar="HOST", action="append", default=[], help="HOST, *.DOMAIN or '*'; repeatable (the server's)")
    add("--fingerprint", metavar="SHA256", help="of the top certificate; vouches for it without a question")
    add("--override-pins", action="store_true", help="a path below it needs no pin, and gets no credential for it")
    add("--leaf", action="store_true", help="trust this one certificate, which is no CA")
    add("--replace", action="store_true", help="where there is an override NAME already")
    add("--yes", action="store_true", help="with --fingerprint: no question for --override-pins, --scope '*' and *.com")
    add("--config", metavar="FILE", type=Path, help="configuration (~/.config/coding-agents/config.toml)")


def run(options: argparse.Namespace) -> int:
    """Do what the command line says. Raises `AgentError`."""
    name = parse_name(options.name)
    fingerprint = fingerprint_option(options.fingerprint)
    server = None if options.server is None else https_server(configuration(options.config), options.server)
    scopes = list(dict.fromkeys(map(parse_scope, options.scope)))
    if len(scopes) > MAX_SCOPE:
        raise UsageError(f"--scope may name {MAX_SCOPE} hosts at most, and these are {len(scopes)}; use *.DOMAIN")
    found = _found(options, server)
    if not scopes:
        scopes = [host for host in (found.host if server is None else _name_of(server),) if host is not None]
    if not scopes:
        raise UsageError("--scope is missing: name the hosts that it is for, or '*' for every one")
    if any(map(is_session_authority, found.certificates)):
        raise TrustError("this is the authority of a session, which vouches for its own helpers and for no upstream")
    now = datetime.datetime.now(datetime.UTC)
    candidate = candidate_of(found.certificates, leaf=options.leaf, now=now)
    override = Override(
        name=name,
        sha256=candidate.top.sha256,
        spki=candidate.top.spki,
        subject=candidate.top.subject,
        issuer=candidate.top.issuer,
        not_after=min(each.not_after for each in candidate.facts),
        scope=tuple(scopes),
        added=now.replace(microsecond=0),
        source=printable(found.source),
        override_pins=options.override_pins,
    )
    config = options.config or base() / "config.toml"
    if server is not None:
        _check_use(override, server, read_text(config), config)
    _show(candidate, override, now)
    _vouch(override, fingerprint, yes=options.yes)
    store().add(override, candidate.certificates, replace=options.replace)
    say(f"added {name}")
    if server is not None:
        rewrite(config, lambda text: with_override(text, str(config), server.name, name))
        say(f"wrote it into ca_overrides of [mcp_servers.{server.name}.tls]")
    _tell_next(override, options.config)
    return EXIT_OK


def _found(options: argparse.Namespace, server: RemoteServer | None) -> Found:
    if options.file is not None and options.url is not None:
        raise UsageError("give either FILE or --from, not both; see: coding-agents trust add --help")
    if options.file is not None:
        return from_file(options.file)
    if options.url is not None:
        return from_url(options.url, leaf=options.leaf)
    if server is None:
        raise UsageError("give FILE, --from URL or --server; see: coding-agents trust add --help")
    return from_server(server, leaf=options.leaf)


def _name_of(server: RemoteServer) -> str:
    assert server.spec.tls is not None  # of an https server
    return server.spec.tls.server_name


def _check_use(override: Override, server: RemoteServer, text: str, config: Path) -> None:
    """Raise before anybody is asked where the server could not use it."""
    if not in_scope(override, _name_of(server)):
        raise UsageError(
            f"--server {server.name} is {_name_of(server)}, which is not in the scope {', '.join(override.scope)}"
        )
    with_override(text, str(config), server.name, override.name)


def _show(candidate: Candidate, override: Override, now: datetime.datetime) -> None:
    lines = []
    for facts in sorted(candidate.facts, key=lambda each: each is not candidate.top):
        lines += [override.name if facts is candidate.top else "below it", *certificate_lines(facts, now)]
        if facts is candidate.top and not facts.self_signed:
            lines.append("  note      its own issuer is not here: trust would start at this one, below any root")
    lines.append(f"for {', '.join(override.scope)}")
    if override.override_pins:
        lines.append("OVERRIDES PINS: a path below it needs no pin, and gets no credential for it")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _vouch(override: Override, fingerprint: str | None, *, yes: bool) -> None:
    """Return once somebody vouches for it, or raise `TrustError` or `UsageError`."""
    if fingerprint is not None:
        if fingerprint != override.sha256:
            raise TrustError(
                f"the certificate's fingerprint is {override.sha256} and not the one given; nothing was added: ask "
                "its owner which is right"
            )
        if yes or not (override.override_pins or is_wide(override)):
            return
    if not somebody_is_there():
        remedy = (
            "--yes as well" if fingerprint is not None else "--fingerprint with the SHA-256 that its owner tells you"
        )
        raise UsageError(f"nobody is at a terminal to vouch for it, so nothing was added; give {remedy}")
    say(f"compare the SHA-256 with what its owner tells you, and type its first {DIGITS} digits to trust it:")
    if not is_start_of(override.sha256, typed_line()):
        raise TrustError("these are not its digits; nothing was added")


def _tell_next(override: Override, config: Path | None) -> None:
    using = [each for each in users(config) if override.name in each.overrides]
    if not using:
        say(f'to use it, write ca_overrides = ["{override.name}"] into [mcp_servers.NAME.tls] of a server in its scope')
    for session in running_sessions(base()):
        say(f"session {session} takes it with: coding-agents trust reload {session}")
    if not override.override_pins:
        say(
            f'its pin is {{ spki = "{override.spki}" }}; a set of pins is written by: coding-agents trust rotate SERVER'
        )
