"""CORE: turns a client's request into a task, or says why not: which variables it gets, and what the client is told.

What a task gets of its requester's environment is an allow-list: a secret in the requester's environment does not get
into a task because nobody thought of its name. Knows no process and no socket; the secrets are behind a predicate.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from codingagents.rewrite import places
from codingagents.rewrite.specs import RoleLimits
from codingagents.supervisor.task_spec import TaskFailed, TaskSpec
from codingagents.supervisor.task_wire import MAX_LINE, Request, RequestError, parse_request
from codingagents.trust import wire
from codingagents.trust.errors import EXIT_ENGINE, WireError
from codingagents.trust.events import escape_bytes
from codingagents.trust.scrub import ScrubbedArgv, Scrubber
from codingagents.trust.terminal import printable

# Names, or prefixes that end in `*`, of what says how output looks, which tools a person prefers, and where one is.
USUAL: Final = (
    *("PATH", "PWD", "OLDPWD", "SHLVL"),
    *("LANG", "LC_*", "TZ"),
    *("TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"),
    *("EDITOR", "VISUAL", "PAGER", "GIT_PAGER", "GIT_EDITOR", "GH_PAGER"),
    *("CI", "DEBIAN_FRONTEND"),
)
_NAME: Final = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
_FULL_SHELLS: Final = (b"bash", b"zsh")  # which one works in by name, as no one does in sh
_MAX_SENTENCE: Final = MAX_LINE // 2  # bytes of UTF-8, with the line's other words


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTerms:
    """What holds for each task of a session."""

    allowed: Sequence[str]  # of the requester's variables: names, or prefixes that end in `*`
    environment: Mapping[str, str]  # what each gets, whatever the requester has
    limits: RoleLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A task as its keeper is told it, and what the record says of its environment."""

    spec: TaskSpec
    environment: list[str]  # names of what it is given, in order
    withheld: list[str]  # names of what it would be given, but for a secret in the value


def plan_task(request: Request, terms: TaskTerms, *, task: int, holds_secret: Callable[[bytes], bool]) -> Planned:
    """Return task number `task` as `request` asks for it, within `terms`.

    Ours win over what the requester has, and what it named over both. `SHELL` is ours, except where the program is a
    shell that one works in.
    """
    wanted = {name: value for name, value in request.environment if _is_allowed(name, terms.allowed)}
    named = {name: value for name, value in request.named if _NAME.fullmatch(name)}
    withheld = {name for name, value in (wanted | named).items() if holds_secret(name + b"=" + value)}
    given = {b"PATH": places.SYSTEM_PATH.encode()}
    given |= {name: value for name, value in wanted.items() if name not in withheld}
    given |= {name.encode(): value.encode() for name, value in terms.environment.items()}
    program = request.argv[0]
    if program.startswith(b"/") and program.rpartition(b"/")[2] in _FULL_SHELLS:
        given[b"SHELL"] = program
    given |= {name: value for name, value in named.items() if name not in withheld}
    given[b"CODING_AGENTS_TASK"] = b"%d" % task
    return Planned(
        spec=TaskSpec(
            task=task,
            argv=list(map(escape_bytes, request.argv)),
            environment=[escape_bytes(name + b"=" + value) for name, value in sorted(given.items())],
            working_directory=escape_bytes(request.cwd),
            terminal=request.terminal,
            rows=request.rows,
            columns=request.columns,
            limits=terms.limits,
        ),
        environment=_names(given),
        withheld=_names(withheld - given.keys()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request that can be run: its task, the line that its keeper is sent, and its command as it may be recorded."""

    planned: Planned
    line: bytes
    command: ScrubbedArgv


def prepare(body: bytes, terms: TaskTerms, *, task: int, scrubber: Scrubber) -> Prepared:
    """Return what comes of a request's `body`; `RequestError` where it holds none.

    Takes tens of milliseconds for megabytes.
    """
    request = parse_request(body)
    planned = plan_task(
        request, terms, task=task, holds_secret=lambda variable: scrubber.scrub_bytes(variable) != variable
    )
    try:
        line = wire.encode(planned.spec)
    except WireError:  # bytes that are no text take five characters each
        raise RequestError("it is too long") from None
    return Prepared(planned=planned, line=line, command=scrubber.scrub_argv(request.argv))


def sentence_of(failed: TaskFailed) -> str:
    """Return what is said of a command that could not be run."""
    return f"{failed.step} failed with {failed.errno}"


def refusal(sentence: str, code: int = EXIT_ENGINE) -> bytes:
    """Return the line that tells a client of a failure of ours: whatever `sentence` holds, it is one short line."""
    text = printable(sentence).encode("utf-8", "replace")[:_MAX_SENTENCE]
    return b"failed %d %s\n" % (code, text.decode("utf-8", "ignore").encode())


def started(pid: int) -> bytes:
    """Return the line that tells a client of its command's start."""
    return b"started %d\n" % pid


def ended(status: int) -> bytes:
    """Return the line that tells a client how its command ended, by its waitpid(2) status."""
    exit_code, number = split_status(status)
    return b"killed %d\n" % number if number else b"exited %d\n" % exit_code


def split_status(status: int) -> tuple[int, int]:
    """Return (exit code, 0) or (0, signal) of a process that ended with this waitpid(2) status."""
    number = status & 0x7F
    return (0, number) if number else (status >> 8 & 0xFF, 0)


def _is_allowed(name: bytes, patterns: Sequence[str]) -> bool:
    if not _NAME.fullmatch(name):
        return False
    return any(
        name.startswith(pattern[:-1].encode()) if pattern.endswith("*") else name == pattern.encode()
        for pattern in patterns
    )


def _names(names: Collection[bytes]) -> list[str]:
    return sorted(map(bytes.decode, names))
