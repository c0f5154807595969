"""What the tasks of a session are made as: who they are, where they execute, what they cannot see and are given."""

import msgspec

from codingagents.rewrite.clients.known import CLIENTS
from codingagents.rewrite.specs import ExecSpec, RoleLimits, SessionSpec, UidPlan
from codingagents.supervisor import task_plan
from codingagents.supervisor.confine_spec import ConfineSpec
from codingagents.supervisor.task_request import USUAL
from codingagents.supervisor.task_spec import SandboxSpec

SPEC = SessionSpec(
    session="s-1",
    agent="claude",
    engine="local",
    config_sha256="00",
    uids=UidPlan(agent=52001, task=52002, workspace_gid=52003, servers={}),
    remotes=[],
    exec=ExecSpec(trees=["/usr"], task_environment=["MY_*"]),
    layers={"apparmor": "off", "exec_trap": "require"},
    task_limits=RoleLimits(processes=99),
    command=["claude"],
    working_directory="/w",
    environment={"LANG": "C", "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GITHUB": "x"},
    public_key="",
)


def sandbox(spec: SessionSpec, probe_file: str = "/p") -> SandboxSpec:
    return task_plan.sandbox(
        spec, real_trees=["/usr", "/real"], probe_file=probe_file, probe_nonce="n", death_signal=True
    )


def test_the_sandbox_is_as_the_session_says() -> None:
    trees = ["/real", "/run/agent-tasks/home", "/run/agent-tasks/shells", "/tmp", "/usr", "/w"]
    assert sandbox(SPEC) == SandboxSpec(
        confine=ConfineSpec(
            argv=[],
            environment={},
            role="task",
            limits=RoleLimits(processes=99),
            working_directory="/w",
            uid=52002,
            gid=52002,
            groups=[52003],
            umask=0o002,
            execute_trees=trees,
            probe_file="/p",
            probe_nonce="n",
            death_signal=True,
            layers_off=["apparmor"],
        ),
        masks=[
            "/run/coding-agents",
            "/run/agent-secrets",
            "/run/agent-data",
            "/run/agent-data-export",
            "/run/agent-task-runner",
        ],
    )
    assert sandbox(SPEC, probe_file="").confine.probe_file is None


def test_tasks_are_the_workspaces_owner_where_the_session_says_so() -> None:
    spec = msgspec.structs.replace(SPEC, task_owner=(1000, 100))
    confine = sandbox(spec).confine
    assert task_plan.identity(spec) == (confine.uid, confine.gid) == (1000, 100)
    assert confine.groups == [52003]


def test_trees_of_ones_own_take_the_place_of_those_of_tasks() -> None:
    spec = msgspec.structs.replace(SPEC, exec=msgspec.structs.replace(SPEC.exec, task_trees=["/opt/x"]))
    assert task_plan.trees(spec) == ["/usr", "/opt/x", "/run/agent-tasks/shells"]


def test_what_tasks_are_given_and_may_take_over() -> None:
    terms = task_plan.terms(SPEC, shell="/bin/bash")
    assert terms.environment == {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "HOME": "/run/agent-tasks/home",
        "USER": "agentuser",
        "LOGNAME": "agentuser",
        "SHELL": "/bin/bash",
        "CODING_AGENTS_SESSION": "s-1",
    }
    assert terms.limits == RoleLimits(processes=99)
    assert set(terms.allowed) == {*USUAL, *CLIENTS["claude"].SHELLING.task_environment, "MY_*"}
    other = task_plan.terms(msgspec.structs.replace(SPEC, agent="mine"), shell="/bin/sh", user="ann")
    assert set(other.allowed) == {*USUAL, "MY_*"}
    assert other.environment["USER"] == other.environment["LOGNAME"] == "ann"
