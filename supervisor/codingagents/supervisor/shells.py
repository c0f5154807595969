"""SHELL: writes the task shells: scripts named like the shells that they stand for, and beside them what they run.

A script is all that a session's agent is given to execute as a shell. Who calls one and is not the agent gets the real
shell. Knows nothing of clients or policy, and runs none of this.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import marshal
import os
import stat
import sys
from typing import Final

from codingagents.rewrite import places
from codingagents.trust.errors import ProcessError

NAMES: Final = ("bash", "sh", "dash", "zsh")
_DIRECTORIES: Final = ("/usr/bin", "/bin")
_CLIENT: Final = f"{places.RUN_TASKS}/client"
_PACKAGE: Final = "codingagents.supervisor"
_AT_ONCE: Final = ("task_wire", "task_client")
_LATER: Final = ("task_relay",)
_MOST_OF_A_FIRST_LINE: Final = 127  # bytes, newline included, that every kernel reads (execve(2))
_LOADERS: Final = (importlib.machinery.SourceFileLoader, importlib.machinery.SourcelessFileLoader)
_UNCHECKED: Final = (1).to_bytes(4, "little")  # flags of a .pyc that is loaded whatever became of its source (PEP 552)
_SCRIPT: Final = """\
#!{python} -IS
# Stands for {shell}, for the agent of this session: runs it as a task. See coding-agents exec run --help.
import marshal, posix, sys

sys.path.insert(0, "{client}")
sys.modules["__future__"] = future = type(sys)("__future__")  # half a millisecond to load
future.annotations = None
for name in {at_once}:
    module = sys.modules["{package}." + name] = type(sys)("{package}." + name)
    descriptor = posix.open("{client}/{directory}/" + name + ".pyc", posix.O_RDONLY)
    exec(marshal.loads(posix.read(descriptor, 1 << 17)[16:]), module.__dict__)
    posix.close(descriptor)
module.stand_for({shell!a}.encode("ascii", "surrogateescape"), {agent_uid}, "{runner}")
"""


def interpreter() -> str:
    """Return the Python that runs the scripts: this one's own, out of any virtual environment and with no links."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def standing_for() -> dict[str, str]:
    """Return the real shells that this machine has, by the names of the scripts that stand for them."""
    found = {}
    for name in NAMES:
        for directory in _DIRECTORIES:
            if os.access(f"{directory}/{name}", os.X_OK):
                found[name] = f"{directory}/{name}"
                break
    return found


def install(
    agent_uid: int,
    *,
    shells: str = places.SHELLS,
    client: str = _CLIENT,
    runner: str = places.RUNNER_SOCKET,
) -> None:
    """Write a script for each shell of this machine into `shells`, which is there, and its client into `client`.

    Raises `ProcessError` where the interpreter is one that the agent cannot run them with, and `OSError`.
    """
    python = interpreter()
    first_line = f"#!{python} -IS\n"
    if len(os.fsencode(first_line)) > _MOST_OF_A_FIRST_LINE or any(map(str.isspace, python)):
        raise ProcessError(f"no script can be run by {python}: its path is too long, or has a space in it")
    if closed := _closed_to_others(python):
        raise ProcessError(f"the agent cannot run {python}: {closed} is closed to other users; install it for all")
    directory = _PACKAGE.replace(".", "/")
    below = client
    for part in ("", *directory.split("/")):
        below = os.path.join(below, part)
        os.makedirs(below, exist_ok=True)
        os.chmod(below, 0o755)  # noqa: S103 -- it is to be read by all, whatever the umask was
    for name in _AT_ONCE + _LATER:
        _write(f"{client}/{directory}/{name}.pyc", _compiled(name), 0o644)
    for name, shell in standing_for().items():
        text = _SCRIPT.format(
            python=python,
            shell=shell,
            client=client,
            directory=directory,
            package=_PACKAGE,
            at_once=_AT_ONCE,
            agent_uid=agent_uid,
            runner=runner,
        )
        _write(f"{shells}/{name}", text.encode(), 0o755)


def _compiled(name: str) -> bytes:
    """Return the module as a .pyc that stands alone. Nothing is compiled here where the package is compiled already."""
    full = f"{_PACKAGE}.{name}"
    spec = importlib.util.find_spec(full)
    code = spec.loader.get_code(full) if spec and isinstance(spec.loader, _LOADERS) else None
    if code is None:
        raise ProcessError(f"the module {full} of this installation cannot be read")
    return importlib.util.MAGIC_NUMBER + _UNCHECKED + bytes(8) + marshal.dumps(code)


def _closed_to_others(path: str) -> str:
    """Return what on the way to `path` other users may not pass, by its mode; "" where all may."""
    way = path
    while True:
        wanted = stat.S_IXOTH if way != path else stat.S_IXOTH | stat.S_IROTH
        if os.stat(way).st_mode & wanted != wanted:
            return way
        if way == "/":
            return ""
        way = os.path.dirname(way)


def _write(path: str, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fchmod(descriptor, mode)  # whatever the umask was
