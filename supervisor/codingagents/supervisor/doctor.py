"""ENTRY: `coding-agents doctor`: which layers hold on this machine, each as it was tried just now, without a session.

Confines one stub exactly as a session confines its agent, has it attempt what each layer forbids, and prints the
report; with --verify one for each role, under a UID and behind a trap of its own, and a helper besides. What it makes
(a mount namespace, a probe file, children) is gone when it ends.
"""

from __future__ import annotations

import argparse
import functools
import os
import secrets as randomness
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import trio

from codingagents.rewrite.specs import ExecSpec
from codingagents.supervisor import apparmor_profile, kernel, namespaces, processes, report_view, rundirs, signals
from codingagents.supervisor.confine_spec import ConfineSpec
from codingagents.supervisor.confined import ConfinedRole, TrapSettings
from codingagents.supervisor.early import StubProcess, TaskParentProcess
from codingagents.supervisor.layers import Facts
from codingagents.supervisor.reaper import Reaper
from codingagents.supervisor.rundirs import apparmor_label
from codingagents.supervisor.task_plan import MASKED
from codingagents.supervisor.task_spec import SandboxSpec
from codingagents.trust import errors
from codingagents.trust.commandline import Parser
from codingagents.trust.errors import AgentError
from codingagents.trust.events import AnyEvent, Layer
from codingagents.trust.scrub import Scrubber
from codingagents.trust.vocabulary import Role

# UIDs of the probes; below the range that sessions choose from first.
_UIDS: Final = {Role.AGENT: 52999, Role.TASK: 52998, Role.COMMAND_SERVER: 52997}
_HELPERS_UID: Final = 52996
_PROBE_PLACES: Final = ("/tmp", "/var/tmp", "/run", "/dev/shm")  # noqa: S108 -- made with O_EXCL, under a random name
# What a session promises on every machine it supports, Docker's default Linux capabilities included.
ALWAYS_EXPECTED: Final = frozenset(
    {"uid_drop", "no_new_privs", "seccomp_static", "userns", "limits", "landlock_exec", "memfd_rule", "exec_trap"}
)
_DESCRIPTION: Final = """\
Report which confinement layers hold on this machine, each as it was tried just now by a process confined as an agent.

With --apparmor the AppArmor profile of a role is printed instead, for machines whose kernel has AppArmor; tasks are put
under coding-agents-task where it is loaded. Its syntax is tested, what it does is not.

With --verify the same is tried as a task and as a command server too, each with its own UID and trap, and by a helper,
which has layers of its own. It fails where a layer that every session counts on is not enforced for one of them.
"""
_EPILOG: Final = """\
examples:
  sudo coding-agents doctor
  sudo coding-agents doctor --verify --json
  coding-agents doctor --apparmor task | sudo apparmor_parser -r

exit codes: 0 ok; 1 with --verify, a layer that every session counts on is not enforced; 2 usage
"""


class _NoLog:
    """There is no session, so nothing is recorded."""

    def append(self, event: AnyEvent) -> None:
        """Forget the event."""

    def settle(self) -> None:
        """Nothing waits."""


def main(argv: list[str]) -> int:
    """Print the layer report; 0, or with `--verify` 1 where a layer that every session counts on is not enforced.

    Raises `UsageError`.
    """
    parser = Parser(
        prog="coding-agents doctor",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument(
        "--verify", action="store_true", help="try every role; fail where an expected layer is not enforced"
    )
    parser.add_argument("--apparmor", choices=apparmor_profile.ROLES, help="print the AppArmor profile of that role")
    options = parser.parse_args(argv)
    if options.apparmor:
        sys.stdout.write(apparmor_profile.profile_text(Role(options.apparmor)))
        return errors.EXIT_OK
    signals.inherit_nothing()
    roles = tuple(_UIDS) if options.verify else (Role.AGENT,)
    reports = trio.run(functools.partial(_report, roles, helper=options.verify))
    show = report_view.roles_as_json if options.json else report_view.roles_as_text
    sys.stdout.write(show(reports, sys.stdout.isatty()))
    failing = _failing(reports)
    if options.verify and failing:
        sys.stderr.write(f"coding-agents: not enforced: {', '.join(failing)}\n")
        return errors.EXIT_REFUSED
    return errors.EXIT_OK


def _failing(reports: Mapping[Role, Sequence[Layer]]) -> list[str]:
    """Return the expected layers that are not enforced, with the roles that lack them unless all that have them do."""
    lacking: dict[str, list[Role]] = {}
    for role, rows in reports.items():
        for row in rows:
            # A helper wants what it must not serve without.
            expected = row.wanted == "require" if role is Role.HELPER else row.layer in ALWAYS_EXPECTED
            if expected and row.state != "enforced" and role not in lacking.setdefault(row.layer, []):
                lacking[row.layer].append(role)
    return [
        name
        if roles == [role for role, rows in reports.items() if any(row.layer == name for row in rows)]
        # The empty list is of a layer that was expected, and held.
        else f"{name} ({', '.join(roles)})"
        for name, roles in lacking.items()
        if roles
    ]


async def _report(roles: Sequence[Role], *, helper: bool) -> dict[Role, list[Layer]]:
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
    reports: dict[Role, list[Layer]] = {}
    failure: AgentError | None = None
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(reaper.run)
            for role in roles:
                of_tasks = role is Role.TASK and facts.root  # without, there is no runner
                stub = TaskParentProcess(children) if of_tasks else StubProcess(children, stdio={2: 2})
                try:
                    reports[role] = await _confine(stub, role, facts, probe_file)
                except AgentError as error:
                    failure = error  # raised in here, the nursery would wrap it
                await reaper.wait(stub.child)
            if helper and facts.root:  # without, no helper serves, as `uid_drop` says
                reports[Role.HELPER] = await _try_helper(children, reaper)
            nursery.cancel_scope.cancel()
    finally:
        if probe_file:
            os.unlink(probe_file)
    if failure is not None:
        raise failure
    return reports


async def _try_helper(children: processes.Children, reaper: Reaper) -> list[Layer]:
    """Return a helper's rows, or in their place one that says why there is none."""
    from codingagents.supervisor.helper_probe import try_helper  # noqa: PLC0415 -- plain `doctor` does without

    try:
        return await try_helper(children, reaper, uid=_HELPERS_UID, agent_uid=_UIDS[Role.AGENT])
    except AgentError as error:
        return [
            Layer(
                layer="helper",
                wanted="require",
                state="unavailable",
                mechanism="a process for each remote server, with layers of its own",
                probe="a helper was started",
                observed_by="observed",
                why=str(error),
                consequence="no remote server could be reached",
            )
        ]


async def _confine(stub: StubProcess | TaskParentProcess, role: Role, facts: Facts, probe_file: str) -> list[Layer]:
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
        role=role.value,
        uid=_UIDS[role] if facts.root else None,
        gid=_UIDS[role],
        groups=[],
        umask=0o022,
        execute_trees=sorted({*trees, *map(os.path.realpath, trees)}),
        probe_file=probe_file or None,
        probe_nonce=randomness.token_hex(16),
        death_signal=True,
    )
    confined = ConfinedRole(stub, role, settings)
    try:
        if isinstance(stub, TaskParentProcess):
            return await confined.confine(SandboxSpec(confine=spec, masks=list(MASKED)), facts)
        return await confined.confine(spec, facts)
    finally:
        confined.close()
