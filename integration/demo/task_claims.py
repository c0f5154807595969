"""The demo's claims about tasks: what the agent has the task runner do, and what a task can reach. Pure.

As in `claims`; the control of each attack is the same program, run by the agent itself.
"""

from __future__ import annotations

import signal
from collections import Counter

from codingagents.trust import events
from demo.judging import Observed, Rule, code, every_canary, found_in, layer_rows, layers_hold, logged, said, searches
from demo.session import PERSONS_COMMAND, Evidence

BYTES = 65536  # that the agent sends through a task, every value of a byte among them
KEY = "DEMO_MODEL_KEY"  # the agent's variable that no task may get


def runs(evidence: Evidence) -> Observed:
    done, killed = (said(evidence, errand=errand) for errand in ("exact", "signal"))
    agent, task = evidence.uids["agent"], evidence.uids["task"]
    exact = done["same"] and done["bytes"] == BYTES and done["code"] == 7 and killed["code"] == -signal.SIGTERM
    return exact and done["uid"] == task != agent, (
        f"UID {done['uid']}, where the agent is {agent}; 'exit 7' ended with {done['code']}, 'kill -TERM $$' with "
        f"{killed['code']}; {done['bytes']} bytes through 'cat' are {'the same' if done['same'] else 'OTHERS'}"
    )


def person(evidence: Evidence) -> Observed:
    told, uid = evidence.person, evidence.uids["task"]
    asked = [event for event in logged(evidence, events.TaskStarted) if event.requester_user_id == 0]
    whose = " in ".join(told["output"]) or told["error"]
    observed = (
        f"'{PERSONS_COMMAND[-1]}' said {whose}, and ended with {told['code']}; in the log, as asked for by root: "
    )
    record = ", ".join(f"task {event.task} of UID {event.user_id}" for event in asked)
    right = [(event.user_id, event.working_directory) for event in asked] == [(uid, told["output"][-1])]
    return right and told["code"] == 3 and told["output"][0] == str(uid), observed + (record or "NOTHING")


def client_config(evidence: Evidence) -> Observed:
    task, agent = (said(evidence, probe="client config", by=by) for by in ("task", "agent"))
    return _closed(task) and _open(agent), f"{_outcome(task)}; the agent, by the same program: {_outcome(agent)}"


def agents_processes(evidence: Evidence) -> Observed:
    seen, holds = [], True
    for what in ("environment", "memory"):
        task, agent = (said(evidence, probe=f"{what} of the agent", by=by) for by in ("task", "agent"))
        # Where Yama closes all memory, there is nothing to show it by.
        holds &= _closed(task) and (_open(agent) or (what == "memory" and evidence.yama >= 2))
        seen.append(f"{what}: {_outcome(task)}, the agent itself {_outcome(agent)}")
        seen_by_task = task["seen"]
    return holds, f"{'; '.join(seen)}; processes of the agent that the task sees: {seen_by_task}"


def helper(evidence: Evidence) -> Observed:
    task, agent = (said(evidence, probe="helper", by=by) for by in ("task", "agent"))
    uid = evidence.uids["task"]
    records = [event for event in logged(evidence, events.HelperRefused) if event.peer_user_id == uid]
    refused = code(task) == "uid_refused" and any(event.reason == "uid_refused" for event in records)
    return refused and code(agent) is None and agent["status"] is not None, (
        f"the task got {task['status']}, in the log as {len(records)} helper.refused of UID {uid}; the agent, by the "
        f"same program, was let through to the server, which said {agent['status']}"
    )


def environment(evidence: Evidence) -> Observed:
    task, agent = (said(evidence, probe="own environment", by=by) for by in ("task", "agent"))
    given = {name for event in logged(evidence, events.TaskStarted) for name in event.environment}
    withheld = {name for event in logged(evidence, events.TaskStarted) for name in event.withheld}
    got = "it is THERE" if task["canary"] else "not there"
    more = f", withheld: {', '.join(sorted(withheld))}" if withheld else ""
    return bool(given) and not task["canary"] and KEY not in given and agent["canary"], (
        f"{KEY}: {got}; a program of the agent's own {'has it' if agent['canary'] else 'has it NOT'}; tasks are given "
        f"{', '.join(sorted(given)) or 'nothing'}{more}"
    )


def hunt(evidence: Evidence) -> Observed:
    report = searches(evidence)[1]
    if found := found_in(report, "token", "key-of-the-agent"):
        return False, found
    shown, canaries = every_canary(evidence, report)
    searched = report["searched"]
    return shown and report["uid"] == evidence.uids["task"], (
        f"neither is in {searched['environ']['places']} environments, {searched['mem']['bytes'] // 10**6} MB of "
        f"memory, {searched['fd']['places']} open and {searched['file']['places']} other files; canaries: {canaries}; "
        f"{report['seconds']:.1f} s"
    )


def left_alone(evidence: Evidence) -> Observed:
    errand = said(evidence, errand="left alone")
    ended = [event for event in logged(evidence, events.TaskEnded) if event.reason == "requester gone"]
    gone = {event.task for event in logged(evidence, events.TaskGone)}
    over = all(event.left == 0 or event.task in gone for event in ended)
    pipe = "let go" if errand["over"] else "STILL HELD"
    says = (f"task {each.task} ended by signal {each.signal}, {each.reason}" for each in ended)
    return bool(ended) and over and errand["ready"] and errand["held"] and errand["over"], (
        f"the pipe that it and its background process held is {pipe}; the log: {'; '.join(says) or 'NOTHING'}"
    )


def log(evidence: Evidence) -> Observed:
    started = {event.task: event for event in logged(evidence, events.TaskStarted)}
    ended = {event.task: event for event in logged(evidence, events.TaskEnded)}
    execs = [event for event in logged(evidence, events.ExecAllowed) if event.role == "task"]
    task, agent = evidence.uids["task"], evidence.uids["agent"]
    whose = {(event.user_id, event.requester_user_id) for event in started.values()} == {(task, agent), (task, 0)}
    programs = Counter(event.resolved_path.rpartition("/")[2] for event in execs)
    expected = {(7, None), (128 + signal.SIGTERM, int(signal.SIGTERM))}
    holds = whose and started.keys() == ended.keys() and {event.user_id for event in execs} == {task}
    holds &= expected <= {(event.exit_code, event.signal) for event in ended.values()} and "cat" in programs
    observed = f"{len(started)} started, {len(ended)} ended; execs of role task: "
    return holds, observed + (", ".join(f"{name} {count}" for name, count in programs.items()) or "NONE")


def layers(evidence: Evidence) -> Observed:
    return layers_hold(layer_rows(evidence, "task"))


def _closed(line: dict[str, object]) -> bool:
    return line["errno"] in {"EACCES", "EPERM", "ENOENT"}


def _open(line: dict[str, object]) -> bool:
    return line["errno"] is None and bool(line["bytes"])


def _outcome(line: dict[str, object]) -> str:
    return f"read {line['bytes']} bytes" if line["errno"] is None else str(line["errno"])


RULES = (
    Rule("task-runs", "a command goes to another user; its exit code, its signal and every byte come back", runs),
    Rule("task-person", "so does a command of a person in the session, by coding-agents exec run", person),
    Rule("task-config", "a task cannot read the agent's MCP config, which holds its local bearers", client_config),
    Rule("task-agent", "a task cannot read the agent's environment or memory", agents_processes),
    Rule("task-helper", "a helper refuses a task that has the right bearer", helper),
    Rule("task-environment", "a secret in the agent's environment does not get into that of its tasks", environment),
    Rule("task-hunt", "a hunt as a task finds neither the token nor the agent's secret", hunt),
    Rule("task-left", "a task whose requester is killed by SIGKILL is gone, its background process too", left_alone),
    Rule("task-log", "each task is in the event log, with who asked and how it ended, and its execs are", log),
)
LAYERS = Rule("task-layers", "each layer of tasks is enforced, and was tried, or the report says why it is not", layers)
