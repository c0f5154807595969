"""SHELL: `coding-agents run`: one session from a configuration file to an exit code.

Wires readers, the plan (`rewrite.plan`, pure) and an engine. All that bad input can break is done before the
first file is written or process started. Makes no decision of its own beyond whose word wins: the command line's, then
the configuration's, then a default.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

from codingagents.launcher import session_dir, uids
from codingagents.launcher.companion import beside
from codingagents.launcher.engines.base import Engine
from codingagents.launcher.engines.local import LocalEngine
from codingagents.launcher.reload_plan import without_pin
from codingagents.launcher.renewals import Renewals
from codingagents.launcher.session_trust import TrustReload
from codingagents.launcher.terminal import say, say_briefly
from codingagents.launcher.workspace import choose_workspace
from codingagents.launcher.workspace_session import workspace_of
from codingagents.rewrite import places
from codingagents.rewrite.anchors import read_anchors
from codingagents.rewrite.check import check_expiry
from codingagents.rewrite.clients.known import CLIENTS, left_out
from codingagents.rewrite.config import Config
from codingagents.rewrite.override_store import OverrideStore
from codingagents.rewrite.placeholders import expand_header
from codingagents.rewrite.plan import anchor_sources, plan_session, required_secrets, uid_plan
from codingagents.rewrite.reading import read_config
from codingagents.rewrite.renewal import SecretFiles
from codingagents.rewrite.secrets import FILE_NAME, SecretSource, gather
from codingagents.rewrite.specs import SessionSecrets, SessionSpec, UidPlan
from codingagents.trust import checkpoint
from codingagents.trust.errors import UsageError
from codingagents.trust.vocabulary import Secret

DEFAULT_AGENT = "claude"
_AGENT_VARIABLES = frozenset({"TERM", "LANG", "TZ", "COLORTERM", "NO_COLOR"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The command line of `run`. `base` is `~/.config/coding-agents`; None means that the option was not given."""

    base: Path
    config: Path
    engine: str
    agent: str | None
    workspace: str | None
    secrets: tuple[SecretSource, ...]
    session_dir: Path | None
    uid_base: int | None
    command: tuple[str, ...]


def run(options: RunOptions, environment: MutableMapping[str, str]) -> int:
    """Run one session and return its exit code. Takes `env:` secrets out of `environment`. Raises `AgentError`."""
    engine = _engine(options.engine, environment)
    if os.geteuid() != 0:
        raise UsageError("run needs root to give each role a UID of its own; run it with sudo")
    config, digest = read_config(options.config)
    secrets = gather(
        required_secrets(config), options.secrets, environment=environment, env_file=options.base / FILE_NAME
    )
    now = datetime.datetime.now(datetime.UTC)
    session = session_dir.new_session_id(now.date(), os.urandom(session_dir.RANDOM_BYTES))
    signing_key = checkpoint.new_key(os.urandom(32))
    agent = options.agent or config.session.agent or DEFAULT_AGENT
    plan = _uids(config, options.uid_base)
    workspace = choose_workspace(options.workspace, config)
    owner = os.stat(workspace)
    overrides = OverrideStore(options.base / places.OVERRIDES)
    anchors = read_anchors(anchor_sources(config), config.file, overrides)
    spec = plan_session(
        config,
        session=session,
        agent=agent,
        engine="local",
        uids=plan,
        secret_names_available=secrets,
        anchors=anchors,
        command=list(options.command) or [agent],
        working_directory=workspace,
        environment=agent_environment(environment),
        public_key=checkpoint.public_key(signing_key),
        config_sha256=digest,
        today=now.date(),
        workspace_owner=(owner.st_uid, owner.st_gid),
    )
    check_headers(spec, secrets)
    files = session_dir.place(session, base=options.base, directory=options.session_dir)
    with workspace_of(spec) as placed:
        spec = placed.spec
        engine.prepare()
        session_dir.create(files, spec)
        doubtful = [
            *([placed.warning] if placed.warning else []),
            *without_pin(config),
            *(warning for each in anchors.values() for warning in each.warnings),
        ]
        for warning in (*config.warnings, *doubtful, *check_expiry(config, now.date()), *_left_out(config, agent)):
            say(f"warning: {warning}")
        held = SecretFiles(
            secrets,
            sources=options.secrets,
            env_file=options.base / FILE_NAME,
            headers=[header for remote in spec.remotes for header in remote.headers],
        )
        reload = TrustReload(spec, config, overrides=overrides, secrets=lambda: held.current)
        try:
            placed.started = True
            with beside(files, spec, Renewals(held, say_briefly), reload) as companion:
                return engine.start(
                    files.directory, SessionSecrets(secrets=secrets, signing_key=signing_key), companion
                )
        finally:
            if files.log.exists():  # a supervisor that could not even start has none
                say_briefly(f"session {session}: log {files.log}, key {files.public_key}")
                say_briefly(f"verify it with: coding-agents events verify --key {files.public_key} {files.log}")


def check_headers(spec: SessionSpec, secrets: Mapping[str, Secret]) -> None:
    """Raise `ConfigError` for a secret that its header cannot carry, before a helper would find out."""
    for remote in spec.remotes:
        for header in remote.headers:
            expand_header(header.name, header.template, secrets)


def _left_out(config: Config, agent: str) -> Iterator[str]:
    return left_out(config, {name: client for name, client in CLIENTS.items() if name == agent})


def agent_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the agent's environment: a fixed PATH, and of ours only what describes the terminal, language and time.

    HOME is the supervisor's to set, for it knows the account.
    """
    passed_on = {name: text for name, text in environment.items() if name in _AGENT_VARIABLES or name[:3] == "LC_"}
    return {"PATH": places.AGENT_PATH, **passed_on}


def _engine(name: str, environment: Mapping[str, str]) -> Engine:
    if name != "local":
        raise UsageError(f"--engine {name} is not available yet; use --engine local")
    return LocalEngine(environment)


def _uids(config: Config, chosen: int | None) -> UidPlan:
    names = [server.name for server in config.active]
    in_use = uids.ids_of_processes()

    def taken(number: int) -> bool:
        return number in in_use or uids.has_account(number)

    if chosen is None:
        width = len(uids.ids_of(uid_plan(uids.FIRST_BASE, names)))
        return uid_plan(uids.choose_base(width, start=int.from_bytes(os.urandom(4)), taken=taken), names)
    plan = uid_plan(chosen, names)
    uids.check_free(uids.ids_of(plan), taken=taken)
    return plan
