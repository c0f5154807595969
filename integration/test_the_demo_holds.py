"""`make demo` holds what it claims, and each of its claims can fail.

The first run is the demo itself. Two more are sabotaged, so that exactly the claims about what was broken fail; for
those that no sabotage reaches, evidence of a real session is altered.
"""

from __future__ import annotations

import dataclasses
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from codingagents.trust.events import AnyEvent, ExecAllowed, HelperRefused, LayerReport, TaskEnded
from demo import claims, judging, session, stage, venv
from demo.session import Evidence, Line, Verdict

ROOT = Path(__file__).parents[1]
DEMO = [sys.executable, "-I", str(ROOT / "integration" / "demo" / "run.py")]
NAMES = [rule.name for rules in claims.SECTIONS.values() for rule in rules]
SAYS = {rule.name: rule.says for rules in claims.SECTIONS.values() for rule in rules}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the demo needs root")


def failed_lines(output: str) -> list[str]:
    """Return the names of the claims that a plain output says do not hold, having found a line for each."""
    marks = {}
    for name, says in SAYS.items():
        (mark,) = re.findall(rf"^(ok|FAILED) +{re.escape(says)}: .", output, re.MULTILINE)
        marks[name] = mark
    return [name for name, mark in marks.items() if mark == "FAILED"]


def stages() -> set[Path]:
    return set(venv.CACHE.glob("demo-run-*"))


def test_every_claim_holds_and_a_pipe_gets_one_plain_line_for_each() -> None:
    before = stages()
    done = subprocess.run(DEMO, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert failed_lines(done.stdout) == []
    assert re.search(rf"^All {len(NAMES)} claims hold\. \d+\.\d s$", done.stdout, re.MULTILINE)
    assert done.stdout.replace("\n", "").isprintable(), "a pipe gets no control characters"
    assert stages() == before


def test_what_is_broken_fails_by_name_and_nothing_else_does() -> None:
    broken = [f"--sabotage={name}" for name in ("leak", "pins", "uid-gate", "deny", "landlock", "task-environment")]
    done = subprocess.run([*DEMO, *broken], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1, done.stdout + done.stderr
    # Without a denied exec in the log there is no line to tamper with.
    expected = ["pins", "hunt", "other-uid", "denied", "landlock", "task-helper", "task-environment", "task-hunt"]
    expected += ["layers", "task-layers", "changed", "forged"]
    assert failed_lines(done.stdout) == expected
    assert f"{len(expected)} of {len(NAMES)} claims do not hold: {', '.join(expected)}." in done.stdout
    assert len(re.findall(r"^FAILED .*FOUND \d+ times: raw in own-environ of self", done.stdout, re.MULTILINE)) == 2
    assert re.search(r"^FAILED .*DEMO_MODEL_KEY: it is THERE.*, withheld: LC_SABOTAGE$", done.stdout, re.MULTILINE)


def test_a_terminal_gets_colours_and_the_claim_that_fails() -> None:
    ours, theirs = pty.openpty()
    environment = {"PATH": os.defpath, "TERM": "xterm-256color", "COLUMNS": "200"}
    command = [*DEMO, "--sabotage=bearer-gate", "--sabotage=runner"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        output = b"".join(read_all(ours)).decode()
    assert process.returncode == 1, output
    assert "\x1b[1;31m" in output
    expected = ["no-bearer", *(rule.name for rule in claims.SECTIONS["Tasks"] if rule.name != "task-person")]
    assert output.count("FAILED") == len(expected)
    assert f"{len(expected)} of {len(NAMES)} claims do not hold: {', '.join(expected)}." in " ".join(output.split())


def read_all(terminal: int) -> Iterator[bytes]:
    """Yield what comes from `terminal` until its other end is closed, which is EIO."""
    while True:
        try:
            yield os.read(terminal, 65536)
        except OSError:
            os.close(terminal)
            return


def test_stopped_in_the_middle_it_leaves_nothing_behind() -> None:
    before = stages()
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "agent: demo offers" in line:
                (made,) = stages() - before
                process.send_signal(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM
    assert stages() == before
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and str(made) in command_line(pid)]


def command_line(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def test_an_ordinary_user_gets_one_sentence_and_exit_code_2() -> None:
    """The modules are loaded first: the clone may lie where only root can read."""
    code = "import os, runpy, sys; run = runpy.run_path(sys.argv.pop(1)); os.setuid(65534); sys.exit(run['main']())"
    done = subprocess.run([sys.executable, "-I", "-c", code, DEMO[-1]], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "run 'sudo make demo'" in done.stderr


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """What a real session showed."""
    python = venv.demo_python()
    with stage.set_up(venv.CACHE, python, frozenset()) as made:
        found = session.run(made, python, lambda line: None)
        session.examine(made, found)
    session.look_back(found, made.top)
    return found


def failing(evidence: Evidence) -> list[str]:
    judged = [judging.judge(rule, evidence) for rules in claims.SECTIONS.values() for rule in rules]
    return [claim.name for claim in judged if not claim.holds]


def edited(change: Callable[[Line], Line | None]) -> Callable[[Evidence], dict[str, Any]]:
    """Return a change of what was said, line by line; None drops a line."""
    return lambda evidence: {"said": [line for each in evidence.said if (line := change(dict(each))) is not None]}


def without_finding(target: str, role: str = "agent") -> Callable[[Evidence], dict[str, Any]]:
    """Return the change that the hunt as `role` did not find `target`."""

    def change(line: Line, uid: int) -> Line:
        if "found" in line and line["uid"] == uid:
            line["found"] = [finding for finding in line["found"] if finding["target"] != target]
        return line

    return lambda evidence: edited(lambda line: change(line, evidence.uids[role]))(evidence)


def trespassed(by: str, probe: str, **facts: object) -> Callable[[Evidence], dict[str, Any]]:
    return edited(lambda line: line | facts if (line.get("by"), line.get("probe")) == (by, probe) else line)


def errand(name: str, **facts: object) -> Callable[[Evidence], dict[str, Any]]:
    return edited(lambda line: line | facts if line.get("errand") == name else line)


def without_event(is_it: Callable[[AnyEvent], bool]) -> Callable[[Evidence], dict[str, Any]]:
    return lambda evidence: {"records": [record for record in evidence.records if not is_it(record.event)]}


def answered(probe: str, status: int) -> Callable[[Line], Line]:
    return lambda line: line | {"status": status} if line.get("probe") == probe else line


def exec_of(name: str) -> Callable[[AnyEvent], bool]:
    return lambda event: (
        isinstance(event, ExecAllowed) and name in " ".join((event.executable_path, *event.command_args))
    )


def without_refusals_of(role: str) -> Callable[[Evidence], dict[str, Any]]:
    def is_one(event: AnyEvent, uid: int) -> bool:
        return isinstance(event, HelperRefused) and event.peer_user_id == uid

    return lambda evidence: without_event(lambda event: is_one(event, evidence.uids[role]))(evidence)


def ended_as(code: int) -> Callable[[AnyEvent], bool]:
    return lambda event: isinstance(event, TaskEnded) and event.exit_code == code


def is_report_of(role: str) -> Callable[[AnyEvent], bool]:
    return lambda event: isinstance(event, LayerReport) and event.role == role


ALTERED: dict[str, tuple[str, Callable[[Evidence], dict[str, Any]]]] = {
    "the agent failed": ("roles", lambda _: {"exit_code": 1}),
    "the agent did not get through": (
        "tools",
        edited(lambda line: None if line.get("step") == "mcp" and line["server"] == "demo" else line),
    ),
    "the tool gave another result": (
        "tools",
        edited(lambda line: line | {"add": {"result": 41}} if line.get("server") == "demo" else line),
    ),
    "the impostor got a byte": ("pins", lambda evidence: {"impostor": evidence.impostor | {"bytes": 1}}),
    "the impostor was never called": ("pins", lambda evidence: {"impostor": evidence.impostor | {"accepted": 0}}),
    "the impostor's certificate is bad anyway": ("pins", lambda _: {"impostor_without_pins": None}),
    "no canary in memory": ("canaries", without_finding("canary-in-mem")),
    "no canary in files": ("canaries", without_finding("canary-in-file")),
    "the server serves anybody": ("direct", edited(answered("upstream, no credential", 200))),
    "the server takes the local bearer": ("direct", edited(answered("upstream, local bearer", 200))),
    "not even the agent is let in": (
        "other-uid",
        lambda evidence: {"outsiders": dict.fromkeys(evidence.outsiders, evidence.outsiders[0])},
    ),
    "an exec is not in the log": ("execs", without_event(exec_of("probes.py"))),
    "modes would not allow the denied program": (
        "denied",
        lambda evidence: {"outside": evidence.outside | {stage.DENIED: "Permission denied"}},
    ),
    "a byte was lost": ("task-runs", errand("exact", same=False)),
    "a signal became an exit code": ("task-runs", errand("signal", code=143)),
    "a person's command ran as root": (
        "task-person",
        lambda evidence: {"person": evidence.person | {"output": ["0", *evidence.person["output"][1:]]}},
    ),
    "a task read the config": ("task-config", trespassed("task", "client config", errno=None)),
    "not even the agent reads its config": ("task-config", trespassed("agent", "client config", errno="EACCES")),
    "the agent's memory was read": ("task-agent", trespassed("task", "memory of the agent", errno=None)),
    "nobody can read the agent": ("task-agent", trespassed("agent", "environment of the agent", errno="EACCES")),
    "the helper is down": ("task-helper", trespassed("agent", "helper", status=None)),
    "no helper tells of the task": ("task-helper", without_refusals_of("task")),
    "the agent has no secret": ("task-environment", trespassed("agent", "own environment", canary=False)),
    "no canary in a task's memory": ("task-hunt", without_finding("canary-in-mem", "task")),
    "a task's pipe is held": ("task-left", errand("left alone", over=False)),
    "a task never ran": ("task-left", errand("left alone", ready=False)),
    "a task's end is not in the log": ("task-log", without_event(ended_as(7))),
    "a task's exec is not in the log": ("task-log", without_event(exec_of("/usr/bin/cat"))),
    "tasks have no layer report": ("task-layers", without_event(is_report_of("task"))),
    "the log does not verify": (
        "log",
        lambda evidence: {"verdicts": evidence.verdicts | {"whole": Verdict(1, "line 1: no")}},
    ),
    "the key lies in the session": ("key", lambda evidence: {"key": evidence.log.parent / "key.pub"}),
    "another line is named": ("changed", lambda evidence: {"tampered_line": evidence.tampered_line - 1}),
    "a forgery passes": (
        "forged",
        lambda evidence: {"verdicts": evidence.verdicts | {"resigned": Verdict(0, "holds: line 1")}},
    ),
    "a process is left": ("left", lambda _: {"left": ["process 1"]}),
}


@pytest.mark.parametrize("what", ALTERED)
def test_altered_evidence_fails_its_claim_and_no_other(evidence: Evidence, what: str) -> None:
    claim, change = ALTERED[what]
    assert failing(evidence) == []
    assert failing(dataclasses.replace(evidence, **change(evidence))) == [claim]


def test_where_yama_closes_all_memory_the_missing_canary_is_told_and_not_counted(evidence: Evidence) -> None:
    closed = dataclasses.replace(evidence, **without_finding("canary-in-mem")(evidence), yama=2)
    (rule,) = (rule for rules in claims.SECTIONS.values() for rule in rules if rule.name == "canaries")
    claim = judging.judge(rule, closed)
    assert claim.holds
    assert "not in mem, which kernel.yama.ptrace_scope = 2 closes to every UID" in claim.observed


def test_no_evidence_at_all_fails_every_claim_but_that_nothing_is_left() -> None:
    assert failing(Evidence()) == [name for name in NAMES if name != "left"]
