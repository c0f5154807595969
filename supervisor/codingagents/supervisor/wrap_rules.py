"""CORE: what a wrapper is: its names, its text, its record, what may be wrapped, and what has become of it. Pure.

A wrapper takes the place of what PATH finds, and what stood there, file or link, is beside it under another name.
Extensions stay, since Node.js goes by them, and so does the directory, since links and imports are relative to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from codingagents.rewrite import places
from codingagents.trust.wire import Message

VENDOR_PREFIX: Final = "coding-agents-vendor-"
DRAFT_SUFFIX: Final = ".coding-agents-draft"  # never executed
ROUTED: Final = ("exec", "run", "shell")
# Clients whose own subcommands have one of these names, which then means theirs.
VENDOR_COMMANDS: Final[Mapping[str, frozenset[str]]] = {
    "codex": frozenset({"exec"}),
    "opencode": frozenset({"run"}),
}
SHELLS: Final = frozenset(
    {"sh", "bash", "rbash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh", "busybox", "posh", "yash"}
)
_OURS: Final = ("coding-agents", "agent-task-runnerctl", VENDOR_PREFIX.rstrip("-"))
_MARK: Final = b"# coding-agents wrapper of "
HEAD_BYTES: Final = 512  # of a file, which show whether it is a wrapper
_MAX_SHEBANG: Final = 127  # bytes with `#!` that every kernel reads
_OTHERS_WRITE: Final = 0o022
_STICKY: Final = 0o1000


class Wrapped(Message, frozen=True, kw_only=True):
    """One wrapped program, as it was when it was wrapped. Digests are SHA-256, hexadecimal."""

    path: str  # what PATH finds, its directory's links resolved
    wrapper_sha256: str
    vendor_sha256: str  # of the file that the vendor's name leads to
    vendor_bytes: int
    vendor_mtime: int  # seconds: layers of an image keep no more


class Wrappers(Message, frozen=True, kw_only=True):
    """All of them: `places.WRAPPERS`."""

    version: Literal[1] = 1
    wrappers: list[Wrapped]


@dataclass(frozen=True, slots=True)
class Owned:
    """Whose a directory or a file is; `mode` as stat(2) has it."""

    path: str
    uid: int
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What was seen of a program that is to be wrapped."""

    path: str
    directories: Sequence[Owned]  # all that lead to it, and to each link on its way
    program: Owned  # what it leads to
    is_file: bool
    has_capabilities: bool  # of file: security.capability
    known_shells: frozenset[str]  # of /etc/shells, links resolved
    interpreter: str  # of wrappers, links resolved


def client_of(path: str) -> str:
    """Return the name of the client that `path` is, by its last part."""
    return re.sub(r"\.(js|mjs|cjs|exe)$", "", path.rpartition("/")[2])


def vendor_beside(path: str) -> str:
    """Return where the vendor's program is when `path` is a wrapper."""
    directory, _, name = path.rpartition("/")
    return f"{directory}/{VENDOR_PREFIX}{name}"


def routed(path: str) -> list[str]:
    """Return the first arguments that a wrapper of `path` takes for the task runner's."""
    theirs = VENDOR_COMMANDS.get(client_of(path), frozenset())
    return [word for word in ROUTED if word not in theirs]


def is_wrapper(head: bytes) -> bool:
    """Say whether a file that starts with `head` (`HEAD_BYTES` of it) is a wrapper of ours, whatever its version."""
    return head.startswith(b"#!") and head.partition(b"\n")[2].startswith(_MARK)


def wrapper_text(path: str, *, interpreter: str, source: str, python: str) -> bytes:
    """Return the wrapper of `path`: `source`, of `wrapper.py`, as a script of `interpreter` with its constants.

    `python` is the interpreter that finds our packages.
    """
    runner = [python, "-I", "-m", "codingagents.supervisor", "exec", "run", "--"]
    constants = (
        f"vendor={vendor_beside(path)!r}, routed={routed(path)!r}, home={places.AGENT_HOME!r}, "
        f"shells={places.SHELLS!r}, runner={runner!r}"
    )
    head = f"#!{interpreter} -IS\n{_MARK.decode()}{path}; to be rid of it: coding-agents wrap remove {path}\n"
    return f"{head}{source}\n\nimport sys\n\nsys.exit(main(sys.argv, {constants}))\n".encode()


def why_not(seen: Candidate, owner: int = 0) -> str:
    """Return why a program must not be wrapped, as a clause with its remedy, "" where it may be.

    `owner` is who must own it, directories included: root, or who runs the tests.
    """
    return _why_not_by_name(seen) or _why_not_by_kind(seen) or _who_could_replace(seen, owner)


def _why_not_by_name(seen: Candidate) -> str:
    name, program = seen.path.rpartition("/")[2], seen.program.path
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name) or not (seen.path.isascii() and seen.path.isprintable()):
        return "its path has characters that a script cannot hold safely"
    if name.startswith(_OURS) or program.startswith(f"{places.RUN_TASKS}/"):
        return "it is one of ours"
    if SHELLS & {name, program.rpartition("/")[2]} or program in seen.known_shells:
        return "it is a shell, which everything needs as it is; task shells stand for it in a session"
    if program == seen.interpreter:
        return "wrappers themselves are run by it"
    if len(seen.interpreter) > _MAX_SHEBANG - len("#! -IS") or " " in seen.interpreter:
        return f"the interpreter {seen.interpreter} cannot stand in a script's first line"
    return ""


def _why_not_by_kind(seen: Candidate) -> str:
    if not seen.is_file:
        return "it leads to no regular file"
    if seen.program.mode & 0o6000 or seen.has_capabilities:
        return "it gives privileges (set-user-ID, set-group-ID or file capabilities), which a wrapper would lose"
    return "" if seen.program.mode & 0o111 else "it is not executable"


def _who_could_replace(seen: Candidate, owner: int) -> str:
    for each in (*seen.directories, seen.program):
        if each.uid not in (0, owner):
            return f"{each.path} is not root's, so that it could be replaced; install the client as root"
        sticky = each is not seen.program and each.mode & _STICKY
        if each.mode & _OTHERS_WRITE and not sticky:
            return f"{each.path} may be written by others, so that it could be replaced; run: chmod go-w {each.path}"
    return ""


def wrapper_mode(program_mode: int) -> int:
    """Return the mode of a wrapper: executable for whom the program is, and readable, since scripts are read."""
    execute = program_mode & 0o111
    return 0o200 | execute | execute << 2


# What has become of a wrapped program.
State = Literal["wrapped", "wrapper changed", "vendor changed", "vendor missing", "not wrapped", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What stands at a wrapped program's two names; a digest is "" where nothing is, or it is not known to differ."""

    is_wrapper: bool
    there: bool  # anything is at its path
    wrapper_sha256: str
    vendor_sha256: str  # "" where the vendor's name leads to no file


def state(recorded: Wrapped, found: Found) -> State:
    """Return what has become of a wrapped program."""
    if not found.is_wrapper:
        return "not wrapped" if found.there else "missing"
    if not found.vendor_sha256:
        return "vendor missing"
    if found.wrapper_sha256 != recorded.wrapper_sha256:
        return "wrapper changed"
    return "wrapped" if found.vendor_sha256 == recorded.vendor_sha256 else "vendor changed"


def sentence(path: str, state: State) -> str:
    """Return what `state` means for `path`, and what to do."""
    again = f"coding-agents wrap install {path}"
    match state:
        case "wrapped":
            return f"{path} is wrapped"
        case "wrapper changed":
            return f"{path} is wrapped by another version, or was edited; run: {again}"
        case "vendor changed":
            return f"{path} is wrapped, and the vendor's program behind it has changed; look at it, then run: {again}"
        case "vendor missing":
            return f"{path} is wrapped, and the vendor's program behind it is gone; install it again, then run: {again}"
        case "not wrapped":
            return f"{path} was wrapped, and another program stands there now, as after an update; run: {again}"
        case "missing":
            return f"{path} was wrapped, and is gone; run: coding-agents wrap remove {path}"
