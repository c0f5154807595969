"""CORE: what the agent is started as, and what is said where it cannot be. Pure: paths come resolved, random as given.

Starts nothing and puts no layer on: that is for `confined`, which tells the stub.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from codingagents.rewrite import places
from codingagents.rewrite.specs import SessionSpec
from codingagents.supervisor.confine_spec import ConfineSpec, ExecFailed
from codingagents.supervisor.layers import unmet_requirements
from codingagents.supervisor.routing import Routing
from codingagents.trust import errors
from codingagents.trust.events import Layer
from codingagents.trust.vocabulary import Role


def agent_confinement(
    spec: SessionSpec,
    command: Sequence[str],
    *,
    client_environment: Mapping[str, str],
    real_trees: Sequence[str],
    routing: Routing | None = None,
    probe_file: str,
    probe_nonce: str,
    death_signal: bool,
) -> ConfineSpec:
    """Return how the agent is confined and what it runs.

    `real_trees` are the specification's trees with every link resolved: both may be executed, and the task shells, for
    an agent that is not routed, too. `probe_file` is "" where there is no place for one. The specification's
    environment wins over the clients', and both over ours; that of `routing` wins over all.
    """
    own_trees = {*spec.exec.trees, *real_trees, places.SHELLS} if routing is None else routing.trees
    return ConfineSpec(
        argv=list(command),
        role=Role.AGENT.value,
        limits=spec.limits,
        environment={
            "PATH": places.SYSTEM_PATH,
            "HOME": places.AGENT_HOME,
            "AGENT_TASK_RUNNER_SOCKET": places.RUNNER_SOCKET,
            **client_environment,
            "CODING_AGENTS_SESSION": spec.session,
            **spec.environment,
            **({} if routing is None else routing.environment),
        },
        working_directory=spec.working_directory,
        uid=spec.uids.agent,
        gid=spec.uids.agent,
        groups=[spec.uids.workspace_gid],
        umask=0o002,
        execute_trees=sorted(own_trees),
        probe_file=probe_file or None,
        probe_nonce=probe_nonce,
        death_signal=death_signal,
        shims={} if routing is None else dict(routing.shims),
        layers_off=[name for name, wish in spec.layers.items() if wish == "off"],
    )


def missing_layers(rows: Sequence[Layer]) -> str:
    """Return the sentence about required layers that a report does not show as enforced; "" where there are none."""
    unmet = unmet_requirements(rows)
    if not unmet:
        return ""
    named = (f"{row.layer}: {row.why}" + (f" ({row.remedy})" if row.remedy else "") for row in unmet)
    return f"required layers are not enforced here: {'; '.join(named)}"


def why_not_started(failed: ExecFailed, spec: SessionSpec, program: str) -> str:
    """Return the sentence about an agent that could not be run, with what would help where that is known."""
    return f"{failed.step} failed with {failed.errno}{_hint(failed, spec, program)}"


def _hint(failed: ExecFailed, spec: SessionSpec, program: str) -> str:
    if failed.code == errors.EXIT_NO_PROGRAM and "/" not in program:
        return f"; install it for all users: the agent's PATH is {spec.environment.get('PATH', places.SYSTEM_PATH)}"
    if failed.errno != "EACCES":
        return ""
    if failed.step.startswith("entering"):
        return f"; UID {spec.uids.agent} must be able to reach the workspace: give it a copy with --workspace"
    return f"; only {' '.join(spec.exec.trees)} may be executed: see [exec] trees"
