"""CORE: what the tasks of a session are made as: sandbox, terms, and who they are. Pure: paths come resolved.

Puts no layer on and starts nothing: the first is for `task_parent`, the second for `task_host`.
"""

from __future__ import annotations

from collections.abc import Sequence

from codingagents.rewrite import places
from codingagents.rewrite.clients.known import CLIENTS
from codingagents.rewrite.specs import SessionSpec
from codingagents.supervisor.account_lines import TASK
from codingagents.supervisor.confine_spec import ConfineSpec
from codingagents.supervisor.task_request import USUAL, TaskTerms
from codingagents.supervisor.task_spec import SandboxSpec
from codingagents.trust.vocabulary import Role

# What is below them is the agent's, the helpers' or root's, and no task's business.
MASKED = (places.RUN_ROOT, places.RUN_SECRETS, places.RUN_DATA, places.RUN_EXPORT, places.RUN_RUNNER)


def identity(spec: SessionSpec) -> tuple[int, int]:
    """Return UID and GID of the session's tasks; they may be a person's, see `SessionSpec.task_owner`."""
    return spec.task_owner or (spec.uids.task, spec.uids.task)


def trees(spec: SessionSpec) -> list[str]:
    """Return where tasks may execute files."""
    own = spec.exec.task_trees
    own = [spec.working_directory, places.TASK_HOME, "/tmp"] if own is None else own  # noqa: S108 -- tasks' own to use
    return [*spec.exec.trees, *own, places.SHELLS]


def sandbox(
    spec: SessionSpec,
    *,
    real_trees: Sequence[str],
    probe_file: str,
    probe_nonce: str,
    death_signal: bool,
) -> SandboxSpec:
    """Return the sandbox of all tasks.

    `real_trees` are `trees` with every link resolved: both may be executed. `probe_file` is "" where there is no place
    for one.
    """
    uid, gid = identity(spec)
    return SandboxSpec(
        confine=ConfineSpec(
            argv=[],
            environment={},
            role=Role.TASK.value,
            limits=spec.task_limits,
            working_directory=spec.working_directory,
            uid=uid,
            gid=gid,
            groups=[spec.uids.workspace_gid],
            umask=0o002,
            execute_trees=sorted({*trees(spec), *real_trees}),
            probe_file=probe_file or None,
            probe_nonce=probe_nonce,
            death_signal=death_signal,
            layers_off=[name for name, wish in spec.layers.items() if wish == "off"],
        ),
        masks=list(MASKED),
    )


def terms(spec: SessionSpec, *, shell: str, user: str = TASK) -> TaskTerms:
    """Return what each task gets; `shell` is what a person would have, and `user` the name of the tasks' account."""
    client = CLIENTS.get(spec.agent)
    of_client = () if client is None else client.SHELLING.task_environment
    git = {name: value for name, value in spec.environment.items() if name.startswith("GIT_CONFIG_")}
    return TaskTerms(
        allowed=(*USUAL, *of_client, *spec.exec.task_environment),
        environment={
            **git,
            "HOME": places.TASK_HOME,
            "USER": user,
            "LOGNAME": user,
            "SHELL": shell,
            "CODING_AGENTS_SESSION": spec.session,
        },
        limits=spec.task_limits,
    )
