"""Whatever a requester has in its environment, a task gets what the list names and nothing that holds a secret."""

import string

from hypothesis import given
from hypothesis import strategies as st

from codingagents.rewrite.specs import RoleLimits
from codingagents.supervisor.task_request import USUAL, TaskTerms, plan_task, refusal, split_status
from codingagents.supervisor.task_wire import MAX_LINE, Request

SECRET = b"s3cret"
OURS = {"HOME": "/h", "SHELL": "/bin/sh"}
TERMS = TaskTerms(allowed=(*USUAL, "CODEX_*"), environment=OURS, limits=RoleLimits())
LETTERS = string.ascii_uppercase + "_=\n"
# Names on the list, names that begin like them, and anything.
NAMES = st.one_of(
    st.sampled_from(USUAL).map(lambda name: name.replace("*", "X").encode()),
    st.sampled_from(USUAL).map(lambda name: name.encode() + b"X"),
    st.text(LETTERS, min_size=1, max_size=8).map(str.encode),
)
VALUES = st.one_of(st.binary(max_size=8), st.binary(max_size=4).map(lambda raw: raw + SECRET + raw))


@given(environment=st.lists(st.tuples(NAMES, VALUES), max_size=8), named=st.lists(st.tuples(NAMES, VALUES), max_size=3))
def test_the_environment_is_what_the_list_allows(
    environment: list[tuple[bytes, bytes]], named: list[tuple[bytes, bytes]]
) -> None:
    request = Request(argv=[b"id"], cwd=b"/", environment=environment, named=named)
    plan = plan_task(request, TERMS, task=1, holds_secret=lambda variable: SECRET in variable)
    given_names = {variable.partition("=")[0] for variable in plan.spec.environment}
    asked = {name.decode() for name, _ in named}
    listed = {name for name in USUAL if not name.endswith("*")}
    for name in given_names - asked - {*OURS, "CODING_AGENTS_TASK"}:
        assert name in listed or name.startswith(("LC_", "CODEX_"))
    assert sorted(given_names) == plan.environment
    assert not any(SECRET.decode() in variable for variable in plan.spec.environment)
    assert not given_names & set(plan.withheld)
    assert {*OURS, "PATH", "CODING_AGENTS_TASK"} <= given_names


@given(sentence=st.text(), code=st.sampled_from([125, 126, 127]))
def test_a_refusal_is_one_line(sentence: str, code: int) -> None:
    line = refusal(sentence, code)
    assert line.startswith(b"failed %d " % code)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert len(line) <= MAX_LINE


@given(st.integers(0, 0xFFFF))
def test_a_status_is_a_code_or_a_signal(status: int) -> None:
    code, number = split_status(status)
    assert code == 0 or number == 0
    assert 0 <= code <= 255
