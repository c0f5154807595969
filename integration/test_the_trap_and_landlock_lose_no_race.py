"""What is asked for is swapped while its exec is being decided: the kernel reads it again, after the trap has.

The trap alone loses that race, which is why it is never called firm; with Landlock and the memfd rule below it, nothing
outside the trees ran in all tries. Each control takes one of the two away, and counts what then runs.
"""

from __future__ import annotations

import pytest

from compiled import compile_program
from trap_harness import UID, Outcome, Request, copy_program, deny, every_reader, needs_root, run, shared_directory

pytestmark = needs_root

TRIES, TRIES_OF_A_CONTROL = 10_000, 500
every_swapper = pytest.mark.parametrize("who", ["thread", "process"])
OPEN_TO = {"path": "landlock_exec", "directory": "landlock_exec", "memfd": "memfd_rule"}


def race(
    what: str, who: str, *, tries: int, layers_off: list[str], sys_ptrace: bool = False
) -> tuple[dict[str, int], Outcome]:
    with shared_directory() as files:
        racer = compile_program("racer.c", files / "a" / "racer")
        inside = copy_program("/usr/bin/test" if what == "argument" else "/usr/bin/true", files / "a" / "program")
        outside = copy_program("/usr/bin/false", files / "b" / "program")
        rule = deny(inside, argv=["test", "o"]) if what == "argument" else deny(f"{files}/b/**")
        outcome = run(
            Request(
                argv=[racer, what, who, inside, outside, str(tries)],
                rules=[rule],
                trees=[f"{files}/a"],
                layers_off=layers_off,
                sys_ptrace=sys_ptrace,
            ),
            patience=300.0,  # 10,000 tries take a quarter of a minute, on a machine with nothing else to do
        )
    counts: dict[str, int] = outcome.said[0]
    print(what, who, layers_off or "all layers", counts)
    assert sum(counts.values()) == tries
    assert counts["EPERM"] > 0, "the trap never saw the other one: nothing raced"
    assert counts["inside ran"] > 0
    assert outcome.reply.troubles == []
    assert len(outcome.denied) == counts["EPERM"]
    assert {event.user_id for event in outcome.denied} == {UID}
    outcome.verify()
    return counts, outcome


@every_swapper
@pytest.mark.parametrize("what", ["path", "memfd"])
def test_what_lies_outside_never_runs_by_a_swapped_path(what: str, who: str) -> None:
    counts, outcome = race(what, who, tries=TRIES, layers_off=[])
    assert counts["outside ran"] == 0
    assert counts["EACCES"] > 0, "the kernel was never asked: the swap never fell between the two reads"
    assert {event.firmness for event in outcome.denied} == {"firm"}


@every_reader
def test_nor_by_a_swapped_directory(sys_ptrace: bool) -> None:
    counts, _ = race("directory", "thread", tries=2000, layers_off=[], sys_ptrace=sys_ptrace)
    assert counts["outside ran"] == 0
    assert counts["EACCES"] > 0


@pytest.mark.parametrize(
    ("what", "who"),
    [("path", "thread"), ("path", "process"), ("memfd", "thread"), ("memfd", "process"), ("directory", "thread")],
)
def test_without_the_layer_that_forbids_it_the_same_swap_wins(what: str, who: str) -> None:
    counts, _ = race(what, who, tries=TRIES_OF_A_CONTROL, layers_off=[OPEN_TO[what]])
    assert counts["outside ran"] > 0


@every_swapper
def test_arguments_are_swapped_past_any_rule_and_the_rule_says_that_it_is_advisory(who: str) -> None:
    """Not defended, and said so: a change of this test is a change of what the documentation promises."""
    counts, outcome = race("argument", who, tries=TRIES_OF_A_CONTROL, layers_off=[])
    assert counts["outside ran"] > 0
    assert {event.firmness for event in outcome.denied} == {"advisory"}
