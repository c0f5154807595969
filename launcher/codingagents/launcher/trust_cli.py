"""ENTRY: `coding-agents trust`: its words and its help. Each action is a module of its own and does the work.

An action's module has `add_parser(actions)`, which sets `run`, a function from the parsed options to an exit code.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from codingagents.launcher import trust_add, trust_check, trust_reload, trust_rotate, trust_view
from codingagents.launcher.trust_shared import Actions, parser_text

_HELP = """\
Keep certificate authorities of your own, each for the hosts that you name, and see why a server is trusted.

An override is added beside a trust store, for one server at a time: `ca_overrides = ["NAME"]` in its
[mcp_servers.SERVER.tls]. It counts for hosts in its scope only, and for no other server.

examples:
  coding-agents trust add corp-root corp.pem --scope '*.corp.example'
  coding-agents trust add lab --from https://mcp.lab.example:8443
  coding-agents trust list
  coding-agents trust check --all
  coding-agents trust rotate github
  coding-agents trust reload 20270301-9f86d081

exit codes:
  0 ok · 1 a check failed, or a certificate is not what was asked for · 2 usage, configuration, or nobody vouched
  3 not found · 130 interrupted
"""
# In the order of the help.
_ADD_PARSERS: tuple[Callable[[Actions], None], ...] = (
    trust_add.add_parser,
    trust_view.add_parsers,
    trust_check.add_parser,
    trust_rotate.add_parser,
    trust_reload.add_parser,
)


def add_parsers(actions: Actions) -> None:
    """Add `trust` and its actions below the command's own."""
    parser = actions.add_parser("trust", **parser_text(_HELP))
    below = parser.add_subparsers(dest="trust_action", metavar="ACTION", required=True)
    for add in _ADD_PARSERS:
        add(below)


def main(options: argparse.Namespace) -> int:
    """Do what `trust ACTION` says and return the exit code. Raises `AgentError`."""
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)
