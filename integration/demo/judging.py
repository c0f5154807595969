"""How a claim of the demo is judged: what a rule is, and how it looks things up in what was observed. Pure.

A claim holds only by what was seen to happen: evidence that is missing makes it fail.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from codingagents.trust import events
from codingagents.trust.events import AnyEvent, Layer
from demo.session import Evidence, Line

# What must hold wherever the local engine works; the others depend on the machine, and the report says so.
EXPECTED_LAYERS = ("uid_drop", "no_new_privs", "landlock_exec", "memfd_rule", "exec_trap", "pidns", "mountns")
CANARIES = ("own-environ", "own-argv", "environ", "cmdline", "mem", "fd", "file")

E = TypeVar("E", bound=AnyEvent)
Observed = tuple[bool, str]  # whether it holds, and what was seen


@dataclass(frozen=True)
class Rule:
    """How a claim is judged."""

    name: str  # short, for the summary and for tests
    says: str
    look: Callable[[Evidence], Observed]


@dataclass(frozen=True)
class Claim:
    """One line of the demo."""

    name: str
    says: str
    holds: bool
    observed: str


def said(evidence: Evidence, **facts: object) -> Line:
    """Return the first line that says all `facts`; `LookupError` where nobody did."""
    for line in evidence.said:
        if facts.items() <= line.items():
            return line
    raise LookupError("nobody said " + ", ".join(f"{key}={value}" for key, value in facts.items()))


def logged(evidence: Evidence, kind: type[E]) -> Iterator[E]:
    """Yield the session's events of `kind`."""
    return (record.event for record in evidence.records if isinstance(record.event, kind))


def layer_rows(evidence: Evidence, role: str) -> Sequence[Layer]:
    """Return the layer report of `role`; empty where there is none."""
    return next((each.layers for each in logged(evidence, events.LayerReport) if each.role == role), [])


def layers_hold(rows: Sequence[Layer]) -> Observed:
    """Judge a layer report: what must hold everywhere does; each row says what was tried, or why it is not there."""
    on = [row.layer for row in rows if row.state == "enforced"]
    off = [f"{row.layer} ({row.state})" for row in rows if row.state != "enforced"]
    told = all(row.probe and (row.state == "enforced" or row.why) for row in rows)
    missing = [name for name in EXPECTED_LAYERS if name not in on]
    observed = f"{len(on)} are; not here: {', '.join(off) or 'none'}"
    return bool(rows) and told and not missing, observed + (f"; MISSING: {', '.join(missing)}" if missing else "")


def searches(evidence: Evidence) -> list[Line]:
    """Return the reports of the hunts, in order: the agent's, then that of a task."""
    return [line for line in evidence.said if "searched" in line]


def found_in(report: Line, *targets: str) -> str:
    """Return the sentence of a hunt that found one of `targets`; "" of one that found none."""
    found = [finding for finding in report["found"] if finding["target"] in targets]
    places = (f"{each['form']} in {each['kind']} of {each['place']}" for each in found[:3])
    return f"FOUND {len(found)} times: {'; '.join(places)}" if found else ""


def every_canary(evidence: Evidence, report: Line) -> Observed:
    """Judge whether a hunt found the canary in each kind of place."""
    found = {each["kind"] for each in report["found"] if each["target"] == f"canary-in-{each['kind']}"}
    missing = [kind for kind in CANARIES if kind not in found]
    observed = f"found in {', '.join(kind for kind in CANARIES if kind in found) or 'none'}"
    if missing == ["mem"] and evidence.yama >= 2:
        # Where nobody can read another process's memory, an agent cannot either: said, not counted against it.
        return True, f"{observed}; not in mem, which kernel.yama.ptrace_scope = {evidence.yama} closes to every UID"
    return not missing, observed + (f"; NOT in {', '.join(missing)}" if missing else "")


def judge(rule: Rule, evidence: Evidence) -> Claim:
    """Return the claim of `rule`; one whose evidence is missing does not hold."""
    try:
        holds, observed = rule.look(evidence)
    except (LookupError, StopIteration, TypeError, ValueError) as error:
        holds, observed = False, f"there is no evidence of it: {type(error).__name__} {error}".rstrip()
    return Claim(rule.name, rule.says, holds, observed)


def code(line: Line) -> str | None:
    """Return the code of a refusal by a helper itself; None where the answer is the server's."""
    try:
        code: str = json.loads(line["body"])["error"]["data"]["code"]
    except (ValueError, LookupError, TypeError):
        return None
    return code
