"""CORE: what would become of one exec, and why, for `coding-agents exec explain`. Pure: paths come resolved.

The verdict is `ExecPolicy.decide`'s, of the same rules and the same marks as the trap's. Besides it says what Landlock
does by itself, which the trap does not ask. Resolves nothing, and does not know DAC: a program that is allowed here may
lack the permission to be executed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from codingagents.rewrite.specs import ExecSpec
from codingagents.supervisor.exec_policy import UNROUTED, ExecPolicy, Verdict, is_inside
from codingagents.supervisor.exec_routes import Routes
from codingagents.trust.events import escape_bytes
from codingagents.trust.vocabulary import Firmness, Role
from codingagents.trust.wire import Message

_NOT_SENT: Final = "it would run as the agent and not as a task; in enforce mode it would be denied"
SCHEMA: Final = "coding-agents/exec-policy/v1"


class HeldPolicy(Message, frozen=True, kw_only=True):
    """What stands behind the policy of one role: as its layers were seen to hold, or as they are assumed to."""

    role: str
    uid: int | None  # whose view of the file system counts; None: not known
    gid: int
    groups: list[int]
    trees: list[str]  # that Landlock holds to, symlinks resolved
    landlock: bool
    memfd_closed: bool
    trapped: bool  # the trap stands, so that rules decide at all
    routes: Routes | None = None  # of the agent, where what it starts goes to the task runner


class PolicyDocument(Message, frozen=True, kw_only=True):
    """What a session answers to `GET /policy`: its rules, and what holds for each role that was confined."""

    schema: str = SCHEMA
    session: str
    exec: ExecSpec
    roles: list[HeldPolicy]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One exec as the trap would see it: `path` absolute, `resolved` None where nothing is there."""

    role: Role
    path: bytes
    resolved: bytes | None
    interpreters: tuple[bytes, ...]
    argv: tuple[bytes, ...]


class Explanation(Message, frozen=True, kw_only=True):
    """What would happen. Paths are `escape_bytes` text; `resolved` is "" where nothing is there."""

    role: str
    path: str
    resolved: str
    interpreters: list[str]
    argv: list[str]
    outcome: Literal["allowed", "denied", "missing"]
    rule: str  # "" where none matches
    reason: str
    firmness: str
    why: str  # what stands behind the outcome, or what does not
    landlock: Literal["allows", "refuses", "off"]
    trapped: bool
    basis: str  # where the firmness is from


def explain(spec: ExecSpec, held: HeldPolicy, asked: Asked, basis: str) -> Explanation:
    """Return what becomes of `asked` under the rules of `spec`; `basis` is passed through."""
    policy = ExecPolicy.compile(
        spec, held.trees, landlock=held.landlock, memfd_closed=held.memfd_closed, routes=held.routes
    )
    verdict = policy.decide(asked.role, asked.path, asked.resolved, asked.argv, interpreters=asked.interpreters)
    files = [] if asked.resolved is None else [asked.resolved, *asked.interpreters]
    inside = all(any(is_inside(file, tree) for tree in policy.trees) for file in files)
    landlock: Literal["allows", "refuses", "off"] = "off" if not held.landlock else "allows" if inside else "refuses"
    return Explanation(
        role=asked.role.value,
        path=escape_bytes(asked.path),
        resolved=escape_bytes(asked.resolved or b""),
        interpreters=list(map(escape_bytes, asked.interpreters)),
        argv=list(map(escape_bytes, asked.argv)),
        outcome=_outcome(verdict, asked, landlock, trapped=held.trapped),
        rule=verdict.rule,
        reason=verdict.reason,
        firmness=verdict.firmness.value,
        why=_why(policy, verdict, asked, landlock, trapped=held.trapped),
        landlock=landlock,
        trapped=held.trapped,
        basis=basis,
    )


def _outcome(
    verdict: Verdict, asked: Asked, landlock: str, *, trapped: bool
) -> Literal["allowed", "denied", "missing"]:
    if trapped and not verdict.allow and not verdict.missing:
        return "denied"
    if asked.resolved is None:
        return "missing"
    return "denied" if landlock == "refuses" else "allowed"


def _why(policy: ExecPolicy, verdict: Verdict, asked: Asked, landlock: str, *, trapped: bool) -> str:
    if not trapped:
        return "there is no exec trap: no rule is applied"
    if verdict.allow and landlock == "refuses":
        return "no rule denies it, and Landlock refuses it all the same (EACCES)"
    if verdict.allow:
        return _NOT_SENT if verdict.reason == UNROUTED else ""
    if verdict.firmness is Firmness.FIRM:
        return "the kernel refuses it by itself: Landlock"
    marked = next((rule.why for rule in policy.rules if rule.text == verdict.rule), "")
    if marked or not policy.confined:
        return marked or "nothing but the trap refuses it: Landlock and the memfd rule do not both hold"
    return "nothing is there now" if asked.resolved is None else "Landlock would let it be executed"
