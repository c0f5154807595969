"""Claude Code, Codex and Copilot CLI in a real Docker container: their commands are tasks, and behave as without us.

Each client is asked the same twice by a model of ours: alone, as an ordinary user, and as the agent of a session, which
enforces but where that takes something away. What its own shell tool answered is compared.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch

import pytest

from client_rig import TASK_UID, Asked, Calls, Model, ask_alone, ask_in_session, new_tree
from clients import errands
from clients.installed import CLIENTS, HOME, NODE, Client
from codingagents.rewrite import places
from codingagents.trust.events import ExecAllowed, ExecDenied, SessionRouting, TaskEnded, TaskStarted
from container_rig import AGENT_UID

pytest_plugins = ("client_fixtures",)  # model

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a Docker Engine needs root")

OWNER = 1000  # of the workspaces
ENFORCED = '[exec]\nmode = "enforce"\nrules = [{ allow = "/**", role = "task" }]\n'
IN_A_COPY = f'[session]\nworkspace_mode = "copy"\n{ENFORCED}'
IN_THE_TREE = f"[session]\nworkspace_acl = true\n{ENFORCED}"
OBSERVED = '[session]\nworkspace_mode = "copy"\n[exec]\nmode = "observe"\n'
_CODE_MODE = ("-c", 'model="gpt-6-sol"')


@dataclass(frozen=True, kw_only=True)
class Errand:
    client: Client
    calls: Calls
    tables: str = IN_A_COPY
    variables: Mapping[str, str] | None = None
    arguments: tuple[str, ...] = ()


ERRANDS: Mapping[str, Errand] = {
    "claude": Errand(client=CLIENTS["claude"], calls=errands.claude),
    "claude, killed in time": Errand(
        client=CLIENTS["claude"],
        calls=errands.claude_in_the_foreground,
        variables={"CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1"},
    ),
    "codex": Errand(client=CLIENTS["codex"], calls=errands.codex),
    "codex in code mode, by npm's script": Errand(
        client=CLIENTS["codex"].by_its_script, calls=errands.codex_in_code_mode, arguments=_CODE_MODE
    ),
    "copilot": Errand(client=CLIENTS["copilot"], calls=errands.copilot),
    "copilot, detached": Errand(client=CLIENTS["copilot"], calls=errands.copilot_detached, tables=OBSERVED),
    "claude builds": Errand(client=CLIENTS["claude"], calls=errands.claude_builds, tables=IN_THE_TREE),
    "codex builds": Errand(
        client=CLIENTS["codex"], calls=errands.codex_builds, tables=IN_THE_TREE, arguments=_CODE_MODE
    ),
    "copilot builds, by npm's script": Errand(
        client=CLIENTS["copilot"].by_its_script, calls=errands.copilot_builds, tables=IN_THE_TREE
    ),
}


@dataclass(frozen=True, kw_only=True)
class Compared:
    errand: Errand
    alone: Asked
    routed: Asked
    tree: dict[str, int]  # the files of the session's workspace, when it has ended, and their owners


@pytest.fixture(scope="module", params=ERRANDS)
def compared(request: pytest.FixtureRequest, model: Model) -> Compared:
    errand = ERRANDS[request.param]
    variables = errand.variables or {}
    with new_tree(model.directory) as its_own, new_tree(model.directory, OWNER) as tree:
        alone = ask_alone(model, errand.client, errand.calls, its_own, arguments=errand.arguments, **variables)
        routed = ask_in_session(
            model, errand.client, errand.calls, tree, tables=errand.tables, arguments=errand.arguments, **variables
        )
        owners = {str(path.relative_to(tree)): path.lstat().st_uid for path in (tree, *tree.rglob("*"))}
    return Compared(errand=errand, alone=alone, routed=routed, tree=owners)


def test_what_the_clients_tools_answer_is_the_same_as_without_us(compared: Compared) -> None:
    asked = len(compared.errand.calls(""))  # Copilot may add that a detached command has ended
    assert len(compared.alone.results) >= asked, compared.alone.errors
    assert compared.routed.results[:asked] == compared.alone.results[:asked], compared.routed.errors
    assert (compared.alone.code, compared.routed.code) == (0, 0)


def test_each_command_is_a_task_of_the_task_user(compared: Compared) -> None:
    (routing,) = compared.routed.of(SessionRouting)
    assert (routing.client, routing.routed) == (compared.errand.client.name, True)
    assert routing.enforced == (compared.errand.tables is not OBSERVED)
    started = compared.routed.of(TaskStarted)
    assert {(task.user_id, task.requester_user_id) for task in started} == {(TASK_UID, AGENT_UID)}
    assert len(started) >= len(compared.errand.calls("")) // 2, "the rest are calls of other tools"
    assert {event.user_id for event in compared.routed.of(ExecAllowed) if event.role == "task"} == {TASK_UID}


def test_the_client_itself_executes_its_own_program_and_the_task_shell_and_nothing_else(compared: Compared) -> None:
    (routing,) = compared.routed.of(SessionRouting)
    theirs = (f"{HOME}/", f"{NODE}/bin/node", f"{places.SHELLS}/*")
    assert [need for need in routing.needs if not need.startswith(theirs)] == []
    executed = {event.resolved_path for event in compared.routed.of(ExecAllowed) if event.role == "agent"}
    assert f"{places.SHELLS}/bash" in executed
    more = {path for path in executed if not any(fnmatch(path, need) for need in routing.needs)}
    assert not more or not routing.enforced, "the control: where nothing is denied, it executes more"
    refused = {event.reason for event in compared.routed.of(ExecDenied) if event.rule != "self-test"}
    assert refused <= {"unrouted", "nothing there"}


def test_no_credential_is_among_the_variables_of_a_task(compared: Compared) -> None:
    names = {name for task in compared.routed.of(TaskStarted) for name in task.environment}
    assert "PATH" in names
    assert not names & {*compared.errand.client.credentials, "CLAUDE_CODE_MESSAGING_TOKEN"}


def test_what_codex_leaves_running_dies_with_it(compared: Compared) -> None:
    if compared.errand.calls is errands.codex:
        assert [task.signal for task in compared.routed.of(TaskEnded) if task.reason == "requester gone"] == [9]


def test_a_bind_mounted_tree_has_what_client_and_tasks_made_and_all_of_it_is_its_owners(compared: Compared) -> None:
    built = {".", "source", "made", "out", "out/new"}
    assert compared.tree == dict.fromkeys(built if compared.errand.tables == IN_THE_TREE else {"."}, OWNER)
