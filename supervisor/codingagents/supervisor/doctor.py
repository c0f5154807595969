"""ENTRY: `coding-agents doctor`: which layers hold on this machine, each as it was tried just now, without a session.

Confines one stub exactly as a session confines its agent, has it attempt what each layer forbids, and prints the
report. What it makes (a mount namespace, a probe file, a child) is gone when it ends.
"""

from __future__ import annotations

import os
import secrets as randomness
import sys
from typing import Final

import trio

from codingagents.rewrite.specs import ExecSpec
from codingagents.supervisor import kernel, namespaces, processes, report_view, rundirs, signals
from codingagents.supervisor.confine_spec import ConfineSpec
from codingagents.supervisor.confined import ConfinedRole, TrapSettings
from codingagents.supervisor.early import StubProcess
from codingagents.supervisor.layers import Facts
from codingagents.supervisor.reaper import Reaper
from codingagents.supervisor.rundirs import apparmor_label
from codingagents.trust import errors
from codingagents.trust.commandline import Parser
from codingagents.trust.errors import AgentError
from codingagents.trust.events import AnyEvent, Layer
from codingagents.trust.scrub import Scrubber
from codingagents.trust.vocabulary import Role

_UID: Final = 52999  # of the probe; below the range that sessions choose from first
_PROBE_PLACES: Final = ("/tmp", "/var/tmp", "/run", "/dev/shm")  # noqa: S108 -- made with O_EXCL, under a random name
# What a session promises on every machine it supports, Docker's default Linux capabilities included.
ALWAYS_EXPECTED: Final = frozenset({"uid_drop", "no_new_privs", "landlock_exec", "memfd_rule", "exec_trap"})


class _NoLog:
    """There is no session, so nothing is recorded."""

    def append(self, event: AnyEvent) -> None:
        """Forget the event."""


def main(argv: list[str]) -> int:
    """Print the layer report; 0, or with `--verify` 1 where a layer that every session counts on is not enforced.

    Raises `UsageError`.
    """
    parser = Parser(
        prog="coding-agents doctor",
        description="Report which confinement layers hold on this machine, each as it was tried just now.",
        epilog="exit codes: 0 ok; 1 with --verify, a layer that every session counts on is not enforced; 2 usage",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--verify", action="store_true", help="fail where an expected layer is not enforced")
    options = parser.parse_args(argv)
    signals.inherit_nothing()
    rows = trio.run(_report)
    sys.stdout.write(report_view.as_json(rows) if options.json else report_view.as_text(rows, sys.stdout.isatty()))
    failing = [row.layer for row in rows if row.layer in ALWAYS_EXPECTED and row.state != "enforced"]
    if options.verify and failing:
        sys.stderr.write(f"coding-agents: not enforced: {', '.join(failing)}\n")
        return errors.EXIT_REFUSED
    return errors.EXIT_OK


async def _report() -> list[Layer]:
    why_no_mounts, run_dirs = rundirs.try_mounting()
    facts = Facts(
        engine_seccomp=kernel.status_fields().get("Seccomp", "0"),
        mount_namespace=why_no_mounts,
        run_dirs=run_dirs,
        proc_hidden=why_no_mounts or namespaces.hide_processes(),
        yama=kernel.yama_ptrace_scope(),
        is_pid1=processes.is_pid1(),
        apparmor=apparmor_label(),
        root=all(map(kernel.has_capability, (kernel.CAP_SETUID, kernel.CAP_SETGID))),
    )
    children = processes.Children()
    reaper = Reaper(children)
    probe_file = rundirs.make_probe_file(_PROBE_PLACES)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(reaper.run)
            stub = StubProcess(children, stdio={2: 2})
            failure: AgentError | None = None
            try:
                rows = await _confine(stub, facts, probe_file)
            except AgentError as error:
                failure = error  # raised in here, the nursery would wrap it
            await reaper.wait(stub.child)
            nursery.cancel_scope.cancel()
    finally:
        if probe_file:
            os.unlink(probe_file)
    if failure is not None:
        raise failure
    return rows


async def _confine(stub: StubProcess, facts: Facts, probe_file: str) -> list[Layer]:
    trees = ExecSpec().trees
    settings = TrapSettings(
        exec_spec=ExecSpec(),
        log=_NoLog(),
        scrubber=Scrubber({}),
        on_trouble=lambda sentence: None,
    )
    spec = ConfineSpec(
        argv=[],
        environment={},
        working_directory="/",
        uid=_UID if facts.root else None,
        gid=_UID,
        groups=[],
        umask=0o022,
        execute_trees=sorted({*trees, *map(os.path.realpath, trees)}),
        probe_file=probe_file or None,
        probe_nonce=randomness.token_hex(16),
        death_signal=True,
    )
    role = ConfinedRole(stub, Role.AGENT, settings)
    try:
        return await role.confine(spec, facts)
    finally:
        role.close()
