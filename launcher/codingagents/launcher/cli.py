"""ENTRY: the host's `coding-agents` command: its words, its help, and what each error ends with.

Parses argv and hands over; sync, no event loop. Commands of the container's half replace this process (see
`container_side`). Every `AgentError` is one line on standard error and its exit code.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from codingagents.launcher import completion, config_cmd, container_side, trust_cli
from codingagents.launcher.run import DEFAULT_AGENT, RunOptions, run
from codingagents.launcher.terminal import PROGRAM, say, say_briefly
from codingagents.rewrite import foreground, places
from codingagents.rewrite.clients.known import CLIENTS
from codingagents.rewrite.override_store import OverrideStore
from codingagents.rewrite.secrets import parse_option
from codingagents.trust.commandline import Parser, printing
from codingagents.trust.errors import (
    EXIT_ENGINE,
    EXIT_NOT_FOUND,
    EXIT_OK,
    EXIT_REFUSED,
    EXIT_USAGE,
    AgentError,
    ConfigError,
    UsageError,
)
from codingagents.trust.vocabulary import parse_agent_name

_EXIT_INTERRUPTED = 130
# What would be taken for the agent's own code.
_CODES_OF_RUN = {EXIT_REFUSED: EXIT_ENGINE, EXIT_NOT_FOUND: EXIT_USAGE}

_HELP = """\
Runs coding agents so that they never hold a credential, every program they start is seen and decided,
and the record can be proved afterwards.

examples:
  coding-agents config check ~/.config/coding-agents/config.toml
  coding-agents run --secret GITHUB_TOKEN=env:GITHUB_TOKEN -- claude
  coding-agents helper run --server github --secret GITHUB_TOKEN=env:GITHUB_TOKEN
  coding-agents trust check --all
  coding-agents events verify --key KEY LOG

files:
  ~/.config/coding-agents/config.toml       servers, exec rules and layers of a session
  ~/.config/coding-agents/mcp-secrets.env   KEY=VALUE lines, mode 0600
  ~/.config/coding-agents/trust-overrides/  certificate authorities of your own, kept by `coding-agents trust`
  ~/.config/coding-agents/sessions/ID/      a session's spec and event log
  ~/.config/coding-agents/trusted/ID.pub    the key that its log verifies against, kept out of its reach

exit codes:
  0 ok · 1 refused, or a check failed · 2 usage or configuration · 3 not found · 130 interrupted
  `run` and `init` end with the program's own code, 128+N for signal N; our failures are 125, 126 and 127 then
"""

_RUN_USAGE = "coding-agents run [OPTION]… [-- COMMAND [ARGUMENT]…]"
_RUN_HELP = """\
Run one session, start to finish.

Reads the configuration, takes along the secrets that it needs, starts the supervisor as PID 1 and stays with it to the
end. COMMAND is the agent's command line; without one it is the agent's name. Whatever is wrong in the configuration or
on this command line is found before anything is started or written.

A secret's value never stands on a command line. It comes from
  --secret NAME=env:VARIABLE    an environment variable, which is removed from what is passed on
  --secret NAME=file:PATH       a file of mode 0600 that is yours or root's
  ~/.config/coding-agents/mcp-secrets.env, for names that --secret does not give

The agent's environment is PATH, TERM, LANG, LC_*, TZ, COLORTERM and NO_COLOR; nothing else of yours reaches it.

examples:
  coding-agents run -- claude
  coding-agents run --config work.toml --secret GITHUB_TOKEN=env:GITHUB_TOKEN -- codex exec "fix the tests"
"""


class _Text(TypedDict):
    description: str
    help: str
    formatter_class: type[argparse.HelpFormatter]
    allow_abbrev: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return printing(lambda: _main(arguments))
    except AgentError as error:
        # A session's signals may be blocked by now, and nobody could interrupt us.
        (say_briefly if arguments[:1] == ["run"] else say)(str(error))
        return _CODES_OF_RUN.get(error.exit_code, error.exit_code) if arguments[:1] == ["run"] else error.exit_code
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED


def runnerctl() -> int:
    """Run `agent-task-runnerctl`, which is `coding-agents exec` under the name that images and scripts use."""
    return main(["exec", *sys.argv[1:]])


def _main(arguments: list[str]) -> int:
    if (arguments and arguments[0] in container_side.COMMANDS) or arguments[:2] == ["helper", "list"]:
        container_side.become(arguments)
    command: list[str] = []
    if arguments[:1] == ["run"] and "--" in arguments:
        end = arguments.index("--")
        arguments, command = arguments[:end], arguments[end + 1 :]
    parser = build_parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        remedy = "the agent's command goes after --" if options.action == "run" else f"see: {PROGRAM} --help"
        raise UsageError(f"{unknown[0]!r} is not understood here; {remedy}")
    if options.action == "run":
        return run(_run_options(options, command), os.environ)
    if options.action == "completion":
        sys.stdout.write(completion.script(parser, options.shell))
        return EXIT_OK
    if options.action == "trust":
        return trust_cli.main(options)
    if options.action == "helper":
        foreground.become(options, os.environ)
    if options.config_action == "check":
        overrides = OverrideStore(Path.home() / places.HOST_CONFIG / places.OVERRIDES)
        return config_cmd.check(options.file, overrides, as_json=options.json)
    return config_cmd.render(options.file, client=options.client, as_json=options.json)


def _run_options(options: argparse.Namespace, command: list[str]) -> RunOptions:
    base = Path.home() / places.HOST_CONFIG
    return RunOptions(
        base=base,
        config=options.config or base / "config.toml",
        engine=options.engine,
        agent=None if options.agent is None else _agent(options.agent),
        workspace=options.workspace,
        secrets=tuple(map(parse_option, options.secret)),
        session_dir=options.session_dir,
        uid_base=options.uid_base,
        command=tuple(command),
    )


def _agent(name: str) -> str:
    try:
        return parse_agent_name(name)
    except ConfigError as error:
        raise UsageError(f"--agent: {error}") from None


def build_parser() -> argparse.ArgumentParser:
    """Return the whole command tree. Container-side commands are only listed: their own parser knows their options."""
    parser = Parser(
        prog=PROGRAM, description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=importlib.metadata.version("coding-agents-supervisor"))
    actions = parser.add_subparsers(dest="action", metavar="COMMAND", required=True)
    _add_run(actions.add_parser("run", usage=_RUN_USAGE, **_text(_RUN_HELP)))
    _add_config(actions.add_parser("config", **_text("Validate a configuration, and show what each client would get.")))
    _add_helper(actions.add_parser("helper", **_text("Run one helper in the foreground, or list those of a session.")))
    trust_cli.add_parsers(actions)
    for name, text in container_side.COMMANDS.items():
        listed = actions.add_parser(name, help=text, add_help=False)
        if name == "exec":  # to be completed
            below = listed.add_subparsers()
            for action, words in container_side.EXEC_OPTIONS.items():
                parser_of_one = below.add_parser(action, add_help=False)
                for option in words:
                    parser_of_one.add_argument(option)
    shell = actions.add_parser(
        "completion", **_text("Print a completion script: source <(coding-agents completion bash)")
    )
    shell.add_argument("shell", choices=completion.SHELLS)
    return parser


def _text(text: str) -> _Text:
    """Return what a parser shows: all of `text` as its help, the first line in its parent's."""
    return {
        "description": text,
        "help": text.splitlines()[0],
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "allow_abbrev": False,
    }


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--engine", choices=["local", "podman", "docker"], default="local", help="what to run the session in (local)")
    add("--config", metavar="FILE", type=Path, help="configuration (~/.config/coding-agents/config.toml)")
    add("--agent", metavar="NAME", help=f"kind of agent, which decides the client configuration ({DEFAULT_AGENT})")
    add("--workspace", metavar="DIR", help="the agent's working directory (the current one)")
    add("--secret", metavar="NAME=SOURCE", action="append", default=[], help="env:VARIABLE or file:PATH; repeatable")
    add("--session-dir", metavar="DIR", type=Path, help="where the session's files go; empty or missing")
    add("--uid-base", metavar="N", type=int, help="first of the session's user IDs (a free range is chosen)")


def _add_helper(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="helper_action", metavar="ACTION", required=True)
    foreground.add_arguments(actions.add_parser("run", usage=foreground.USAGE, **_text(foreground.HELP)))
    # Only to be listed and completed: the container's half has its own parser for it.
    listed = actions.add_parser("list", help="List the helpers of a running session: state, requests, memory.")
    listed.add_argument("--session", metavar="DIR", help="the session's directory (that of the one that runs)")
    listed.add_argument("--json", action="store_true", help="for programs")


def _add_config(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="config_action", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check", **_text("Validate FILE: exit 0 with a table of its servers, or 2 with the mistake.")
    )
    render = actions.add_parser(
        "render", **_text("Print what a client would be given for FILE, with a placeholder bearer.")
    )
    render.add_argument("--client", choices=sorted(CLIENTS), required=True, help="whose format")
    for command in (check, render):
        command.add_argument("file", metavar="FILE", type=Path)
        command.add_argument("--json", action="store_true", help="for programs")
