"""The real clients in containers: alone, as everybody runs them, and in a session of ours; the calls are the same.

    with Model(engine, upstream, directory) as model:
        alone = ask_alone(model, CLIENTS["claude"], calls, directory)
        routed = ask_in_session(model, CLIENTS["claude"], calls, directory, tables='[exec]\\nmode = "enforce"')
        assert routed.results == alone.results

What a client was told by its tools is read from what it sent to the model. In a session its workspace is prepared and
given back by the launcher's own code, as `coding-agents run` does it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pki
from clients import installed
from clients.installed import Client
from clients.model import results
from codingagents.launcher.workspace_session import workspace_of
from codingagents.trust.events import AnyEvent
from container_rig import AGENT_UID, Engine, Running, Session, Upstream

TASK_UID = AGENT_UID + 1
Calls = Callable[[str], Sequence[Mapping[str, Any]]]  # by the path of the workspace
_SCRIPTS = Path(__file__).parent / "clients"
PATIENCE = 90.0  # seconds; only a client that hangs takes as long


class Model:
    """The fake model's container, in the network that sessions of `upstream` share."""

    def __init__(self, engine: Engine, upstream: Upstream, directory: Path) -> None:
        self.engine = engine
        self.upstream = upstream
        self.directory = directory
        self._directory = directory / "model"
        self._directory.mkdir(parents=True)
        self._trust = directory / "root.pem"
        self._trust.write_text(pki.make_root().pem)
        self._runs = 0

    def __enter__(self) -> Self:
        flags = [self.network, "--volume", f"{self._directory}:/model", "--volume", f"{_SCRIPTS}:/scripts:ro"]
        self._stack = contextlib.ExitStack()
        command = ("/usr/bin/python3", "-I", "/scripts/model.py", "/model", str(installed.MODEL_PORT))
        running = self._stack.enter_context(self.engine.running(flags, *command))
        running.line()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def network(self) -> str:
        return f"--network=container:{self.upstream.name}"

    @property
    def flags(self) -> list[str]:
        """What a container needs for the clients to run in it."""
        return [
            *("--volume", f"{installed.programs()}:{installed.HOME}:ro"),
            *("--volume", f"{installed.runtime()}:{installed.NODE}:ro"),
            *("--volume", f"{self._trust}:{installed.TRUST}:ro"),
            *("--volume", f"{_SCRIPTS}:/scripts:ro", "--volume", f"{_SCRIPTS.with_name('demo')}:/demo:ro"),
        ]

    def new_run(self) -> str:
        self._runs += 1
        return f"run-{self._runs}"

    def make(self, run: str, calls: Sequence[Mapping[str, Any]]) -> None:
        """Have the model make these calls in this run."""
        (self._directory / f"{run}.json").write_text(json.dumps(calls))

    def answered(self, run: str) -> list[str]:
        """Return what the client's tools answered, as the model was told last."""
        record = self._directory / f"{run}.jsonl"
        requests = record.read_text().splitlines() if record.exists() else []
        return max((results(json.loads(request)["body"]) for request in requests), key=len, default=[])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """One run of a client to its end."""

    code: int
    output: str
    errors: str
    raw: list[str]  # what its tools answered, in order
    results: list[str]  # the same without what varies
    events: list[AnyEvent]  # the session's, where there was one

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def ask_alone(
    model: Model,
    client: Client,
    calls: Calls,
    tree: Path,
    *,
    flags: Sequence[str] = (),
    arguments: Sequence[str] = (),
    **variables: str,
) -> Asked:
    """Run `client` without us, as an ordinary user who owns `tree`, the directory that it works in.

    `arguments` are further ones of the client, `variables` of its environment, and `flags` of the container.
    """
    run = model.new_run()
    model.make(run, calls(str(tree)))
    subprocess.run(["chown", "-R", f"{AGENT_UID}:{AGENT_UID}", tree], check=True)
    home = "/home/agent"
    environment = {**client.environment(run), "HOME": home, **variables}
    flags = [
        *flags,
        *(model.network, *model.flags, "--volume", f"{tree}:{tree}", "--workdir", str(tree)),
        *("--user", f"{AGENT_UID}:{AGENT_UID}", "--tmpfs", f"{home}:exec,mode=0700,uid={AGENT_UID},gid={AGENT_UID}"),
        *(part for name, value in environment.items() for part in ("--env", f"{name}={value}")),
    ]
    # A shell as PID 1, for a client reaps no orphans.
    command = ("sh", "-c", '"$@"; exit $?', "sh", *client.command(run, *client.alone, *arguments))
    with model.engine.running(flags, *command) as running:
        return _to_its_end(model, client, run, running, str(tree))


def ask_in_session(
    model: Model,
    client: Client,
    calls: Calls,
    tree: Path,
    *,
    tables: str,
    flags: Sequence[str] = (),
    arguments: Sequence[str] = (),
    **variables: str,
) -> Asked:
    """Run `client` in a session with these tables of config.toml; the launcher makes `tree` its workspace.

    The rest is as with `ask_alone`.
    """
    run = model.new_run()
    directory = tree.with_name(f"{tree.name}-{run}")
    owner = tree.stat()
    session = Session(
        model.upstream,
        directory,
        tables=tables,
        agent=client.name,
        command=client.command(run, *arguments),
        working_directory=str(tree),
        environment={**client.environment(run), **variables},
        workspace_owner=(owner.st_uid, owner.st_gid),
    )
    with workspace_of(session.spec, directory / "state" / "workspaces") as placed:
        placed.started = True
        session.spec = placed.spec
        session.workspace = Path(placed.spec.working_directory)
        session.write_spec()
        model.make(run, calls(placed.spec.working_directory))
        with session.start(model.engine, [*model.flags, *flags]) as running:
            asked = _to_its_end(model, client, run, running, placed.spec.working_directory)
    return dataclasses.replace(asked, events=session.events())


def _to_its_end(model: Model, client: Client, run: str, running: Running, where: str) -> Asked:
    try:
        output, errors = running.process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{client.name} hangs after {len(model.answered(run))} answers") from None
    raw = model.answered(run)
    return Asked(
        code=running.process.returncode,
        output=output.decode(errors="replace"),
        errors=errors.decode(errors="replace"),
        raw=raw,
        results=[client.plain(result.replace(where, "WORKSPACE")) for result in raw],
        events=[],
    )


@contextlib.contextmanager
def new_tree(directory: Path, owner: int = 0) -> Iterator[Path]:
    """Make a workspace below `directory`, which every UID can pass through."""
    tree = directory / f"tree-{os.urandom(4).hex()}"
    tree.mkdir()
    os.chown(tree, owner, owner)
    yield tree
