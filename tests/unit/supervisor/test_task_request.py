"""What a task gets of its requester's environment, what is recorded of it, and what the client is told."""

from __future__ import annotations

import pytest

from codingagents.rewrite.specs import RoleLimits
from codingagents.supervisor import task_request
from codingagents.supervisor.task_request import Planned, TaskTerms, plan_task, prepare
from codingagents.supervisor.task_spec import TaskFailed, TaskSpec
from codingagents.supervisor.task_wire import MAX_LINE, MAX_REQUEST, Request, RequestError, encode_request
from codingagents.trust import wire
from codingagents.trust.events import unescape_bytes
from codingagents.trust.scrub import Scrubber
from codingagents.trust.vocabulary import Secret

TERMS = TaskTerms(
    allowed=("PATH", "LC_*", "TERM", "HOME"),
    environment={"HOME": "/home", "SHELL": "/bin/sh", "CODING_AGENTS_SESSION": "s-1"},
    limits=RoleLimits(processes=7),
)
OURS = {"HOME": "/home", "SHELL": "/bin/sh", "CODING_AGENTS_SESSION": "s-1", "CODING_AGENTS_TASK": "3"}


def planned(
    *environment: tuple[bytes, bytes], named: tuple[tuple[bytes, bytes], ...] = (), argv: tuple[bytes, ...] = (b"id",)
) -> Planned:
    request = Request(argv=argv, cwd=b"/w", environment=environment, named=named, terminal=True, rows=2, columns=3)
    return plan_task(request, TERMS, task=3, holds_secret=lambda variable: b"s3cret" in variable)


def environment_of(plan: Planned) -> dict[str, str]:
    return dict(variable.split("=", 1) for variable in plan.spec.environment)


def test_a_task_is_what_was_asked_for() -> None:
    plan = planned((b"PATH", b"/bin"), argv=(b"id", b"\xff\n"))
    assert plan.spec == TaskSpec(
        task=3,
        argv=["id", "\\xff\n"],
        environment=sorted(f"{name}={value}" for name, value in {**OURS, "PATH": "/bin"}.items()),
        working_directory="/w",
        terminal=True,
        rows=2,
        columns=3,
        limits=RoleLimits(processes=7),
    )
    assert plan.environment == sorted([*OURS, "PATH"])
    assert plan.withheld == []


def test_what_is_not_on_the_list_does_not_arrive() -> None:
    plan = planned(
        (b"API_KEY", b"x"), (b"LC_", b"C"), (b"LC_ALL", b"C"), (b"LC_\n", b"C"), (b"TERMX", b"x"), (b"TERM", b"t")
    )
    assert environment_of(plan) == {
        **OURS,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_": "C",
        "LC_ALL": "C",
        "TERM": "t",
    }


def test_a_value_that_holds_a_secret_is_withheld_and_told_of() -> None:
    plan = planned((b"TERM", b"a s3cret b"), (b"API_KEY", b"s3cret"), named=((b"X", b"s3cret"), (b"Y", b"y")))
    assert plan.withheld == ["TERM", "X"]
    assert not {"TERM", "X"} & {*environment_of(plan), *plan.environment}
    assert environment_of(plan)["Y"] == "y"


def test_a_secret_in_place_of_what_we_give_leaves_ours() -> None:
    plan = planned((b"PATH", b"s3cret"), (b"HOME", b"s3cret"))
    assert environment_of(plan)["HOME"] == "/home"
    assert environment_of(plan)["PATH"].startswith("/usr")
    assert plan.withheld == []  # a task has both


def test_ours_win_over_what_the_requester_has_and_what_it_names_over_both() -> None:
    plan = planned((b"HOME", b"/root"), (b"TERM", b"t"), named=((b"HOME", b"/named"), (b"ANY", b"1"), (b"a b", b"2")))
    assert environment_of(plan)["HOME"] == "/named"
    assert environment_of(plan)["ANY"] == "1"
    assert "a b" not in environment_of(plan)
    assert environment_of(planned(named=((b"CODING_AGENTS_TASK", b"1"),)))["CODING_AGENTS_TASK"] == "3"


@pytest.mark.parametrize(
    ("program", "shell"),
    [
        (b"/usr/bin/zsh", "/usr/bin/zsh"),
        (b"/bin/bash", "/bin/bash"),
        (b"/bin/dash", "/bin/sh"),
        (b"bash", "/bin/sh"),
        (b"/usr/bin/id", "/bin/sh"),
    ],
)
def test_the_shell_is_that_which_runs_where_one_works_in_it(program: bytes, shell: str) -> None:
    assert environment_of(planned(argv=(program,)))["SHELL"] == shell


# -- from the bytes ------------------------------------------------------------------------------------------------


def body_of(request: Request) -> bytes:
    return encode_request(request).partition(b"\n")[2]


def test_a_request_is_prepared_whole() -> None:
    request = Request(argv=[b"id", b"--key=hunter22"], cwd=b"/", environment=[(b"TERM", b"hunter22")])
    prepared = prepare(body_of(request), TERMS, task=1, scrubber=Scrubber({"KEY": Secret("hunter22")}))
    sent: TaskSpec = wire.decode(TaskSpec, prepared.line)
    assert sent == prepared.planned.spec
    assert sent.argv == ["id", "--key=hunter22"]  # it is the requester's own to pass on
    assert prepared.command.args == ["id", "--key=[secret KEY]"]
    assert prepared.planned.withheld == ["TERM"]


def test_big_arguments_arrive_as_they_are() -> None:
    argv = [b"x", b"\xff\0"[:1] * 100_000, b"y" * 2_000_000]
    prepared = prepare(body_of(Request(argv=argv, cwd=b"/", environment=[])), TERMS, task=1, scrubber=Scrubber({}))
    assert list(map(unescape_bytes, prepared.planned.spec.argv)) == argv


def test_what_no_keeper_can_be_told_is_refused() -> None:
    request = Request(argv=[b"x", b"\xff" * (MAX_REQUEST - 100)], cwd=b"/", environment=[])
    with pytest.raises(RequestError, match="too long"):
        prepare(body_of(request), TERMS, task=1, scrubber=Scrubber({}))


# -- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 127, 128, 255])
def test_an_exit_code_is_told_exactly(code: int) -> None:
    assert task_request.ended(code << 8) == b"exited %d\n" % code
    assert task_request.split_status(code << 8) == (code, 0)


@pytest.mark.parametrize("number", [1, 9, 15, 64])
@pytest.mark.parametrize("core", [0, 0x80])
def test_a_signal_is_told_exactly(number: int, core: int) -> None:
    assert task_request.ended(number | core) == b"killed %d\n" % number
    assert task_request.split_status(number | core) == (0, number)


def test_a_refusal_is_one_line_whatever_it_says() -> None:
    assert task_request.refusal("no\nroom\x1b", 126) == b"failed 126 no\\nroom\\x1b\n"
    assert task_request.refusal("no") == b"failed 125 no\n"
    long = task_request.refusal("é" * MAX_LINE)
    assert len(long) <= MAX_LINE
    assert long.decode().endswith("é\n")


def test_what_could_not_be_run_is_said_with_its_errno() -> None:
    failed = TaskFailed(step="running /no/such", errno="ENOENT", code=127)
    assert task_request.sentence_of(failed) == "running /no/such failed with ENOENT"


def test_the_start_is_told_by_number() -> None:
    assert task_request.started(7) == b"started 7\n"
