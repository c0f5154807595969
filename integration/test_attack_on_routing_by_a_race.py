"""A routed client swaps what it asks for while the trap decides: what is not its own never runs, though its tree may.

`[exec] trees` hold both programs; what makes the denial firm is that Landlock is given the needed files alone. The
client is a program of root's that is called like one, and does nothing but race.
"""

from __future__ import annotations

import json
import os
import shutil

import pytest

from codingagents.trust.events import ExecDenied
from compiled import compile_program
from routing_rig import UNROUTED
from session_rig import place, start

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a session needs root")

TRIES, TRIES_OF_A_CONTROL = 4000, 500


def race(who: str, tries: int, layers: str) -> tuple[dict[str, int], list[ExecDenied]]:
    """Return how often what ran, and what was denied of it."""
    with place() as where:
        for name, program in (("a", "true"), ("b", "false")):
            (where.open / name).mkdir()
            shutil.copy(f"/usr/bin/{program}", where.open / name / "program")
        client = compile_program("racer.c", where.open / "copilot")
        inside, outside = (str(where.open / name / "program") for name in "ab")
        config = f"""
            [session]
            layers = {{ {layers} }}
            [exec]
            mode = "enforce"
            trees = ["/usr", "/lib", "/lib64", "{where.open}"]
            rules = [{{ allow = "/**" }}, {{ allow = "{inside}", role = "agent" }}]
        """
        command = [str(client), "path", who, inside, outside, str(tries)]
        with start("subreaper", where, config, command, agent="copilot") as session:
            session.process.wait(120)
            counts: dict[str, int] = json.loads(session.rest())
            denied = [event for event in session.events(ExecDenied) if event.resolved_path == outside]
    print(who, layers or "all layers", counts)
    assert sum(counts.values()) == tries
    assert counts["EPERM"] > 0, "the trap never saw the other one: nothing raced"
    assert counts["inside ran"] > 0
    assert len(denied) == counts["EPERM"]
    return counts, denied


@pytest.mark.parametrize("who", ["thread", "process"])
def test_what_is_unrouted_never_runs_by_a_swapped_path(who: str) -> None:
    counts, denied = race(who, TRIES, "")
    assert counts["outside ran"] == 0
    assert counts["EACCES"] > 0, "the kernel was never asked: the swap never fell between the two reads"
    assert {(event.reason, event.firmness) for event in denied} == {(UNROUTED, "firm")}


@pytest.mark.parametrize("who", ["thread", "process"])
def test_without_landlock_the_same_swap_wins_and_the_denial_says_that_it_is_advisory(who: str) -> None:
    counts, denied = race(who, TRIES_OF_A_CONTROL, 'landlock_exec = "off"')
    assert counts["outside ran"] > 0
    assert {(event.reason, event.firmness) for event in denied} == {(UNROUTED, "advisory")}
