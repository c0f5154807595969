"""Globs against a slow matcher that is right by inspection, and what holds of every decision."""

import functools

from hypothesis import given
from hypothesis import strategies as st

from codingagents.rewrite.specs import ExecRule, ExecSpec
from codingagents.supervisor.exec_policy import UNROUTED, ExecPolicy, glob_pattern, rule_text
from codingagents.supervisor.exec_routes import Routes
from codingagents.trust.vocabulary import Firmness, Role
from strategies import exec_calls, exec_globs, exec_names, exec_routes, exec_specs


def matches(glob: str, path: str) -> bool:
    @functools.cache
    def rest(at: int, here: int) -> bool:
        if at == len(glob):
            return here == len(path)
        if glob.startswith("**", at):
            return any(rest(at + 2, end) for end in range(here, len(path) + 1))
        if glob[at] == "*":
            ends = range(here, len(path) + 1)
            return any("/" not in path[here:end] and rest(at + 1, end) for end in ends)
        if here == len(path) or (path[here] == "/" if glob[at] == "?" else path[here] != glob[at]):
            return False
        return rest(at + 1, here + 1)

    return rest(0, 0)


@given(exec_globs, exec_names)
def test_globs_match_as_the_slow_matcher_says(glob: str, path: bytes) -> None:
    assert bool(glob_pattern(glob).fullmatch(path)) is matches(glob, path.decode())


@given(st.text(alphabet="/ab.é\n[(+\\", max_size=12))
def test_a_glob_without_wildcards_matches_itself_alone(text: str) -> None:
    assert glob_pattern(text).fullmatch(text.encode())
    assert not glob_pattern(text).fullmatch(text.encode() + b"a")


@given(exec_specs, exec_calls, st.booleans(), st.booleans())
def test_every_exec_gets_a_verdict_that_its_rule_explains(
    spec: ExecSpec, call: tuple[Role, bytes, bytes | None, list[bytes]], landlock: bool, memfd_closed: bool
) -> None:
    policy = ExecPolicy.compile(spec, spec.trees, landlock=landlock, memfd_closed=memfd_closed)
    verdict = policy.decide(*call)
    texts = [rule.text for rule in policy.rules]
    if verdict.rule:
        assert verdict.allow is verdict.rule.startswith("allow")
        assert verdict.rule in texts
    else:
        assert verdict.allow is (spec.mode == "observe")
    if verdict.firmness is Firmness.FIRM:
        assert landlock
        assert memfd_closed
        assert not verdict.allow
        assert call[2] is not None
        assert not call[2].startswith(b"/a/")


@given(exec_specs, exec_calls)
def test_a_rule_put_first_decides_whatever_follows(
    spec: ExecSpec, call: tuple[Role, bytes, bytes | None, list[bytes]]
) -> None:
    for action in ("allow", "deny"):
        first = ExecRule(action=action, path="/**")
        policy = ExecPolicy.compile(
            ExecSpec(mode=spec.mode, rules=[first, *spec.rules]), [], landlock=False, memfd_closed=False
        )
        assert policy.decide(*call).rule == f"{action} /**"


@given(exec_specs, exec_calls, st.lists(exec_names.map(lambda name: b"/" + name), max_size=3))
def test_interpreters_never_turn_a_denial_into_anything_else(
    spec: ExecSpec, call: tuple[Role, bytes, bytes | None, list[bytes]], interpreters: list[bytes]
) -> None:
    policy = ExecPolicy.compile(spec, spec.trees, landlock=True, memfd_closed=True)
    alone, whole = policy.decide(*call), policy.decide(*call, interpreters=interpreters)
    each = [policy.decide(call[0], name, name, []).allow for name in interpreters]
    assert whole.allow or not (alone.allow and all(each))
    assert alone.allow or whole == alone


@given(exec_specs, exec_calls)
def test_the_rule_that_decides_is_the_first_that_matches_alone(
    spec: ExecSpec, call: tuple[Role, bytes, bytes | None, list[bytes]]
) -> None:
    def decided_by(rules: list[ExecRule]) -> str:
        alone = ExecSpec(mode=spec.mode, rules=rules)
        return ExecPolicy.compile(alone, [], landlock=False, memfd_closed=False).decide(*call).rule

    first = next((rule for rule in spec.rules if decided_by([rule])), None)
    assert decided_by(spec.rules) == ("" if first is None else rule_text(first))


texts = st.text(alphabet='/a*?"\\ =[],\n\x1bé', max_size=8)
any_rules = st.builds(
    ExecRule,
    action=st.sampled_from(["allow", "deny"]),
    path=texts.map(lambda text: "/" + text) | st.sampled_from(["/ role=task", '/ argv=["a"]']),
    role=st.sampled_from([None, "agent", "task"]),
    argv=st.lists(texts, max_size=2),
)


@given(any_rules, any_rules)
def test_two_rules_read_alike_only_where_they_are_the_same(one: ExecRule, other: ExecRule) -> None:
    assert (rule_text(one) == rule_text(other)) is (one == other)
    assert rule_text(one).isprintable()


Call = tuple[Role, bytes, bytes | None, list[bytes]]
paths = exec_names.map(lambda name: b"/" + name)


def of_the_agent(spec: ExecSpec, routes: Routes | None) -> ExecPolicy:
    return ExecPolicy.compile(spec, [*spec.trees, "/b"], landlock=True, memfd_closed=True, routes=routes)


@given(exec_specs, exec_routes, exec_calls, st.lists(paths, max_size=2))
def test_routed_and_enforced_nothing_but_what_is_its_own_is_ever_allowed(
    spec: ExecSpec, routes: Routes, call: Call, interpreters: list[bytes]
) -> None:
    """Whatever rules say that name no role; `alone` is the word of whoever wrote a rule for the agent."""
    _, path, resolved, argv = call
    spec = ExecSpec(mode="enforce", rules=spec.rules, trees=spec.trees)
    alone = ExecSpec(mode="enforce", rules=[rule for rule in spec.rules if rule.role == "agent"])
    verdict = of_the_agent(spec, routes).decide(Role.AGENT, path, resolved, argv, interpreters=interpreters)
    if resolved is None or not verdict.allow:
        return
    wanted = of_the_agent(alone, None).decide(Role.AGENT, path, resolved, argv)
    own = any(glob_pattern(each.path).fullmatch(resolved) for each in routes.own)
    assert wanted.allow or own
    for interpreter in interpreters:
        by_itself = of_the_agent(spec, routes).decide(Role.AGENT, interpreter, interpreter, [])
        assert by_itself.allow or (own and interpreter.decode() in routes.interpreters)


@given(exec_specs, exec_routes, exec_calls, st.lists(paths, max_size=2))
def test_rules_that_name_no_role_never_allow_a_routed_agent_anything(
    spec: ExecSpec, routes: Routes, call: Call, interpreters: list[bytes]
) -> None:
    fewer = [rule for rule in spec.rules if rule.role is not None or rule.action == "deny"]
    verdict, same = (
        of_the_agent(each, routes).decide(Role.AGENT, *call[1:], interpreters=interpreters)
        for each in (spec, ExecSpec(mode=spec.mode, rules=fewer, trees=spec.trees))
    )
    assert verdict == same
    assert verdict.rule or verdict.reason.removeprefix("its interpreter: ") in (UNROUTED, "nothing there")


@given(exec_specs, exec_routes, exec_calls)
def test_what_is_denied_to_all_is_denied_to_a_routed_agent(spec: ExecSpec, routes: Routes, call: Call) -> None:
    denials = ExecSpec(mode="observe", rules=[rule for rule in spec.rules if rule.action == "deny"])
    if not of_the_agent(denials, None).decide(Role.AGENT, *call[1:]).allow:
        spec = ExecSpec(mode=spec.mode, rules=denials.rules)
        assert not of_the_agent(spec, routes).decide(Role.AGENT, *call[1:]).allow


@given(exec_specs, exec_routes, exec_calls, exec_names)
def test_a_firm_denial_is_of_nothing_that_landlock_lets_be_executed(
    spec: ExecSpec, routes: Routes, call: Call, name: bytes
) -> None:
    policy = ExecPolicy.compile(spec, routes.files, landlock=True, memfd_closed=True, routes=routes)
    executable = [*routes.files, *routes.mounted]
    for path in (call[2], b"/" + name, *map(str.encode, executable)):
        verdict = policy.decide(Role.AGENT, call[1], path, call[3])
        assert verdict.firmness is Firmness.ADVISORY or (path is not None and path.decode() not in executable)
