"""ENTRY: `coding-agents trust check`: one server, or each of a configuration, met as its helper would meet it.

What is seen comes from `tls_look`, what to say of it from `trust_verdict` and `trust_report`. Asks nothing, writes
nothing, and sends a server nothing but its part of a handshake.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from codingagents.launcher import trust_report
from codingagents.launcher.terminal import say
from codingagents.launcher.tls_look import NoTls, Trusted, Untrusted, look
from codingagents.launcher.trust_report import Report
from codingagents.launcher.trust_shared import Actions, parser_text, print_json, print_table
from codingagents.launcher.trust_target import MADE_UP, chosen, configuration, spec_of
from codingagents.launcher.trust_verdict import Verdict, explain, remedies, verdict_on
from codingagents.rewrite.certificates import describe
from codingagents.rewrite.check import check_credential, check_trust
from codingagents.rewrite.config import Config, RemoteServer
from codingagents.rewrite.pin_proposal import seen_path
from codingagents.rewrite.pin_rules import rules_of
from codingagents.rewrite.specs import RemoteSpec
from codingagents.rewrite.tables import Table
from codingagents.trust.errors import EXIT_OK, EXIT_REFUSED, AgentError, UsageError

THREADS = 16

_HELP = """\
Show by what a server is trusted: its certificates, the store that they lead to, its pins, and what ends when.

The server is met as its helper would meet it: same trust store, overrides and pins, through connect_to and proxy. No
byte of HTTP is sent, no credential and no client certificate. URL need not be in the configuration. A table of pins to
paste is printed with it. With --all every https server of the configuration is checked, for cron and CI.

It fails (1) where the server is not reached, not trusted or not pinned by a pin in use, where a session would refuse
its configuration, a credential without pins above all, and where pins or certificates end within --days: 30 by
default, and for certificates at most a third of their life.

examples:
  coding-agents trust check github
  coding-agents trust check https://mcp.lab.example:8443 --ca lab-root.pem
  coding-agents trust check --all --days 14 --json
"""


def add_parser(actions: Actions) -> None:
    """Add `trust check`."""
    parser = actions.add_parser("check", **parser_text(_HELP))
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("server", metavar="SERVER|URL", nargs="?", help="a server of the configuration, or https://HOST[:PORT]")
    add("--all", action="store_true", help="every https server of the configuration")
    add("--config", metavar="FILE", type=Path, help="configuration (~/.config/coding-agents/config.toml)")
    add("--days", metavar="N", type=int, help="what ends within N days is a failure (30)")
    add("--connect-to", metavar="HOST:PORT", help="dial this instead; the name that is verified stays")
    add("--ca", metavar="host|certifi|FILE", help="the trust store to use instead")
    add("--ca-override", metavar="NAME", action="append", default=[], help="an override to add to it; repeatable")
    add("--json", action="store_true", help="for programs")


def run(options: argparse.Namespace) -> int:
    """Do what the command line says. Raises `AgentError`."""
    if (options.server is None) != options.all:
        raise UsageError("give either SERVER, URL or --all; see: coding-agents trust check --help")
    if options.all and (options.connect_to or options.ca or options.ca_override):
        raise UsageError("--connect-to, --ca and --ca-override are for one server, and not for --all")
    if options.days is not None and options.days < 0:
        raise UsageError("--days must not be negative")
    if options.all:
        return _all(options)
    report = checked(*chosen(options), options.days)
    if options.json:
        print_json(trust_report.document(report))
    else:
        sys.stdout.write("".join(f"{line}\n" for line in trust_report.lines(report)))
    return EXIT_OK if report.verdict.holds else EXIT_REFUSED


def checked(config: Config, server: RemoteServer, days: int | None) -> Report:
    """Return what came of one https server; whatever is wrong with it is a problem of the report."""
    now = datetime.datetime.now(datetime.UTC)
    plain = report = Report(server=server.name, url=_url(server.spec), now=now, verdict=Verdict(), tls=server.spec.tls)
    try:
        spec = spec_of(config, server)
        report = _seen(plain, spec, days, known=config.file != MADE_UP)
        assert spec.tls is not None
        check_trust(spec.tls, Table({}, config.file, f"mcp_servers.{server.name}.tls"))
    except AgentError as error:
        report = _with_problem(report, error)
    try:
        check_credential(server, Table({}, config.file, f"mcp_servers.{server.name}"))
    except AgentError as error:
        report = _with_problem(report, error)
    return report


def _with_problem(report: Report, error: AgentError) -> Report:
    verdict = dataclasses.replace(report.verdict, problems=(str(error), *report.verdict.problems))
    return dataclasses.replace(report, verdict=verdict)


def _seen(plain: Report, spec: RemoteSpec, days: int | None, *, known: bool) -> Report:
    assert spec.tls is not None
    match look(spec):
        case Trusted(trust, chain):
            seen = seen_path(chain)
            # Where pins are off, nobody has asked for it yet.
            matched = trust.match is not None and bool(trust.match.pins)
            bypass = None if matched else rules_of(spec.tls).bypasses.get(trust.anchor_sha256)
            verdict = verdict_on(plain.server, spec.tls, seen, bypass=bypass, now=plain.now, days=days)
            if spec.tls.client_certificate is not None:
                what = "the client certificate was not shown, and whether the server takes it is not known"
                verdict = dataclasses.replace(verdict, warnings=(*verdict.warnings, what))
            return dataclasses.replace(
                plain,
                verdict=verdict,
                seen=seen,
                tls_version=trust.tls_version,
                trusted_by=trust.anchored_by,
                bypassed=bypass is not None,
            )
        case Untrusted(code, message, sent):
            facts = tuple(map(describe, sent))
            why = explain(code, message, facts, server_name=spec.tls.server_name, store=spec.tls.store, now=plain.now)
            verdict = Verdict(problems=(why,), remedies=remedies(code, spec, facts, known=known))
            return dataclasses.replace(plain, verdict=verdict, sent=facts)
        case NoTls(reason):
            why = f"no TLS connection came about ({reason}); min_version is {spec.tls.min_version}"
            if spec.tls.client_certificate is not None:
                why += ", and the server may refuse who shows no client certificate"
            return dataclasses.replace(plain, verdict=Verdict(problems=(why,)))


def _all(options: argparse.Namespace) -> int:
    config = configuration(options.config)
    servers = [each for each in config.remotes if each.anchors is not None]
    with ThreadPoolExecutor(THREADS) as pool:
        reports = list(pool.map(lambda server: checked(config, server, options.days), servers))
    if options.json:
        print_json([trust_report.document(report) for report in reports])
    elif reports:
        print_table(trust_report.COLUMNS, [trust_report.row(report) for report in reports], {"FAILED"})
    else:
        say(f"{config.file} has no https server that is enabled")
    return EXIT_OK if all(report.verdict.holds for report in reports) else EXIT_REFUSED


def _url(spec: RemoteSpec) -> str:
    host = f"[{spec.host}]" if ":" in spec.host else spec.host
    ways = [f"at {spec.connect_to}"] if spec.connect_to else []
    ways += [f"through {spec.proxy}"] if spec.proxy else []
    return " ".join((f"https://{host}:{spec.port}", *ways))
