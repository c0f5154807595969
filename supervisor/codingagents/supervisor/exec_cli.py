"""ENTRY: `coding-agents exec explain`: which rule would decide about a program, and how firmly.

Asks a running session what holds there, or takes a configuration's word for it; finds where the path leads, as the
role would where that is possible; `explain` decides the rest. Executes nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from codingagents.rewrite.reading import read_config
from codingagents.rewrite.specs import ExecSpec
from codingagents.supervisor import kernel, operator_client
from codingagents.supervisor.explain import Asked, Explanation, HeldPolicy, PolicyDocument, explain
from codingagents.supervisor.programs import Program
from codingagents.supervisor.scripts import Scripts
from codingagents.supervisor.tracee_paths import NamelessError, find, proc_mounts
from codingagents.trust import errors, wire
from codingagents.trust.commandline import Parser
from codingagents.trust.errors import AgentError, UsageError, WireError
from codingagents.trust.terminal import printable
from codingagents.trust.vocabulary import Role

_ROLES = (Role.AGENT, Role.TASK, Role.COMMAND_SERVER)
_CODES = {"allowed": errors.EXIT_OK, "denied": errors.EXIT_REFUSED, "missing": errors.EXIT_NOT_FOUND}
_LANDLOCK = {"allows": "lets it be executed", "refuses": "refuses it", "off": "does not hold"}
_COMMANDS = """\
usage: coding-agents exec COMMAND [ARGUMENT…]

  explain PATH [--role ROLE]   say which rule decides about a program, and how firmly
  list [--session DIR]         list the tasks of a running session
  run [--] COMMAND…            run a command as a task of the session here
  shell [ARGUMENT…]            run a shell as a task, in a terminal of its own
  health                       say whether a session takes tasks here

`coding-agents exec COMMAND --help` says more.
"""
_DESCRIPTION = """\
Say what would become of an exec of PATH: which rule of [exec] decides, how firm that is and why, and where PATH leads.

A session that runs is asked what was seen to hold there. With --config the rules of a file are judged instead, and what
stands behind them is assumed. Where root asks, PATH is followed as the role would follow it. Nothing is executed.
"""
_EPILOG = """\
examples:
  coding-agents exec explain /usr/bin/git -- git push
  coding-agents exec explain --config config.toml --role task /usr/bin/nc

exit codes: 0 it would be allowed; 1 it would be denied, or the session does not answer; 2 usage or configuration;
            3 nothing is there, or no session runs
"""


def main(argv: list[str]) -> int:
    """Run `exec explain`; returns 0, 1 or 3 as the help says. Raises `AgentError`."""
    if argv[:1] and argv[0] in {"-h", "--help", "help"}:
        sys.stdout.write(_COMMANDS)
        return errors.EXIT_OK
    if argv[:1] != ["explain"]:
        raise UsageError(
            "exec takes a command; there are exec explain, list, run, shell and health (see: coding-agents exec --help)"
        )
    parser = Parser(
        prog="coding-agents exec explain",
        usage="coding-agents exec explain [OPTION]… PATH [-- ARGV…]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("path", metavar="PATH", help="the program; a relative one starts at the current directory")
    parser.add_argument("--role", choices=[role.value for role in _ROLES], default="agent", help="whose exec (agent)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--session", metavar="DIR", help="the session's directory (that of the one that runs)")
    where.add_argument("--config", metavar="FILE", type=Path, help="judge this configuration instead of a session")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments, given = argv[1:], None
    if "--" in arguments:
        end = arguments.index("--")
        arguments, given = arguments[:end], arguments[end + 1 :]
    options = parser.parse_args(arguments)
    role = Role(options.role)
    spec, held, basis = _of_file(options.config, role) if options.config else _of_session(options.session, role)
    command = tuple(os.fsencode(part) for part in (given if given is not None else [options.path]))
    path = os.fsencode(options.path)
    with _as_the_role(held) as looked_as:
        asked = _look(role, path if path.startswith(b"/") else os.getcwdb() + b"/" + path, command)
    told = explain(spec, held, asked, f"{basis}; {looked_as}")
    if options.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(told), indent=2).decode() + "\n")
    else:
        _show(told)
    return _CODES[told.outcome]


def _of_session(directory: str | None, role: Role) -> tuple[ExecSpec, HeldPolicy, str]:
    document = operator_client.ask(directory or operator_client.the_one_that_runs(), "/policy")
    try:
        policy: PolicyDocument = wire.decode(PolicyDocument, document)
    except WireError as error:
        raise AgentError(f"the session's answer cannot be read: {error}; it may be of another version") from None
    for held in policy.roles:
        if held.role == role.value:
            return policy.exec, held, f"as it was seen to hold in session {printable(policy.session)}"
    if not policy.roles:
        raise AgentError("the session has not confined its agent yet; ask again")
    trees = policy.exec.trees  # the agent's may be fewer, where its commands are routed
    held = msgspec.structs.replace(
        policy.roles[0], role=role.value, uid=None, routes=None, trees=sorted({*trees, *map(os.path.realpath, trees)})
    )
    return policy.exec, held, f"no {role.value} was confined yet: assumed to be as its {policy.roles[0].role}"


def _of_file(path: Path, role: Role) -> tuple[ExecSpec, HeldPolicy, str]:
    config, _ = read_config(path)
    layers, trees = config.session.layers, config.exec.trees
    held = HeldPolicy(
        role=role.value,
        uid=None,
        gid=0,
        groups=[],
        trees=sorted({*trees, *map(os.path.realpath, trees)}),
        landlock=layers.get("landlock_exec") != "off",
        memfd_closed=layers.get("memfd_rule") != "off",
        trapped=layers.get("exec_trap") != "off",
    )
    basis = "assumed, not seen: coding-agents doctor tries the layers"
    if role is Role.AGENT and config.exec.route != "never":
        basis += "; what a session adds for an agent whose commands are routed is not known here"
    return config.exec, held, basis


@contextlib.contextmanager
def _as_the_role(held: HeldPolicy) -> Iterator[str]:
    """Be the role as far as files are concerned, for the block; yields how the path is looked at."""
    if held.uid is None or os.geteuid() != 0 or not kernel.has_capability(kernel.CAP_SETUID):
        yield f"the path as UID {os.geteuid()} sees it"
        return
    own = os.getgroups()
    with kernel.filesystem_identity(held.uid, held.gid):
        kernel.set_groups_of_this_thread(held.groups)
        try:
            yield f"the path as the role's UID {held.uid} sees it"
        finally:
            kernel.set_groups_of_this_thread(own)


def _look(role: Role, path: bytes, argv: tuple[bytes, ...]) -> Asked:
    """Find where `path` leads, scripts included; `AgentError` for what cannot be named or looked at."""
    procs, pid = proc_mounts(), os.getpid()
    try:
        resolved, descriptor = find(pid, path, procs)
        interpreters: tuple[bytes, ...] = ()
        if descriptor >= 0:
            with Program(descriptor) as program:
                interpreters = Scripts(file_ids=None, groups=(), procs=procs).interpreters(pid, program).names
    except NamelessError as error:
        raise AgentError(f"{printable(os.fsdecode(path))}: {error}, so the trap denies it") from None
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        raise AgentError(f"{printable(os.fsdecode(path))}: cannot be looked at: {cause}") from None
    return Asked(role=role, path=path, resolved=resolved, interpreters=interpreters, argv=argv)


def _show(told: Explanation) -> None:
    headline = f"{told.outcome}: {told.path} for the {told.role}"
    below = {
        "rule": told.rule or f"none ({told.reason})",
        "leads to": told.resolved or "nothing that can be reached",
        "run by": ", ".join(told.interpreters),
        "firmness": f"{told.firmness}: {told.why}" if told.outcome == "denied" and told.trapped else "",
        "but": told.why if told.outcome != "denied" or not told.trapped else "",
        "Landlock": _LANDLOCK[told.landlock] if told.resolved else "",
        "known": told.basis,
    }
    if not sys.stdout.isatty():
        sys.stdout.write(printable(headline) + "\n")
    else:
        from rich.console import Console  # noqa: PLC0415 -- 20 ms that a pipe does without
        from rich.text import Text  # noqa: PLC0415 -- likewise

        Console().print(Text(printable(headline), "bold green" if told.outcome == "allowed" else "bold red"))
    for label, value in below.items():
        if value:
            sys.stdout.write(f"  {label:9} {printable(value)}\n")
