"""The demo's claims: each a sentence, whether what was observed bears it out, and what that was. Pure.

A claim holds only by what was seen to happen; evidence that is missing makes it fail, and so does a control that does
not show the attack to be a real one.
"""

from __future__ import annotations

import re

from codingagents.trust import events
from demo import task_claims
from demo.judging import (
    CANARIES,
    Observed,
    Rule,
    code,
    every_canary,
    found_in,
    layer_rows,
    layers_hold,
    logged,
    said,
    searches,
)
from demo.session import OTHER_UID, Evidence, Verdict
from demo.stage import DENIED

_NAMED_LINE = re.compile(r"\bline (\d+)")


def roles(evidence: Evidence) -> Observed:
    agent = next(logged(evidence, events.AgentStarted))
    helpers = {event.server: event.user_id for event in logged(evidence, events.HelperReady)}
    ended = next(logged(evidence, events.SessionEnded))
    own = [agent.user_id, helpers["demo"], helpers["impostor"]]
    pid1 = any(row.layer == "pidns" and row.state == "enforced" for row in layer_rows(evidence, "agent"))
    holds = pid1 and len(set(own)) == 3 and 0 not in own and evidence.exit_code == ended.exit_code == 0
    uids = f"agent {own[0]}, helper of demo {own[1]}, helper of impostor {own[2]}"
    return holds, f"{uids}; the session ended with {ended.exit_code}"


def tools(evidence: Evidence) -> Observed:
    used = said(evidence, step="mcp", server="demo")
    offered, result, seen = used["tools"], used["add"]["result"], used["whoami"]
    relayed = [event.http_response_status_code for event in logged(evidence, events.HelperRequest)]
    holds = used["ok"] and "add" in offered and result == 42 and seen["authorization"] == "Bearer" and 200 in relayed
    saw = f"the server saw Authorization: {seen['authorization']} and Host: {seen['host']}"
    return holds, f"tools {', '.join(offered)}; add(40, 2) = {result}; {saw}; {len(relayed)} requests relayed"


def pins(evidence: Evidence) -> Observed:
    used, refusal = (said(evidence, step=step, server="impostor") for step in ("mcp", "refusal"))
    mismatches = [event for event in logged(evidence, events.PinMismatch) if event.server == "impostor"]
    record, afterwards = evidence.impostor, evidence.impostor_afterwards
    # The control: another client, which trusts the same authorities and knows no pins, is served, and recorded.
    control = evidence.impostor_without_pins == 401 and afterwards["bytes"] > 0
    refused = not used["ok"] and code(refusal) == "pin_mismatch" and bool(mismatches)
    holds = refused and record["accepted"] > 0 and record["bytes"] == 0 and control
    return holds, (
        f"its own record: {record['accepted']} connections, {record['bytes']} application bytes; the agent got "
        f"{refusal['status']}, the log {len(mismatches)} tls.pin-mismatch; a client without pins got "
        f"{evidence.impostor_without_pins} from it, and {afterwards['bytes']} bytes were recorded"
    )


def hunt(evidence: Evidence) -> Observed:
    report = searches(evidence)[0]
    if found := found_in(report, "token"):
        return False, found
    searched = report["searched"]
    places_of = {kind: count["places"] for kind, count in searched.items()}
    own = " (only its own: see kernel.yama.ptrace_scope)" if evidence.yama >= 2 else ""
    return report["uid"] == evidence.uids["agent"] and all(places_of[kind] for kind in CANARIES), (
        f"not in its own environment and argv, {places_of['environ']} environments, {places_of['cmdline']} command "
        f"lines, {searched['mem']['bytes'] // 10**6} MB of memory{own}, {places_of['fd']} open and "
        f"{places_of['file']} other files; {searched['file']['older']:,} files are older than the token; the memory of "
        f"{searched['mem']['unreadable']} processes was closed to it; {report['seconds']:.1f} s"
    )


def canaries(evidence: Evidence) -> Observed:
    return every_canary(evidence, searches(evidence)[0])


def direct(evidence: Evidence) -> Observed:
    bare, local = (said(evidence, probe=f"upstream, {what}")["status"] for what in ("no credential", "local bearer"))
    observed = f"{bare} without a credential, {local} with the only bearer that the agent holds"
    return bare == local == 401, observed


def other_uid(evidence: Evidence) -> Observed:
    agent = evidence.uids["agent"]
    stranger, root, control = (evidence.outsiders[uid] for uid in (OTHER_UID, 0, agent))
    logs = {event.peer_user_id for event in logged(evidence, events.HelperRefused) if event.reason == "uid_refused"}
    refused = code(stranger) == code(root) == "uid_refused" and OTHER_UID in logs
    # The control: the same program and bearer, as the agent's UID, reach the server, which answers in its own words.
    return refused and code(control) is None and control["status"] is not None, (
        f"UID {OTHER_UID} got {stranger['status']}, root {root['status']}; the agent's own UID {agent}, by the same "
        f"program, was let through to the server, which said {control['status']}"
    )


def no_bearer(evidence: Evidence) -> Observed:
    none, wrong = (said(evidence, probe=f"helper, {what}") for what in ("no bearer", "wrong bearer"))
    observed = f"{none['status']} without it, {wrong['status']} with one that differs in the last letter"
    return code(none) == code(wrong) == "bearer_refused", observed


def execs(evidence: Evidence) -> Observed:
    allowed = [event for event in logged(evidence, events.ExecAllowed) if event.role == "agent"]
    denied = [event for event in logged(evidence, events.ExecDenied) if event.role == "agent"]
    denied = [event for event in denied if event.rule != "self-test"]
    every: list[events.ExecAllowed | events.ExecDenied] = [*allowed, *denied]
    texts = [" ".join((event.executable_path, *event.command_args)) for event in every]
    started = ("agent.py", "probes.py", "plant.py", "hunt.py", "asker.py", "/usr/bin/true", "own-true", DENIED)
    missing = [name for name in started if not any(name in text for text in texts)]
    agent = evidence.uids["agent"]
    observed = f"{len(allowed)} allowed, {len(denied)} denied, all of UID {agent}: "
    observed += f"NOT {', '.join(missing)}" if missing else ", ".join(started)
    return not missing and {event.user_id for event in every} == {agent}, observed


def denied(evidence: Evidence) -> Observed:
    got, control = said(evidence, probe="denied program")["errno"], evidence.outside[DENIED]
    record = next((each for each in logged(evidence, events.ExecDenied) if each.executable_path == DENIED), None)
    log = f"logged as {record.errno} by {record.rule!r}" if record else "NOT logged as denied"
    outside = f"as the same UID outside it runs (exit code {control})"
    return got == "EPERM" and record is not None and control == 0, f"{DENIED}: {got or 'it ran'}, {log}; {outside}"


def landlock(evidence: Evidence) -> Observed:
    tried = said(evidence, probe="program of one's own")
    got, program = tried["errno"], tried["program"]
    control = evidence.outside[program]
    passed = any(event.executable_path == program for event in logged(evidence, events.ExecAllowed))
    log = "logged as let pass by the trap" if passed else "NOT let pass by the trap"
    outside = f"as the same UID outside it runs (exit code {control})"
    return got == "EACCES" and passed and control == 0, f"its copy of true: {got or 'it ran'}, {log}; {outside}"


def layers(evidence: Evidence) -> Observed:
    return layers_hold(layer_rows(evidence, "agent"))


def whole(evidence: Evidence) -> Observed:
    verdict = evidence.verdicts["whole"]
    return verdict.code == 0, _short(verdict)


def key_outside(evidence: Evidence) -> Observed:
    directory, key = evidence.log.parent, evidence.key
    observed = f"in {'/'.join(key.parts[-2:])}; the session's directory holds {', '.join(evidence.session_files)}"
    return bool(evidence.session_files) and directory not in key.parents, observed


def changed(evidence: Evidence) -> Observed:
    verdict, line = evidence.verdicts["changed"], evidence.tampered_line
    return verdict.code == 1 and _named(verdict) == line, f"line {line} was changed: {_short(verdict)}"


def forged(evidence: Evidence) -> Observed:
    chained, signed, line = evidence.verdicts["rechained"], evidence.verdicts["resigned"], evidence.tampered_line
    refused = all(verdict.code == 1 and _named(verdict) for verdict in (chained, signed))
    observed = f"line {line} was rewritten: {_short(chained)}; with checkpoints by a key of the forger's: "
    # A chain that fits is refused by the first checkpoint over it, which is the earliest that can be told.
    return refused and _named(chained) >= line, observed + _short(signed)


def nothing_left(evidence: Evidence) -> Observed:
    return not evidence.left, ", ".join(evidence.left) or "no process, no mount, no file"


# By section; what stands in the last one is judged when everything was taken down.
SECTIONS: dict[str, tuple[Rule, ...]] = {
    "The session": (
        Rule("roles", "the supervisor is PID 1 of a new PID namespace; the agent and each helper have own UIDs", roles),
        Rule("tools", "the agent, knowing only its MCP config, lists the tools and calls one, through a helper", tools),
        Rule("pins", "an impostor with a valid certificate for the same name, but other keys, gets nothing", pins),
    ),
    "The credential": (
        Rule("hunt", "a hunt for the server's token, as the agent's UID, finds it nowhere", hunt),
        Rule("canaries", "the same hunt finds a canary in each kind of place", canaries),
        Rule("direct", "the server refuses the agent's own call", direct),
        Rule("other-uid", "the helper refuses another UID that has the right bearer", other_uid),
        Rule("no-bearer", "the helper refuses the right UID without the bearer", no_bearer),
    ),
    "What the agent may execute": (
        Rule("execs", "every program that the agent started is in the event log", execs),
        Rule("denied", "a program that modes and mounts allow, and an exec rule denies: EPERM, from the trap", denied),
        Rule(
            "landlock", "a program of the agent's own making, which the trap lets pass: EACCES, by Landlock", landlock
        ),
    ),
    "Tasks": task_claims.RULES,
    "Layers of the agent's confinement": (
        Rule("layers", "each layer is enforced, and was tried, or the report says why it is not", layers),
    ),
    "Layers of a task's confinement": (task_claims.LAYERS,),
    "The record": (
        Rule("log", "the event log verifies against its public key", whole),
        Rule("key", "the public key is kept outside of the session", key_outside),
        Rule("changed", "a copy with one byte changed is refused, and its line is named", changed),
        Rule("forged", "a copy chained anew by a forger without the key is refused, and a line is named", forged),
    ),
    "Afterwards": (Rule("left", "nothing is left of it", nothing_left),),
}


def _named(verdict: Verdict) -> int:
    found = _NAMED_LINE.search(verdict.text)
    return int(found[1]) if found else 0


def _short(verdict: Verdict) -> str:
    """Return the command's sentence without its paths."""
    return re.sub(r"\S*/(?=[^/\s]+\.jsonl)", "", verdict.text.removeprefix("coding-agents: "))
