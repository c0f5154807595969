"""What an explanation says: the rule, what stands behind it, and what Landlock does by itself."""

import pytest

from codingagents.rewrite.specs import ExecRule, ExecSpec
from codingagents.supervisor.explain import Asked, Explanation, HeldPolicy, explain
from codingagents.trust.vocabulary import Role

RULES = [
    ExecRule(action="deny", path="/home/**"),
    ExecRule(action="deny", path="/usr/bin/nc"),
    ExecRule(action="deny", path="/usr/bin/git", argv=["git", "push"]),
    ExecRule(action="allow", path="/usr/**"),
    ExecRule(action="allow", path="/srv/**"),
]


def told(
    path: bytes,
    *argv: bytes,
    resolved: bytes | None = b"",
    mode: str = "enforce",
    landlock: bool = True,
    memfd_closed: bool = True,
    trapped: bool = True,
    interpreters: tuple[bytes, ...] = (),
) -> Explanation:
    held = HeldPolicy(
        role="agent",
        uid=None,
        gid=0,
        groups=[],
        trees=["/usr"],
        landlock=landlock,
        memfd_closed=memfd_closed,
        trapped=trapped,
    )
    asked = Asked(
        role=Role.AGENT,
        path=path,
        resolved=path if resolved == b"" else resolved,
        interpreters=interpreters,
        argv=argv or (path,),
    )
    return explain(ExecSpec(mode=mode, rules=RULES), held, asked, "basis")  # type: ignore[arg-type]  # one of both modes


@pytest.mark.parametrize(
    ("explanation", "outcome", "rule", "firmness", "why"),
    [
        (told(b"/home/x"), "denied", "deny /home/**", "firm", "the kernel refuses it by itself: Landlock"),
        (told(b"/home/x", landlock=False), "denied", "deny /home/**", "advisory", "Landlock does not hold"),
        (told(b"/home/x", memfd_closed=False), "denied", "deny /home/**", "advisory", "a program in memory"),
        (told(b"/home/x", resolved=b"/usr/x"), "denied", "deny /home/**", "advisory", "Landlock would let it"),
        (told(b"/home/x", resolved=None), "denied", "deny /home/**", "advisory", "nothing is there now"),
        (told(b"/usr/bin/nc"), "denied", "deny /usr/bin/nc", "advisory", "below /usr"),
        (
            told(b"/usr/bin/git", b"git", b"push"),
            "denied",
            'deny /usr/bin/git argv=["git", "push"]',
            "advisory",
            "argv",
        ),
        (told(b"/usr/bin/git", b"git", b"pull"), "allowed", "allow /usr/**", "advisory", ""),
        (told(b"/usr/x", interpreters=(b"/usr/bin/nc",)), "denied", "deny /usr/bin/nc", "advisory", "below /usr"),
        (told(b"/opt/x"), "denied", "", "firm", "the kernel refuses"),
        (told(b"/opt/x", landlock=False), "denied", "", "advisory", "do not both hold"),
        (told(b"/opt/x", resolved=None), "missing", "", "advisory", "nothing is there now"),
        (told(b"/usr/x", resolved=None), "missing", "allow /usr/**", "advisory", ""),
        (told(b"/srv/x"), "denied", "allow /srv/**", "advisory", "all the same"),
        (told(b"/opt/x", mode="observe"), "denied", "", "advisory", "all the same"),
        (told(b"/usr/x", mode="observe"), "allowed", "allow /usr/**", "advisory", ""),
        (told(b"/usr/bin/nc", trapped=False), "allowed", "deny /usr/bin/nc", "advisory", "no rule is applied"),
        (told(b"/home/x", trapped=False), "denied", "deny /home/**", "firm", "no rule is applied"),
    ],
)
def test_what_is_said(explanation: Explanation, outcome: str, rule: str, firmness: str, why: str) -> None:
    assert (explanation.outcome, explanation.rule, explanation.firmness) == (outcome, rule, firmness)
    assert why in explanation.why
    assert bool(why) is bool(explanation.why)
    assert explanation.basis == "basis"


def test_what_landlock_does_is_said_of_program_and_interpreters() -> None:
    assert told(b"/usr/x").landlock == "allows"
    assert told(b"/usr/x", interpreters=(b"/home/x",)).landlock == "refuses"
    assert told(b"/home/x").landlock == "refuses"
    assert told(b"/usr/x", landlock=False).landlock == "off"


def test_bytes_that_are_no_text_are_shown_escaped() -> None:
    shown = told(b"/home/\xff", b"\xfe", resolved=b"/home/\xfd", interpreters=(b"/usr/\xfc",))
    assert (shown.path, shown.resolved) == ("/home/\\xff", "/home/\\xfd")
    assert (shown.argv, shown.interpreters) == (["\\xfe"], ["/usr/\\xfc"])
