"""What is explained is what the policy decides, whatever is asked."""

from hypothesis import given
from hypothesis import strategies as st

from codingagents.rewrite.specs import ExecSpec
from codingagents.supervisor.exec_policy import ExecPolicy
from codingagents.supervisor.explain import Asked, HeldPolicy, explain
from codingagents.trust.vocabulary import Role
from strategies import exec_calls, exec_names, exec_routes, exec_specs

held = st.builds(
    HeldPolicy,
    role=st.just("agent"),
    uid=st.none(),
    gid=st.just(0),
    groups=st.just([]),
    trees=st.lists(st.sampled_from(["/", "/a", "/b"]), max_size=2),
    landlock=st.booleans(),
    memfd_closed=st.booleans(),
    trapped=st.booleans(),
    routes=st.none() | exec_routes,
)
interpreters = st.lists(exec_names.map(lambda name: b"/" + name), max_size=2).map(tuple)


@given(exec_specs, held, exec_calls, interpreters)
def test_the_verdict_is_that_of_the_policy(
    spec: ExecSpec,
    holds: HeldPolicy,
    call: tuple[Role, bytes, bytes | None, list[bytes]],
    run_by: tuple[bytes, ...],
) -> None:
    role, path, resolved, argv = call
    run_by = run_by if resolved is not None else ()  # what is not there is no script
    policy = ExecPolicy.compile(
        spec, holds.trees, landlock=holds.landlock, memfd_closed=holds.memfd_closed, routes=holds.routes
    )
    verdict = policy.decide(role, path, resolved, argv, interpreters=run_by)
    asked = Asked(role=role, path=path, resolved=resolved, interpreters=run_by, argv=tuple(argv))
    told = explain(spec, holds, asked, "")
    assert (told.rule, told.reason, told.firmness) == (verdict.rule, verdict.reason, verdict.firmness.value)
    if told.outcome == "allowed":
        assert resolved is not None
        assert verdict.allow or not holds.trapped
    if holds.trapped and not verdict.allow and not verdict.missing:
        assert told.outcome == "denied"
        assert told.why
    if verdict.firmness == "firm":
        assert told.landlock == "refuses"
