"""What the agent is started as, and the sentence for each way in which it cannot be."""

import msgspec
import pytest

from codingagents.rewrite.specs import ExecSpec, SessionSpec, UidPlan
from codingagents.supervisor.agent_plan import agent_confinement, missing_layers, why_not_started
from codingagents.supervisor.confine_spec import ConfineSpec, ExecFailed
from codingagents.supervisor.exec_routes import Routes
from codingagents.supervisor.routing import Routing
from codingagents.trust.events import Layer, LayerState
from codingagents.trust.vocabulary import LayerWish

SPEC = SessionSpec(
    session="s-1",
    agent="claude",
    engine="local",
    config_sha256="00",
    uids=UidPlan(agent=52001, task=52002, workspace_gid=52003, servers={}),
    remotes=[],
    exec=ExecSpec(trees=["/usr", "/bin"]),
    layers={"apparmor": "off", "landlock_exec": "require"},
    command=["claude"],
    working_directory="/w",
    environment={"LANG": "C.UTF-8"},
    public_key="",
)


def confinement(environment: dict[str, str], client_environment: dict[str, str], probe_file: str = "/p") -> ConfineSpec:
    return agent_confinement(
        msgspec.structs.replace(SPEC, environment=environment),
        ["claude", "--x"],
        client_environment=client_environment,
        real_trees=["/usr", "/usr/bin"],
        probe_file=probe_file,
        probe_nonce="n",
        death_signal=True,
    )


def test_the_agent_is_confined_as_the_session_says() -> None:
    assert confinement({"PATH": "/bin"}, {}) == ConfineSpec(
        argv=["claude", "--x"],
        environment={
            "PATH": "/bin",
            "HOME": "/run/coding-agents/home",
            "AGENT_TASK_RUNNER_SOCKET": "/run/agent-task-runner/runner.sock",
            "CODING_AGENTS_SESSION": "s-1",
        },
        working_directory="/w",
        uid=52001,
        gid=52001,
        groups=[52003],
        umask=0o002,
        execute_trees=["/bin", "/run/agent-tasks/shells", "/usr", "/usr/bin"],
        probe_file="/p",
        probe_nonce="n",
        death_signal=True,
        layers_off=["apparmor"],
    )


def test_a_session_without_a_place_for_the_probe_has_none() -> None:
    assert confinement({}, {}, probe_file="").probe_file is None


def test_the_specification_has_the_last_word_on_the_environment() -> None:
    """What the session was planned with is what the operator was shown."""
    environment = confinement(
        {"PATH": "/a", "CODEX_HOME": "/b"}, {"CODEX_HOME": "/c", "X": "y", "HOME": "/d"}
    ).environment
    assert environment == {
        "PATH": "/a",
        "CODEX_HOME": "/b",
        "X": "y",
        "HOME": "/d",
        "AGENT_TASK_RUNNER_SOCKET": "/run/agent-task-runner/runner.sock",
        "CODING_AGENTS_SESSION": "s-1",
    }
    assert confinement({}, {}).environment["PATH"].split(":")[-1] == "/bin", "an agent always has one"


def row(layer: str, state: LayerState, wanted: LayerWish, why: str = "", remedy: str = "") -> Layer:
    return Layer(
        layer=layer, wanted=wanted, state=state, mechanism="", probe="", observed_by="observed", why=why, remedy=remedy
    )


def test_a_layer_that_is_required_and_missing_is_named_with_its_remedy() -> None:
    rows = [
        row("seccomp", "enforced", "require"),
        row("mountns", "unavailable", "prefer", remedy="not asked for"),
        row("landlock_exec", "unavailable", "require", why="ENOSYS", remedy="a newer kernel"),
    ]
    assert missing_layers(rows) == "required layers are not enforced here: landlock_exec: ENOSYS (a newer kernel)"


def test_a_missing_layer_without_a_remedy_has_its_cause() -> None:
    rows = [row("landlock_exec", "unavailable", "require", why="ENOSYS"), row("x", "unavailable", "require", why="y")]
    assert missing_layers(rows) == "required layers are not enforced here: landlock_exec: ENOSYS; x: y"


def test_nothing_is_said_where_every_required_layer_holds() -> None:
    assert missing_layers([row("seccomp", "enforced", "require"), row("mountns", "unavailable", "prefer")]) == ""


@pytest.mark.parametrize(
    ("step", "errno", "code", "program", "sentence"),
    [
        (
            "running claude",
            "ENOENT",
            127,
            "claude",
            "running claude failed with ENOENT; install it for all users: the agent's PATH is {path}",
        ),
        ("running /x", "ENOENT", 127, "/x", "running /x failed with ENOENT"),
        ("running /x", "ENOEXEC", 126, "/x", "running /x failed with ENOEXEC"),
        (
            "running /w/x",
            "EACCES",
            126,
            "/w/x",
            "running /w/x failed with EACCES; only /usr /bin may be executed: see [exec] trees",
        ),
        (
            "entering /w",
            "EACCES",
            126,
            "claude",
            (
                "entering /w failed with EACCES; UID 52001 must be able to reach the workspace: "
                "give it a copy with --workspace"
            ),
        ),
    ],
)
def test_an_agent_that_cannot_be_run_is_told_why(step: str, errno: str, code: int, program: str, sentence: str) -> None:
    path = confinement({}, {}).environment["PATH"]
    assert why_not_started(ExecFailed(step=step, errno=errno, code=code), SPEC, program) == sentence.format(path=path)


def test_what_routing_says_wins_over_all() -> None:
    way = Routing(
        client="claude",
        enforced=True,
        shell="/s/bash",
        environment={"SHELL": "/s/bash", "CODEX_HOME": "/r"},
        means=(),
        routes=Routes(client="claude", own=[], interpreters=[]),
        trees=("/s", "/opt/claude"),
        degrades=(),
        shims={"/usr/bin/dash": "/s/sh"},
    )
    spec = agent_confinement(
        msgspec.structs.replace(SPEC, environment={"SHELL": "/bin/fish", "LANG": "C"}),
        ["claude"],
        client_environment={"CODEX_HOME": "/c"},
        real_trees=["/usr"],
        routing=way,
        probe_file="",
        probe_nonce="n",
        death_signal=True,
    )
    assert {"SHELL": "/s/bash", "CODEX_HOME": "/r", "LANG": "C"}.items() <= spec.environment.items()
    assert spec.execute_trees == ["/opt/claude", "/s"]
    assert spec.shims == {"/usr/bin/dash": "/s/sh"}
