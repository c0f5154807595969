"""Programs that are wrapped, and processes that are confined as an agent is, without a session.

    with wrapper_rig.folder() as place:
        place.wrap(place.bin / "claude")
        wrapper_rig.run(wrapper_rig.become(wrapper_rig.LAYERS, place.bin / "claude", "--version"))

What a session makes below /run lies in the folder instead, and the wrapper is told so.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from codingagents.rewrite import places
from codingagents.supervisor import wrap_rules
from codingagents.supervisor.wrapping import Wrapping

AGENT, OTHER = 58061, 58062
LAYERS = {"uid": AGENT, "no_new_privs": True, "seccomp": True}
# Before a command line: it runs as the agent, with one Linux capability.
WITH_CAPABILITY = (
    *("setpriv", f"--reuid={AGENT}", f"--regid={AGENT}", "--clear-groups"),
    *("--inh-caps=+chown", "--ambient-caps=+chown"),
)
# Becomes the role as far as LAYERS says, and then the command.
BECOME = """
import json, os, signal, sys
from codingagents.supervisor import seccomp
from codingagents.supervisor.role_filter import role_program
from codingagents.trust import linux
layers, argv = json.loads(sys.argv[1]), sys.argv[2:]
if layers["no_new_privs"]:
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
if layers["seccomp"]:
    program = role_program(linux.machine(), exec_trap=False, memfd_rule=True, seccomp_static=True, userns=True)
    seccomp.install(program, listener=False)
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(layers["uid"], layers["uid"], layers["uid"])
    os.setresuid(layers["uid"], layers["uid"], layers["uid"])
for number in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
os.environ.pop("LC_CTYPE", None)  # this interpreter's own (PEP 538)
os.execv(argv[0], argv)
"""


@dataclass(frozen=True)
class Place:
    """A folder where the agent can go: `bin` for programs, and what a session would have made."""

    folder: Path

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def home(self) -> Path:
        """The agent's, in a directory that is root's alone."""
        return self.folder / "session" / "home"

    @property
    def shells(self) -> Path:
        return self.folder / "shells"

    @property
    def runner(self) -> Path:
        """A program that shows its arguments, in the place of our Python."""
        return self.folder / "runner"

    def wrap(self, path: Path) -> str:
        """Wrap a program for this folder; returns the vendor's."""
        Wrapping(self.folder / "wrappers.json").install(str(path))
        text = path.read_text()
        for there, here in (
            (places.AGENT_HOME, self.home),
            (places.SHELLS, self.shells),
            (sys.executable, self.runner),
        ):
            assert repr(there) in text
            text = text.replace(repr(there), repr(str(here)))
        path.write_text(text)
        return wrap_rules.vendor_beside(str(path))


@contextlib.contextmanager
def folder() -> Iterator[Place]:
    """A folder without programs, whose shells say who they are."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="wrapped-") as name:
        place = Place(Path(name))
        for directory in (place.bin, place.shells, place.home.parent, place.home):
            directory.mkdir()
        place.folder.chmod(0o755)
        os.chown(place.home, AGENT, AGENT)
        for shell in ("sh", "bash"):
            (place.shells / shell).write_text(f'#!/bin/sh\nprintf "{shell} as a task: "\nexec /bin/{shell} "$@"\n')
            (place.shells / shell).chmod(0o755)
        place.runner.write_text('#!/bin/sh\nprintf "%s " "$@"\n')
        place.runner.chmod(0o755)
        yield place


def become(layers: Mapping[str, int], *argv: str | bytes) -> list[str | bytes]:
    return [sys.executable, "-c", BECOME, json.dumps(layers), *argv]


def run(argv: Sequence[str | bytes], **more: object) -> tuple[int, bytes, bytes]:
    done = subprocess.run(argv, capture_output=True, check=False, timeout=60, **more)  # type: ignore[call-overload]  # what more is, the tests say
    return done.returncode, done.stdout, done.stderr
