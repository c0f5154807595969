"""SHELL: `coding-agents trust add`: a CA from a file or a server, shown to a person, and kept once that person vouches.

What may be kept is decided by `trust_rules`; that somebody vouches is a fingerprint on the command line, or digits of
it typed on a terminal. Nothing is written before.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
from pathlib import Path

from codingagents.launcher.terminal import say
from codingagents.launcher.tls_probe import fetch_chain
from codingagents.launcher.trust_rules import Candidate, judge, top_of_chain
from codingagents.launcher.trust_shared import Actions, certificate_lines, parser_text, store, users
from codingagents.rewrite.addresses import parse_url
from codingagents.rewrite.anchors import is_session_authority
from codingagents.rewrite.certificates import parse_certificates
from codingagents.rewrite.override_store import MAX_PEM
from codingagents.rewrite.overrides import EVERYWHERE, Override, in_scope, parse_name, parse_scope
from codingagents.rewrite.private_files import read_plain
from codingagents.trust.errors import EXIT_OK, NotFoundError, TrustError, UsageError
from codingagents.trust.terminal import printable

DIGITS = 8  # of the fingerprint, to be typed

_HELP = """\
Keep the certificate authority in FILE as override NAME, for the hosts of --scope.

FILE is PEM (text around it does not matter), DER or PKCS#7; - is standard input. With --from it is what a server shows:
its topmost CA, fetched over a connection on which nothing is sent. What is found is shown first. Then either type the
first 8 digits of its SHA-256, compared with what the CA's owner tells you, or give --fingerprint, which must match.

Refused are private keys, expired certificates, RSA under 2048 bits, SHA-1 signatures, unrelated roots in one file, and
what is no CA, unless --leaf says that this one certificate is meant.

examples:
  coding-agents trust add corp-root corp.pem --scope '*.corp.example' --scope mcp.example.com
  coding-agents trust add lab --from https://mcp.lab.example:8443 --fingerprint 4d3c…
"""


def add_parser(actions: Actions) -> None:
    """Add `trust add`."""
    parser = actions.add_parser("add", **parser_text(_HELP))
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("name", metavar="NAME", help="what ca_overrides will call it")
    add("file", metavar="FILE", nargs="?", help="certificates, or - for standard input")
    add("--from", metavar="URL", dest="url", help="https://HOST[:PORT] to take the CA from, instead of FILE")
    add("--scope", metavar="HOST", action="append", default=[], help="HOST, *.DOMAIN or '*'; repeatable (URL's host)")
    add("--fingerprint", metavar="SHA256", help="of the top certificate; vouches for it without a question")
    add("--override-pins", action="store_true", help="a path below it needs no pin, and gets no credential for it")
    add("--leaf", action="store_true", help="trust this one certificate, which is no CA")
    add("--replace", action="store_true", help="where there is an override NAME already")
    add("--yes", action="store_true", help="with --fingerprint: no question for --override-pins and --scope '*'")
    add("--config", metavar="FILE", type=Path, help="configuration, for what to write next")


def run(options: argparse.Namespace) -> int:
    """Do what the command line says. Raises `AgentError`."""
    name = parse_name(options.name)
    fingerprint = None if options.fingerprint is None else parse_fingerprint(options.fingerprint)
    if (options.file is None) == (options.url is None):
        raise UsageError("give either FILE or --from URL; see: coding-agents trust add --help")
    if options.url is not None:
        certificates, host, source = _fetched(options.url, leaf=options.leaf)
    else:
        certificates, host, source = _read(options.file), None, options.file
    scope = tuple(dict.fromkeys(map(parse_scope, options.scope or ([host] if host is not None else []))))
    if not scope:
        raise UsageError("--scope is missing: name the hosts that it is for, or '*' for every one")
    if any(map(is_session_authority, certificates)):
        raise TrustError("this is the authority of a session, which vouches for its own helpers and for no upstream")
    now = datetime.datetime.now(datetime.UTC)
    candidate = judge(certificates, leaf=options.leaf, now=now)
    override = Override(
        name=name,
        sha256=candidate.top.sha256,
        spki=candidate.top.spki,
        subject=candidate.top.subject,
        issuer=candidate.top.issuer,
        not_after=min(each.not_after for each in candidate.facts),
        scope=scope,
        added=now.replace(microsecond=0),
        source=printable("standard input" if source == "-" else source),
        override_pins=options.override_pins,
    )
    _show(candidate, override, now)
    _vouch(override, fingerprint, yes=options.yes)
    store().add(override, candidate.certificates, replace=options.replace)
    _tell_next(override, options.config)
    return EXIT_OK


def parse_fingerprint(text: str) -> str:
    """Return 64 hexadecimal digits from how tools write a SHA-256: colons, capitals, `sha256:` and the like."""
    digits = re.sub(r"^sha-?256( fingerprint)?[:=/ ]*", "", text.strip().lower()).replace(":", "").replace(" ", "")
    if not re.fullmatch(r"[0-9a-f]{64}", digits, re.ASCII):
        raise UsageError("--fingerprint must be the SHA-256 of the certificate: 64 hexadecimal digits")
    return digits


def _read(file: str) -> list[bytes]:
    if file == "-":
        content = sys.stdin.buffer.read(MAX_PEM + 1)
        if len(content) > MAX_PEM:
            raise UsageError(f"standard input is over the limit of {MAX_PEM} bytes")
        return parse_certificates(content, "standard input")
    try:
        return parse_certificates(read_plain(Path(file), limit=MAX_PEM), file)
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {file}") from None


def _fetched(text: str, *, leaf: bool) -> tuple[list[bytes], str, str]:
    """Return what to trust of what the server at `text` shows, its host, and the URL as it is kept."""
    try:
        url = parse_url(text)
        if url.scheme != "https":
            raise ValueError("must start with https://")
    except ValueError as error:
        raise UsageError(f"--from {error}") from None
    chain = fetch_chain(url.host, url.port, server_name=url.host)
    chosen = chain[0] if leaf else top_of_chain(chain)
    host = f"[{url.host}]" if ":" in url.host else url.host
    return [chosen], url.host, f"https://{host}:{url.port}"


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
        if yes or not (override.override_pins or EVERYWHERE in override.scope):
            return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        remedy = (
            "--yes as well" if fingerprint is not None else "--fingerprint with the SHA-256 that its owner tells you"
        )
        raise UsageError(f"nobody is at a terminal to vouch for it, so nothing was added; give {remedy}")
    say(f"compare the SHA-256 with what its owner tells you, and type its first {DIGITS} digits to trust it:")
    typed = sys.stdin.readline().strip().lower().replace(":", "")
    if typed != override.sha256[:DIGITS]:
        raise TrustError("these are not its digits; nothing was added")


def _tell_next(override: Override, config: Path | None) -> None:
    servers = [each for each in users(config) if in_scope(override, each.host)]
    say(f"added {override.name}; running sessions keep the trust that they started with")
    for name in [each.name for each in servers if override.name not in each.overrides] or ["NAME"] * (not servers):
        say(f'to use it, write below [mcp_servers.{name}.tls]: ca_overrides = ["{override.name}"]')
    if not override.override_pins:
        say(f'its pin is {{ spki = "{override.spki}" }}; pins need a backup too, of a CA that you would change to')
