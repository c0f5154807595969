"""SHELL: `coding-agents helper run`, on the host and in a container: reads everything, then becomes the helper.

The helper (`codingagents.proxies.foreground`) is another program: whoever starts one here imports neither its event
loop nor its relay. It is told all in a memory file that it inherits (memfd_create(2)), so that no secret is in its
arguments or its environment. What is in the specification is decided by `foreground_plan`.
"""

from __future__ import annotations

import argparse
import datetime
import os
import secrets as randomness
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import NoReturn

from codingagents.rewrite import foreground_plan as plan
from codingagents.rewrite import places
from codingagents.rewrite.anchors import read_anchors
from codingagents.rewrite.check import check_expiry
from codingagents.rewrite.override_store import OverrideStore
from codingagents.rewrite.plan import anchor_sources, required_secrets
from codingagents.rewrite.reading import read_config
from codingagents.rewrite.secrets import FILE_NAME, SecretSource, gather, parse_option
from codingagents.trust import wire
from codingagents.trust.commandline import Parser
from codingagents.trust.errors import ProcessError, UsageError
from codingagents.trust.vocabulary import Secret

USAGE = "coding-agents helper run [OPTION]… --server NAME"
HELP = """\
Run one helper in the foreground, without a session: for trying a server out.

Reads the configuration and its trust stores as a session would, listens on this machine for you alone, prints how to
reach it and what happens, and ends with Ctrl-C once what is in flight is done (within 5 seconds; a second Ctrl-C does
not wait). Other tables of the configuration do not matter, nor does `enabled = false`.

It runs as you, and so is confined less than a session's helper: see what it prints. A secret's value never stands on a
command line; SIGHUP reads those that came from files again, and pins, trust stores and overrides too:
  --secret NAME=env:VARIABLE    an environment variable, which the helper's own environment does not hold any more
  --secret NAME=file:PATH       a file of mode 0600 that is yours or root's
  ~/.config/coding-agents/mcp-secrets.env, for names that --secret does not give

Where a local bearer is demanded, a new one is made and lies in a file that only you can read, until the end. It is
never printed.

examples:
  coding-agents helper run --server github --secret GITHUB_TOKEN=env:GITHUB_TOKEN
  coding-agents helper run --config work.toml --server docs --listen unix:/tmp/docs.sock --client-auth uid
  coding-agents helper run --server github --listen 127.0.0.1:8080 --events facts.jsonl --json

exit codes:
  0 ended as asked · 1 the helper cannot serve · 2 usage or configuration · 3 no such file or server
"""
_PROGRAM = (sys.executable, "-I", "-m", "codingagents.proxies.foreground")
# What describes the terminal, the language and the time; and where files belong that end with the login.
_PASSED_ON = frozenset({"TERM", "LANG", "TZ", "COLORTERM", "NO_COLOR", "XDG_RUNTIME_DIR"})


def main(arguments: Sequence[str]) -> NoReturn:
    """Do what the command line of `helper run` says, where that is the whole of it; raises `AgentError`."""
    parser = Parser(
        prog="coding-agents helper run",
        usage=USAGE,
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_arguments(parser)
    become(parser.parse_args(arguments), os.environ)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options of `helper run`."""
    add = parser.add_argument
    add("--config", metavar="FILE", type=Path, help="configuration (~/.config/coding-agents/config.toml)")
    add("--server", metavar="NAME", required=True, help="which [mcp_servers.NAME] to stand for")
    add("--listen", metavar="ADDR", default="127.0.0.1:0", help="127.0.0.1:PORT (any free one) or unix:/PATH")
    add("--client-auth", metavar="HOW", help="none, uid, bearer or uid,bearer (what the configuration says)")
    add("--secret", metavar="NAME=SOURCE", action="append", default=[], help="env:VARIABLE or file:PATH; repeatable")
    add("--events", metavar="FILE", type=Path, help="append what happens to FILE, one JSON object a line")
    add("--json", action="store_true", help="print JSON lines")


def become(options: argparse.Namespace, environment: MutableMapping[str, str]) -> NoReturn:
    """Replace this process by the helper that `options` describe; raises `AgentError` for whatever is wrong with it."""
    spec = prepare(options, environment)
    descriptor = os.memfd_create("helper", 0)  # without MFD_CLOEXEC: it is for the next program
    with open(descriptor, "wb", closefd=False) as file:
        file.write(wire.encode(spec, reveal_secrets=True))
    os.lseek(descriptor, 0, os.SEEK_SET)
    kept = {name: text for name, text in environment.items() if name in _PASSED_ON or name[:3] == "LC_"}
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(_PROGRAM[0], [*_PROGRAM, "--fd", str(descriptor)], {"PATH": places.SYSTEM_PATH, **kept})  # noqa: S606 -- no shell is the point
    except OSError as error:
        raise ProcessError(f"cannot execute {_PROGRAM[0]}: {error.strerror}") from None


def prepare(options: argparse.Namespace, environment: MutableMapping[str, str]) -> plan.ForegroundSpec:
    """Return all that the helper is told. Takes `env:` secrets out of `environment`. Raises `AgentError`."""
    try:
        base = Path.home() / places.HOST_CONFIG
    except RuntimeError:
        raise UsageError("there is no home directory to look for configuration and secrets in; set HOME") from None
    address = plan.parse_listen(options.listen)
    auth = None if options.client_auth is None else plan.parse_client_auth(options.client_auth)
    sources = tuple(map(parse_option, options.secret))
    file = options.config or base / "config.toml"
    read, _ = read_config(file)
    config = plan.only(read, options.server)
    expiring = check_expiry(config, datetime.datetime.now(datetime.UTC).date())
    anchors = read_anchors(anchor_sources(config), config.file, OverrideStore(base / places.OVERRIDES))
    env_file = base / FILE_NAME
    helper = plan.plan_helper(
        config,
        address,
        auth,
        secrets=gather(required_secrets(config), sources, environment=environment, env_file=env_file),
        anchors=anchors,
        uid=os.getuid(),
        gid=os.getgid(),
        bearer=Secret(randomness.token_urlsafe(32)),
    )
    return plan.ForegroundSpec(
        helper=helper,
        socket_path=address.path,
        sources=[plan.Source(name=each.name, kind=each.kind, place=_place(each)) for each in sources],
        env_file=_absolute("HOME", env_file),
        config=_absolute("--config", file),
        overrides=_absolute("HOME", base / places.OVERRIDES),
        events=None if options.events is None else _absolute("--events", options.events),
        as_json=options.json,
        notes=[
            *plan.warnings_about(read, options.server),
            *(warning for each in anchors.values() for warning in each.warnings),
            *expiring,
            *plan.notes(config),
        ],
    )


def _place(source: SecretSource) -> str:
    return _absolute(f"--secret {source.name}", source.place) if source.kind == "file" else source.place


def _absolute(what: str, path: str | Path) -> str:
    """Return `path` as the helper is told it; `UsageError`, which says `what` it is, where its bytes are no text."""
    found = os.path.abspath(path)
    try:
        found.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(f"{what}: a path that is not UTF-8 cannot be passed on; use another") from None
    return found
