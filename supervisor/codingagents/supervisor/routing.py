"""CORE: how what the agent starts is routed to the task runner: from its client's table to one `Routing`. Pure.

Says what the client is told, what remains its own, which files Landlock must leave executable for that, and what then
works no more. Looks for no file (`client_programs` does) and mounts nothing; whether a mount was made, it is told.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from codingagents.rewrite import places
from codingagents.rewrite.clients.base import Need, Settings, Shelling
from codingagents.rewrite.clients.known import ANY, CLIENTS
from codingagents.rewrite.specs import ExecRule, SessionSpec
from codingagents.supervisor.exec_routes import OwnProgram, Routes
from codingagents.trust.events import SessionRouting
from codingagents.trust.vocabulary import Role

_SHELL = "{shell}"
_WILDCARDS = frozenset("*?")

NOT_ROUTED: Final = SessionRouting(client="", routed=False, enforced=False, shell="", means=[], needs=[], degrades=[])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A program as it was found; all paths but `path` have their links resolved."""

    path: str  # as it is executed
    real: str
    interpreters: tuple[str, ...] = ()  # what the kernel runs for it
    by_env: tuple[str, str] | None = None  # the word that its `#!/usr/bin/env` line has, and what PATH has for it
    loaders: tuple[str, ...] = ()  # what all of these are loaded by
    replaceable: bool = False  # by the agent, or by tasks


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A client's table with its name, "" for a program that we do not know."""

    client: str
    shelling: Shelling

    def needs(self, program: Installed) -> list[tuple[str, Need]]:
        """Return what to look for beside the client's program: absolute globs, each with its need."""
        beside = posixpath.dirname(program.real)
        named = [need for need in self.shelling.needs if need.path]
        return [(posixpath.normpath(posixpath.join(beside, need.path)), need) for need in named]

    def why_itself(self) -> str:
        """Return why the client's own program is needed."""
        return next(need.why for need in self.shelling.needs if not need.path)

    def settings(self, root: str, shell: str) -> list[Settings]:
        """Return its settings files with all that stands for something filled in; `root` is the clients' directory."""
        return [_filled(settings, posixpath.join(root, settings.path), shell) for settings in self.shelling.settings]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found for one session, and what was done before: facts of which a `Routing` is made."""

    program: Sequence[Installed]  # what the command names, first; where that is a wrapper of ours, what it runs, too
    needs: Sequence[tuple[Installed, Need]]
    allowed: Sequence[Installed] = ()  # what rules for the agent name without a wildcard
    shells: Sequence[Installed]  # the task shells
    trees: Sequence[str]  # `[exec] trees`, links resolved
    account_shell: str  # of the agent's account, "" where there is none
    settings: Collection[str]  # paths of the settings files that hold
    over: Mapping[str, str] = dataclasses.field(default_factory=dict)  # shells of the system, and what stands for each


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How one session's agent is routed."""

    client: str
    enforced: bool
    shell: str
    environment: Mapping[str, str]
    means: tuple[str, ...]
    routes: Routes
    trees: tuple[str, ...]  # where Landlock is to let the agent execute files
    degrades: tuple[str, ...]
    shims: Mapping[str, str] = dataclasses.field(default_factory=dict)  # task shells, by what they are to lie over
    unmounted: tuple[str, ...] = ()
    open: tuple[str, ...] = ()

    def as_seen(self, over: Sequence[str], *, denies: bool) -> Routing:
        """Return the same once it was tried: task shells lie over the shells at the paths `over`, links resolved.

        `denies`: trap or Landlock stands behind it; with neither, nothing that is unrouted is denied.
        """
        return dataclasses.replace(
            self,
            enforced=self.enforced and denies,
            means=(*self.means, *(f"mounted over {path}" for path in over)),
            routes=self.routes.with_mounted(over),
            unmounted=() if over and {*over} >= self.shims.keys() else self.unmounted,
        )

    def event(self) -> SessionRouting:
        """Return what the log is told."""
        return SessionRouting(
            client=self.client,
            routed=True,
            enforced=self.enforced,
            shell=self.shell,
            means=list(self.means),
            needs=[own.path for own in self.routes.own],
            degrades=[*self.degrades, *self.unmounted, *self.open],
        )

    def sentence(self) -> str:
        """Return what is said at the start in enforce mode."""
        lost = "; ".join((*self.degrades, *self.unmounted))
        return f"{self.client or 'the agent'} starts commands as tasks only: {lost or 'nothing else of it changes'}"


def table_for(spec: SessionSpec, command: Sequence[str]) -> Table | None:
    """Return the table by which the agent is routed, None where it is not."""
    client = CLIENTS.get(spec.agent)
    if spec.exec.route == "never":
        return None
    if client is not None and (spec.exec.route == "always" or name_of(command) == client.NAME):
        return Table(client=client.NAME, shelling=client.SHELLING)
    return Table(client="", shelling=ANY) if spec.exec.route == "always" else None


def name_of(command: Sequence[str]) -> str:
    """Return what the program of a command line is called."""
    return posixpath.basename(command[0])


def choose_shell(names: Collection[str]) -> str:
    """Return the path of the task shell that a client is told of, of those that there are: one people work in first."""
    name = next((name for name in ("bash", "zsh", "sh") if name in names), "bash")
    return f"{places.SHELLS}/{name}"


def plan(spec: SessionSpec, table: Table, shell: str, found: Found) -> Routing:
    """Return the routing of a session, as long as no shell is mounted over."""
    shelling = table.shelling
    enforced = spec.exec.mode == "enforce"
    own = [*_own(table, found), OwnProgram(path=f"{places.SHELLS}/*", why="the task shell")]
    theirs = [*found.program, *(installed for installed, _ in found.needs)]
    files = _files(theirs, found.trees) | _files(found.allowed, found.trees) | _files(found.shells, None)
    if enforced:
        trees = {*files, places.SHELLS, *_allowed_trees(spec.exec.rules, found.trees)}
    else:
        trees = {*files, places.SHELLS, *spec.exec.trees, *found.trees}
    environment = {name: value.replace(_SHELL, shell) for name, value in shelling.environment.items()}
    means = [f"environment {name}" for name, value in shelling.environment.items() if _SHELL in value]
    means += ["account shell"] * (shelling.account_shell and found.account_shell == shell)
    means += [f"settings {path}" for path in sorted(found.settings)]
    degrades = list(shelling.degrades)
    unmounted = list(shelling.unmounted)
    if shelling.account_shell and not shelling.environment and "account shell" not in means:
        unmounted.append(
            "the agent has no account with the task shell: it runs commands by the system's bash, which is refused"
        )
    if any(installed.replaceable for installed in theirs):
        degrades.append("the agent can replace the client's program, and so run any: install it as root")
    return Routing(
        client=table.client,
        enforced=enforced,
        shell=shell,
        environment=environment,
        means=tuple(means),
        routes=Routes(
            client=table.client,
            own=own,
            interpreters=sorted({name for each in (*theirs, *found.shells) for name in each.interpreters}),
            files=sorted(files),
        ),
        trees=tuple(sorted(trees)),
        degrades=tuple(degrades),
        # What runs the client's own script must stay what it is.
        shims={over: shim for over, shim in found.over.items() if not any(over in _of(each) for each in theirs)},
        unmounted=tuple(unmounted),
        open=shelling.open,
    )


def _own(table: Table, found: Found) -> Iterable[OwnProgram]:
    why = [(installed, table.why_itself()) for installed in found.program]
    for installed, clause in [*why, *((installed, need.why) for installed, need in found.needs)]:
        yield OwnProgram(path=installed.real, why=clause)
        if installed.by_env is not None:
            word, program = installed.by_env
            yield OwnProgram(path=program, why="runs the client's start script", argv=[word, installed.path])


def _of(program: Installed) -> set[str]:
    """Return every file that the kernel executes for a program, its loaders apart."""
    return {program.real, *program.interpreters, *(() if program.by_env is None else program.by_env[1:])}


def _files(programs: Iterable[Installed], trees: Sequence[str] | None) -> set[str]:
    """Return what must be executable for `programs`; what lies outside of `trees` is not, as by `[exec] trees`."""
    files = set()
    for each in programs:
        files |= {*_of(each), *each.loaders}
    return {file for file in files if trees is None or any(_inside(file, tree) for tree in trees)}


def _allowed_trees(rules: Sequence[ExecRule], trees: Sequence[str]) -> Iterable[str]:
    """Yield where, within `trees`, files must be executable for what `rules` allow the agent by a wildcard."""
    for rule in rules:
        literal = re.split(r"[*?]", rule.path, maxsplit=1)[0]
        if rule.action != "allow" or rule.role != Role.AGENT.value or literal == rule.path:
            continue
        directory = posixpath.dirname(literal)
        yield from ([directory] if any(_inside(directory, tree) for tree in trees) else ())
        yield from (tree for tree in trees if _inside(tree, directory))


def literal_paths(rules: Sequence[ExecRule]) -> list[str]:
    """Return the programs that rules for the agent allow without a wildcard."""
    allowed = [rule.path for rule in rules if rule.action == "allow" and rule.role == Role.AGENT.value]
    return [path for path in allowed if not _WILDCARDS & set(path)]


def _filled(settings: Settings, file: str, shell: str) -> Settings:
    return Settings(
        path=settings.path,
        content={
            name: {key: value.replace(_SHELL, shell) for key, value in table.items()}
            for name, table in settings.content.items()
        },
        arguments=tuple(argument.replace("{file}", file) for argument in settings.arguments),
    )


def _inside(path: str, tree: str) -> bool:
    return path == tree or path.startswith(tree.rstrip("/") + "/")
