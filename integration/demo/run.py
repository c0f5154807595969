"""`make demo`: one complete session on real parts, shown line by line; exit 1 where a claim does not hold.

ENTRY: `.venv/bin/python -I integration/demo/run.py`, as root. Standard output is for people: a terminal gets colours,
a pipe plain text with one line for each claim. Exit codes: 0 all hold, 1 one does not, 2 it cannot be run like this.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

# Isolated (-I), so that nothing but the project and these two folders is imported.
sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "tests")]

from demo import claims, judging, session, stage, venv
from demo.show import Show

LAYERS_OF = {"Layers of the agent's confinement": "agent", "Layers of a task's confinement": "task"}
NOT_ROOT = "the demo gives each role a user ID of its own, which only root can do: run 'sudo make demo'."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--sabotage",
        action="append",
        default=[],
        choices=stage.SABOTAGES,
        help="for the demo's own test: break this, and see the claim fail",
    )
    options = parser.parse_args()
    if os.geteuid() != 0:
        print(f"coding-agents: {NOT_ROOT}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that everything is taken down
    show = Show()
    try:
        return perform(show, frozenset(options.sabotage))
    except stage.DemoError as error:
        show.settle()
        print(f"coding-agents: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        show.settle()


def perform(show: Show, sabotage: frozenset[str]) -> int:
    """Run the session, show what it proves, and return the exit code."""
    show.title("coding-agents: one session on real parts")
    python = venv.demo_python(show.step)
    began = time.monotonic()
    judged: list[judging.Claim] = []

    def judge(section: str, evidence: session.Evidence) -> None:
        show.section(section)
        if role := LAYERS_OF.get(section):
            show.layers(judging.layer_rows(evidence, role))
        for rule in claims.SECTIONS[section]:
            judged.append(judging.judge(rule, evidence))
            show.claim(judged[-1])

    *during, afterwards = claims.SECTIONS
    show.step("a certificate authority, an MCP server that demands a token, and an impostor of it")
    with stage.set_up(venv.CACHE, python, sabotage) as made:
        show.step("coding-agents run --engine local --config config.toml --secret DEMO_TOKEN=env:DEMO_TOKEN -- agent")
        evidence = session.run(made, python, lambda line: tell(show, line))
        for complaint in session.complaints(evidence):
            show.step(complaint)
        show.step("the session has ended; its log is verified, and forged")
        session.examine(made, evidence)
        for section in during:
            judge(section, evidence)
    session.look_back(evidence, made.top)
    judge(afterwards, evidence)
    failed = [claim for claim in judged if not claim.holds]
    show.summary(failed, len(judged), time.monotonic() - began)
    return 1 if failed else 0


def tell(show: Show, line: session.Line) -> None:
    """Say what a program in the session just said, where it marks a step."""
    match line:
        case {"step": "mcp", "ok": True, "server": server, "tools": tools}:
            show.step(f"agent: {server} offers {', '.join(tools)}; now it goes wrong, and tries what it should not")
        case {"step": "mcp", "server": server}:
            show.step(f"agent: {server} cannot be used")
        case {"probe": "leaked"}:
            show.step("agent: gives its local bearer to other users, who try it; root enters, and has a command run")
        case {"step": "ran", "command": command, "code": code} if code:
            show.step(f"agent: {command.split()[2]} ended with {code}")
        case {"step": "ran", "command": command} if "probes.py" in command:
            show.step("agent: hunts for the token, through all that its user can read")
        case {"searched": _}:
            show.step("agent: has searched everything")
        case {"step": "errand", "errand": "exact"}:
            show.step("agent: asks the task runner; what runs tries what is the agent's, and hunts, too")


if __name__ == "__main__":
    sys.exit(main())
