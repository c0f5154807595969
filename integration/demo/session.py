"""Runs the demo's session by the real command line, and collects what its claims are judged by.

SHELL: it starts, reads and tampers, and judges nothing (`claims` does). Everything is captured as the programs said it.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import secrets
import shlex
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codingagents.rewrite import places
from codingagents.trust.encoding import Record, decode_line
from codingagents.trust.errors import WireError
from codingagents.trust.events import SessionStarted
from demo import forge
from demo.probes import DialledElsewhere
from demo.stage import DENIED, HOST, PREFIX, TOKEN_LENGTH, URL, DemoError, Stage, leftovers

CLI = Path(sys.executable).with_name("coding-agents")
MCP_CONFIG = f"{places.CLIENTS}/claude/mcp.json"  # what Claude Code is started with, too
OTHER_UID = 65534
PERSONS_COMMAND = ("sh", "-c", "id -u; pwd; exit 3")
_LIMIT_SECONDS = 180  # for a session that takes some fifteen
_KILL_SECONDS = 200
_YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
_LAST_WORDS = re.compile(r"session (?P<id>\S+): log (?P<log>/.+), key (?P<key>/.+)$", re.MULTILINE)

Line = dict[str, Any]  # one JSON object that a program printed


@dataclass(frozen=True)
class Verdict:
    """What `coding-agents events verify` said of a log."""

    code: int
    text: str


@dataclass
class Evidence:
    """All that was observed. What did not come to be is empty, and the claim that needs it does not hold."""

    said: list[Line] = field(default_factory=list)  # by the programs in the session, in order
    outsiders: dict[int, Line] = field(default_factory=dict)  # by the UID that called the helper from outside
    person: Line = field(default_factory=dict)  # what `exec run`, called by root in the session, came to
    launcher: int = 0  # its PID, while the session runs
    exit_code: int = -1
    complaints: str = ""  # the launcher's and the supervisor's standard error
    server: dict[str, int] = field(default_factory=dict)
    impostor: dict[str, int] = field(default_factory=dict)
    impostor_without_pins: int | None = None  # the status it answers to a client that trusts its authority
    impostor_afterwards: dict[str, int] = field(default_factory=dict)  # its record once that client had called
    outside: dict[str, int | str] = field(default_factory=dict)  # the same programs as the same UID, without a session
    log: Path = Path()
    key: Path = Path()
    session_files: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    verdicts: dict[str, Verdict] = field(default_factory=dict)  # whole, changed, rechained, resigned
    tampered_line: int = 0
    yama: int = 0  # kernel.yama.ptrace_scope
    left: list[str] = field(default_factory=list)

    @property
    def uids(self) -> dict[str, int]:
        """Return the session's UIDs by role and server."""
        return next((r.event.uids for r in self.records if isinstance(r.event, SessionStarted)), {})


def command(stage: Stage, python: Path) -> list[str]:
    """Return the agent's command line: its config, and what it will run."""
    probes: list[str | Path] = ["/usr/bin/python3", "-I", stage.kit / "probes.py"]
    probes += ["--mcp-config", MCP_CONFIG, "--server", "demo", "--denied", DENIED, "--upstream", URL]
    probes += ["--dial", f"127.0.0.1:{stage.server.port}", "--ca", stage.authorities, "--leak-to", "entry.json"]
    digest = hashlib.sha256(stage.token.encode()).hexdigest()
    quarry: list[str | Path] = ["--prefix", PREFIX, "--length", str(TOKEN_LENGTH)]
    quarry += ["--since", str(stage.since), "--target", f"token={digest}"]
    hunt = ["/usr/bin/python3", "-I", stage.kit / "plant.py", *quarry]
    shell = "/bin/bash" if "runner" in stage.sabotage else f"{places.SHELLS}/bash"
    tasks: list[str | Path] = ["/usr/bin/python3", "-I", stage.kit / "asker.py", "--shell", shell]
    tasks += ["--mcp-config", MCP_CONFIG, "--server", "demo", *quarry]
    runs = [f"--run={shlex.join(map(str, words))}" for words in (probes, hunt, tasks)]
    return [str(python), "-I", str(stage.kit / "agent.py"), "--mcp-config", MCP_CONFIG, *runs]


def run(stage: Stage, python: Path, on_line: Callable[[Line], None]) -> Evidence:
    """Run the session and return what was observed so far; `on_line` gets what its programs say, as they say it."""
    evidence = Evidence()
    if _YAMA.exists():
        evidence.yama = int(_YAMA.read_text())
    with open(stage.private / "stderr", "w+") as stderr:
        for line in _session(stage, python, stderr.fileno(), evidence):
            evidence.said.append(line)
            on_line(line)
            if line.get("probe") == "leaked":
                entry = stage.workspace / "entry.json"
                for uid in (line["uid"], OTHER_UID, 0):
                    evidence.outsiders[uid] = _call_as(uid, stage.kit / "outsider.py", entry)
                evidence.person = _ask_as_root(evidence.launcher, stage.workspace)
                entry.unlink()
        stderr.seek(0)
        evidence.complaints = stderr.read()
    last_words = _LAST_WORDS.search(evidence.complaints)
    if last_words is None:
        reason = (evidence.complaints.strip().splitlines() or ["it said nothing"])[-1]
        raise DemoError(f"the session did not start (exit code {evidence.exit_code}): {reason}")
    evidence.log, evidence.key = Path(last_words["log"]), Path(last_words["key"])
    return evidence


def complaints(evidence: Evidence) -> list[str]:
    """Return what launcher and supervisor complained of: all they said but where the log lies."""
    prefixes = ("coding-agents: session ", "coding-agents: verify it with: ")
    return [line for line in evidence.complaints.splitlines() if not line.startswith(prefixes)]


def _session(stage: Stage, python: Path, stderr: int, evidence: Evidence) -> Iterator[Line]:
    """Yield what the session's programs print; its exit code is in `evidence` afterwards."""
    arguments = ["--engine", "local", "--config", str(stage.config), "--workspace", str(stage.workspace)]
    environment = {"PATH": os.defpath, "HOME": str(stage.home), "LC_ALL": "C.UTF-8", "DEMO_TOKEN": stage.token}
    if "leak" in stage.sabotage:
        environment["LC_SABOTAGE"] = stage.token  # what describes the language is passed on to the agent
    process = subprocess.Popen(
        [str(CLI), "run", *arguments, "--secret", "DEMO_TOKEN=env:DEMO_TOKEN", "--", *command(stage, python)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    evidence.launcher = process.pid
    watchdogs = [threading.Timer(_LIMIT_SECONDS, process.terminate), threading.Timer(_KILL_SECONDS, _kill, [process])]
    for watchdog in watchdogs:
        watchdog.start()
    try:
        for text in process.stdout:
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                if isinstance(line, dict):
                    yield line
    finally:
        process.terminate()  # without effect where it has ended by itself
        evidence.exit_code = process.wait()
        for watchdog in watchdogs:
            watchdog.cancel()
        process.stdout.close()


def _kill(process: subprocess.Popen[str]) -> None:
    """End a session that does not end by itself, by its PID 1."""
    for child in _children(process.pid):
        os.kill(child, signal.SIGKILL)
    process.kill()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _ask_as_root(launcher: int, workspace: Path) -> Line:
    """Have the session run a command as a person would, who entered it as one enters a container."""
    (supervisor,) = _children(launcher)
    enter = ["/usr/bin/nsenter", "--mount", "--pid", f"--target={supervisor}", "--"]
    asked = [str(CLI), "exec", "run", f"--cwd={workspace}", "--", *PERSONS_COMMAND]
    done = subprocess.run(
        [*enter, *asked], env={}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=30
    )
    return {"code": done.returncode, "output": done.stdout.split(), "error": done.stderr}


def _call_as(uid: int, script: Path, entry: Path) -> Line:
    done = subprocess.run(
        ["/usr/bin/python3", "-I", str(script), str(entry)],
        user=uid,
        group=uid,
        extra_groups=[],
        env={},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=30,
    )
    answer: Line = json.loads(done.stdout or b'{"status": null, "body": "it could not be run"}')
    return answer


def examine(stage: Stage, evidence: Evidence) -> None:
    """Add what shows after the session: the servers' records, the controls, the log and what becomes of forgeries."""
    evidence.server, evidence.impostor = stage.server.recorded(), stage.impostor.recorded()
    evidence.impostor_without_pins = _ask_without_pins(stage)
    evidence.impostor_afterwards = stage.impostor.recorded()
    evidence.session_files = sorted(os.listdir(evidence.log.parent))
    lines = evidence.log.read_bytes().splitlines()
    with contextlib.suppress(WireError):  # a line that is no event ends what can be judged
        evidence.records.extend(map(decode_line, lines))
    for program in (DENIED, str(stage.workspace / "own-true")):
        evidence.outside[program] = _run_outside(program, evidence.uids.get("agent", OTHER_UID))
    evidence.verdicts["whole"] = _verify(evidence.key, evidence.log)
    try:
        evidence.tampered_line = number = forge.find_denied(lines, DENIED)
    except (LookupError, WireError):
        return
    forgeries = {
        "changed": forge.one_byte_changed(lines, number, DENIED),
        "rechained": forge.rechained(lines, number),
        "resigned": forge.resigned(lines, number, secrets.token_bytes(32)),
    }
    for name, content in forgeries.items():
        copy = stage.private / f"{name}.jsonl"
        copy.write_bytes(content)
        evidence.verdicts[name] = _verify(evidence.key, copy)


def look_back(evidence: Evidence, top: Path) -> None:
    """Add what is left after everything was taken down."""
    evidence.left = leftovers(frozenset(evidence.uids.values()), top)


def _ask_without_pins(stage: Stage) -> int | None:
    context = ssl.create_default_context(cafile=str(stage.authorities))
    connection = DialledElsewhere(HOST, 443, ("127.0.0.1", stage.impostor.port), context)
    try:
        connection.request("POST", "/mcp", "{}", {"Content-Type": "application/json"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _run_outside(program: str, uid: int) -> int | str:
    """Return how `program --version` ends as `uid` outside of any session."""
    try:
        return subprocess.run(
            [program, "--version"], user=uid, group=uid, extra_groups=[], env={}, capture_output=True, check=False
        ).returncode
    except OSError as error:
        return os.strerror(error.errno or 0)


def _verify(key: Path, log: Path) -> Verdict:
    done = subprocess.run(
        [str(CLI), "events", "verify", "--key", str(key), str(log)],
        env={"PATH": os.defpath},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return Verdict(done.returncode, " ".join((done.stdout + done.stderr).split()))
