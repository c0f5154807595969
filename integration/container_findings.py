"""What a session in a container came to, and what its layer report has to say: shared by the tests of all engines.

What has to be said follows from what `container/probe.py` finds by its own means in a container with the same flags; it
imports nothing of the project. Starts no engine: `container_rig` and `podman_rig` do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codingagents.trust.events import AnyEvent, Layer
from codingagents.trust.verify import Verified
from container_rig import AGENT_UID, SCRIPTS, Engine, Session, Upstream


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One session that ran to its end with one group of settings, and what was found out beside it."""

    settings: str
    code: int
    errors: str
    agent: dict[str, Any]  # what the agent reported of itself
    inspected: str  # `docker inspect` while it ran
    left: list[str]  # what it left in the container's file system
    accounts: str  # the container's, when it had ended
    events: list[AnyEvent]
    layers: Mapping[str, Layer]
    verified: Verified
    record: list[dict[str, int]]  # the upstream's
    probe: dict[str, Any]
    doctor: list[dict[str, Any]]

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def run_session(engine: Engine, upstream: Upstream, settings: str, flags: tuple[str, ...], directory: Path) -> Ran:
    """Run one session to its end in a container with `flags`, and look at it from all sides."""
    session = Session(upstream, directory)
    upstream.take_record()
    with session.start(engine, flags) as running:
        agent = json.loads(running.line())
        inspected = engine("inspect", running.name).stdout
        code, errors = running.wait(), running.errors()
        left = engine("diff", running.name).stdout.splitlines()
        accounts = "".join(engine("cp", f"{running.name}:{path}", "-").stdout for path in ("/etc/passwd", "/etc/group"))
    return Ran(
        settings=settings,
        code=code,
        errors=errors,
        agent=agent,
        inspected=inspected,
        left=left,
        accounts=accounts,
        events=session.events(),
        layers=session.layers(),
        verified=session.verify(),
        record=upstream.take_record(),
        probe=probe(engine, flags, session.workspace),
        doctor=json.loads(engine.run(flags, "coding-agents", "doctor", "--json").stdout)["layers"],
    )


def probe(engine: Engine, flags: tuple[str, ...], workspace: Path) -> dict[str, Any]:
    """Return what `container/probe.py` finds in a container with `flags`."""
    noformat = workspace / "no-format"
    noformat.write_text("no program\n")
    noformat.chmod(0o755)
    volumes = ["--volume", f"{SCRIPTS}:/scripts:ro", "--volume", f"{workspace}:/workspace"]
    arguments = [str(AGENT_UID), "/workspace/no-format", "/usr/bin/tac", "/workspace/outside"]
    found: dict[str, Any] = json.loads(
        engine.run([*flags, *volumes], "/usr/bin/python3", "-I", "/scripts/probe.py", *arguments).stdout
    )
    return found


def expected_states(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the state of each layer as the probe's findings demand it."""

    def state(holds: bool, otherwise: str = "unavailable") -> str:
        return "enforced" if holds else otherwise

    no_bits = "0000000000000000"
    filters = found["listener"] == "ok"  # whoever can put on one filter can put on each of ours
    return {
        "uid_drop": state(found["uid_drop"] == ["EPERM", "EPERM"]),
        "caps_bounding": state(found["bounding"] == no_bits, "partial"),
        "securebits": state(found["securebits"] == "0xeb"),
        "no_new_privs": state(found["no_new_privs"] == "1"),
        "seccomp_static": state(filters),
        "userns": state(filters or found["user_namespaces"][0] == "EPERM"),
        "limits": state(found["limits"] == ["EAGAIN", "EPERM"]),
        "landlock_exec": state(found["landlock"] == ["ENOEXEC", "EACCES"]),
        "memfd_rule": state(filters and found["memfd_create"] == "ok"),
        "exec_trap": state(filters),
        "pidns": state(found["pid"] == 1),
        "mountns": state(found["mount_namespace"] == "ok"),
        "run_dirs": run_dirs_state(found),
        "proc_hidden": state(found["hidden_processes"] == "ok"),
        "engine_seccomp": engine_seccomp_state(found),
        "apparmor": state(found["apparmor"] not in ("", "unconfined")),
    }


# Mode of each, and whether programs may run there.
_RUN_DIRECTORIES = {
    "/run/coding-agents": ("0o755", True),
    "/run/agent-secrets": ("0o700", False),
    "/run/agent-task-runner": ("0o755", False),
    "/run/agent-tasks": ("0o755", True),
    "/run/agent-data": ("0o700", False),
    "/run/agent-data-export": ("0o700", False),
}


def run_dirs_state(found: Mapping[str, Any]) -> str:
    """Return what a session must say of its directories: `probe.py` saw those that the engine mounted."""
    if found["mount_namespace"] == "ok":
        return "enforced"
    seen = found["run_directories"]
    as_wanted = seen.keys() == _RUN_DIRECTORIES.keys() and all(
        kind == "tmpfs"
        and {"nosuid", "nodev"} | (set() if _RUN_DIRECTORIES[path][1] else {"noexec"}) <= set(options.split(","))
        and mode == _RUN_DIRECTORIES[path][0]
        for path, (kind, options, mode) in seen.items()
    )
    return "enforced" if as_wanted else "partial"


def engine_seccomp_state(found: Mapping[str, Any]) -> str:
    """Return what is to be said of the engine's profile: `partial` where it refuses nothing of what was tried."""
    if found["seccomp"] != "2":
        return "unavailable"
    return "enforced" if "EPERM" in (found["keyctl"], found["userfaultfd"]) else "partial"
