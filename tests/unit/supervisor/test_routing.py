"""From a client's table and what was found of it to what remains the agent's own, and what Landlock leaves of it."""

from __future__ import annotations

import msgspec
import pytest

from codingagents.rewrite.clients.base import Need
from codingagents.rewrite.clients.known import CLIENTS
from codingagents.rewrite.specs import ExecRule, ExecSpec, Route, SessionSpec, UidPlan
from codingagents.supervisor import routing
from codingagents.supervisor.routing import Found, Installed, Routing, Table

SHELLS = "/run/agent-tasks/shells"
BASH = f"{SHELLS}/bash"
PYTHON, LOADER, NODE = "/usr/bin/python3.11", "/usr/lib/ld-linux.so.2", "/usr/bin/node"
SHELL = Installed(path=BASH, real=BASH, interpreters=(PYTHON,), loaders=(LOADER,))
CLAUDE = Installed(path="/usr/bin/claude", real="/opt/claude/claude.exe", loaders=(LOADER,))
SPEC = SessionSpec(
    session="s-1",
    agent="claude",
    engine="local",
    config_sha256="",
    uids=UidPlan(agent=52001, task=52002, workspace_gid=52003, servers={}),
    remotes=[],
    exec=ExecSpec(mode="enforce", trees=["/usr", "/opt"]),
    command=["claude"],
    working_directory="/w",
    environment={},
    public_key="",
)


def spec(agent: str = "claude", **changes: object) -> SessionSpec:
    return msgspec.structs.replace(SPEC, agent=agent, exec=msgspec.structs.replace(SPEC.exec, **changes))


def found(*program: Installed, **more: object) -> Found:
    facts = {"needs": [], "shells": [SHELL], "trees": ["/usr", "/opt"], "account_shell": "", "settings": []}
    return Found(program=program, **{**facts, **more})  # type: ignore[arg-type]  # as the caller wrote them


def planned(given: SessionSpec, facts: Found) -> Routing:
    table = routing.table_for(given, [given.agent])
    assert table is not None
    return routing.plan(given, table, BASH, facts)


@pytest.mark.parametrize(
    ("route", "agent", "program", "client"),
    [
        ("auto", "claude", "claude", "claude"),
        ("auto", "claude", "/opt/bin/claude", "claude"),
        ("auto", "claude", "python3", None),
        ("auto", "claude", "codex", None),
        ("auto", "mine", "mine", None),
        ("always", "claude", "python3", "claude"),
        ("always", "mine", "mine", ""),
        ("never", "claude", "claude", None),
    ],
)
def test_an_agent_is_routed_where_its_command_is_the_client_or_the_user_says_so(
    route: Route, agent: str, program: str, client: str | None
) -> None:
    table = routing.table_for(spec(agent, route=route), [program, "-p"])
    assert (None if table is None else table.client) == client


def test_enforced_landlock_leaves_the_needed_files_and_nothing_else() -> None:
    way = planned(spec(), found(CLAUDE))
    assert way.trees == ("/opt/claude/claude.exe", SHELLS, BASH, PYTHON, LOADER)
    assert [(own.path, own.argv) for own in way.routes.own] == [
        ("/opt/claude/claude.exe", []),
        (f"{SHELLS}/*", []),
    ]
    assert way.routes.interpreters == [PYTHON]
    assert SHELLS not in way.routes.files


def test_observed_the_trees_stay_and_the_task_shells_come_beside_them() -> None:
    way = planned(spec(mode="observe"), found(CLAUDE, trees=["/usr", "/real/opt"]))
    assert {"/usr", "/opt", "/real/opt", SHELLS, BASH, PYTHON} <= {*way.trees}
    assert not way.enforced


def test_a_client_outside_of_the_trees_is_no_more_executable_than_before() -> None:
    home = Installed(path="/home/x/claude", real="/home/x/claude")
    assert "/home/x/claude" not in planned(spec(), found(home)).trees
    assert PYTHON in planned(spec(trees=["/opt"]), found(home, trees=["/opt"])).trees  # the task shell is ours


def test_a_start_script_takes_its_runner_along_for_itself_alone() -> None:
    script = Installed(
        path="/usr/bin/codex",
        real="/opt/codex/bin/codex.js",
        interpreters=("/usr/bin/env",),
        by_env=("node", NODE),
        loaders=(LOADER,),
    )
    native = Installed(path="/opt/native/codex", real="/opt/native/codex")
    need = Need(path="x", why="the client's native program")
    way = planned(spec("codex"), found(script, needs=[(native, need)], account_shell=BASH))
    assert [(own.path, own.argv) for own in way.routes.own][:3] == [
        ("/opt/codex/bin/codex.js", []),
        (NODE, ["node", "/usr/bin/codex"]),
        ("/opt/native/codex", []),
    ]
    assert way.routes.interpreters == ["/usr/bin/env", PYTHON]
    assert {NODE, "/usr/bin/env", "/opt/native/codex"} <= {*way.trees}
    assert way.means == ("account shell",)


def test_needs_are_looked_for_beside_the_client_and_where_its_package_has_them() -> None:
    program = Installed(path="/usr/bin/codex", real="/n/@openai/codex/bin/codex.js")
    patterns = [pattern for pattern, _ in Table(client="codex", shelling=CLIENTS["codex"].SHELLING).needs(program)]
    assert "/n/@openai/codex/bin/codex-code-mode-host" in patterns
    assert "/n/@openai/codex-linux-*/vendor/*/bin/codex" in patterns


@pytest.mark.parametrize(
    ("rules", "added"),
    [
        ([("allow", "/opt/tools/*", "agent")], {"/opt/tools"}),
        ([("allow", "/opt/tools/g?t", "agent")], {"/opt/tools"}),
        ([("allow", "/**", "agent")], {"/usr", "/opt"}),
        ([("allow", "/srv/**", "agent")], set()),  # not executable as by [exec] trees
        ([("allow", "/opt/**", None)], set()),
        ([("allow", "/opt/**", "task")], set()),
        ([("deny", "/opt/**", "agent")], set()),
    ],
)
def test_what_rules_allow_the_agent_stays_executable(rules: list[tuple[str, str, str | None]], added: set[str]) -> None:
    given = [ExecRule(action=action, path=path, role=role) for action, path, role in rules]  # type: ignore[arg-type]  # as above
    plain = planned(spec(), found(CLAUDE))
    assert {*planned(spec(rules=given), found(CLAUDE)).trees} - {*plain.trees} == added


def test_a_program_that_a_rule_names_is_executable_with_what_runs_it() -> None:
    tool = Installed(path="/usr/bin/tool", real="/usr/lib/tool", interpreters=("/usr/bin/perl",), loaders=(LOADER,))
    way = planned(spec(), found(CLAUDE, allowed=[tool]))
    assert {"/usr/lib/tool", "/usr/bin/perl"} <= {*way.trees}
    assert "/usr/bin/perl" not in way.routes.interpreters  # that is for the user's own rules
    rules = [ExecRule(action="allow", path=path, role="agent") for path in ("/a/b", "/a/*")]
    assert routing.literal_paths([*rules, ExecRule(action="allow", path="/c")]) == ["/a/b"]


def test_the_means_are_those_that_hold() -> None:
    way = planned(spec(), found(CLAUDE, settings=["/etc/claude-code/managed-settings.json"]))
    assert way.means == (
        "environment CLAUDE_CODE_SHELL",
        "environment SHELL",
        "settings /etc/claude-code/managed-settings.json",
    )
    assert way.environment == {
        "CLAUDE_CODE_SHELL": BASH,
        "SHELL": BASH,
        "CLAUDE_CODE_TMPDIR": "/run/agent-tasks/files",
    }
    copilot = planned(spec("copilot"), found(CLAUDE))
    assert copilot.environment == {
        "COPILOT_BASH_PATH": BASH,
        "COPILOT_DISABLE_LOGIN_SHELL_ENV": "1",
        "NODE_COMPILE_CACHE": "/run/coding-agents/home/.cache/node",
    }
    assert copilot.means == ("environment COPILOT_BASH_PATH",)


def test_an_account_without_the_task_shell_is_said() -> None:
    said = "the agent has no account with the task shell: it runs commands by the system's bash, which is refused"
    without = planned(spec("codex"), found(CLAUDE, account_shell="/bin/sh"))
    assert said in without.event().degrades
    assert said not in planned(spec("codex"), found(CLAUDE, account_shell=BASH)).event().degrades
    assert said not in without.as_seen(["/usr/bin/bash"], denies=True).event().degrades


def test_a_client_that_the_agent_can_replace_is_said() -> None:
    replaceable = Installed(path="/w/claude", real="/w/claude", replaceable=True)
    assert any("can replace" in sentence for sentence in planned(spec(), found(replaceable)).degrades)
    assert not any("can replace" in sentence for sentence in planned(spec(), found(CLAUDE)).degrades)


def test_mounted_shells_are_its_own_and_what_ran_by_them_works() -> None:
    shims = {"/usr/bin/bash": BASH, "/usr/bin/dash": f"{SHELLS}/sh"}
    way = planned(spec(), found(CLAUDE, over=shims))
    assert any("hooks" in sentence for sentence in way.event().degrades)
    some = way.as_seen(["/usr/bin/bash"], denies=True)
    assert any("hooks" in sentence for sentence in some.event().degrades)
    assert "hooks" in way.sentence()
    over = way.as_seen(["/usr/bin/bash", "/usr/bin/dash"], denies=True)
    assert [own.path for own in over.routes.own][-2:] == ["/usr/bin/bash", "/usr/bin/dash"]
    assert over.means[-1] == "mounted over /usr/bin/dash"
    assert not any("hooks" in sentence for sentence in over.event().degrades)
    assert way.as_seen([], denies=True) == way
    assert not way.as_seen([], denies=False).event().enforced


def test_shells_are_mounted_over_but_for_what_runs_the_client_itself() -> None:
    over = {"/usr/bin/bash": BASH, "/usr/bin/dash": f"{SHELLS}/sh"}
    assert planned(spec(), found(CLAUDE, over=over)).shims == over
    script = Installed(path="/usr/bin/claude", real="/opt/claude.sh", interpreters=("/usr/bin/dash",))
    assert planned(spec(), found(script, over=over)).shims == {"/usr/bin/bash": BASH}


def test_the_log_is_told_what_stays_open() -> None:
    event = planned(spec(), found(CLAUDE)).event()
    assert (event.client, event.routed, event.enforced, event.shell) == ("claude", True, True, BASH)
    assert event.needs == ["/opt/claude/claude.exe", f"{SHELLS}/*"]
    assert "the client's program can be run again as the agent, with any arguments" in event.degrades


@pytest.mark.parametrize(
    ("names", "shell"), [({"sh", "bash", "zsh"}, "bash"), ({"sh", "zsh"}, "zsh"), ({"sh", "dash"}, "sh"), ((), "bash")]
)
def test_the_shell_that_a_client_is_told_of_is_one_that_people_work_in(names: set[str], shell: str) -> None:
    assert routing.choose_shell(names) == f"{SHELLS}/{shell}"


def test_settings_name_the_shell_and_the_file() -> None:
    own, managed = Table(client="claude", shelling=CLIENTS["claude"].SHELLING).settings("/c", BASH)
    assert own.arguments == ("--settings", "/c/claude/settings.json")
    assert own.content == managed.content
    assert {"CLAUDE_CODE_SHELL": BASH, "SHELL": BASH}.items() <= own.content["env"].items()
    assert managed.path == "/etc/claude-code/managed-settings.json"
