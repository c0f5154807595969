"""A real shell on a real pseudo-terminal: what a person at it types, sees and resizes.

with on_a_terminal(mode) as (init, terminal):
    terminal.expect(PROMPT)
    terminal.type("exit 5\n")
    assert init.wait() == 5
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence

from init_modes import INIT, PATIENCE, Init, Mode, stat_fields, wait_until

PROMPT = "ready> "
BASH = ("bash", "--norc", "--noprofile", "-i")
DASH = ("dash", "-i")
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "TERM": "dumb", "PS1": PROMPT, "HISTFILE": ""}
CTRL_C, CTRL_D, CTRL_Z = "\x03", "\x04", "\x1a"


class Terminal:
    """The other end of a pseudo-terminal."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.seen = b""

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def ask(self, line: str) -> str:
        """Type a line at the prompt and return all up to the next prompt."""
        self.type(line + "\n")
        return self.expect(PROMPT)

    def resize(self, rows: int, columns: int) -> None:
        termios.tcsetwinsize(self.descriptor, (rows, columns))

    def expect(self, text: str) -> str:
        """Return what came up to and including `text`, which must come."""
        deadline = time.monotonic() + PATIENCE
        while text.encode() not in self.seen:
            ready, _, _ = select.select([self.descriptor], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not come; seen: {self.seen!r}"
            self.seen += os.read(self.descriptor, 65536)
        before, _, self.seen = self.seen.partition(text.encode())
        return (before + text.encode()).decode()

    def wait_for_foreground(self, name: str) -> None:
        """Wait until the foreground group is led by a program of this name, so that a key press is meant for it."""

        def leader() -> str:
            try:
                with open(f"/proc/{os.tcgetpgrp(self.descriptor)}/comm") as file:
                    return file.read().strip()
            except FileNotFoundError:
                return ""

        wait_until(lambda: leader() == name, f"{name} in the foreground")


def owns_terminal(pid: int) -> bool:
    return stat_fields(pid)[4] != "0"  # tty_nr


@contextlib.contextmanager
def on_a_terminal(
    mode: Mode,
    command: Sequence[str] = BASH,
    *,
    init: Sequence[str] = INIT,
    outer_session: bool = False,
) -> Iterator[tuple[Init, Terminal]]:
    """Start `command` under `init` as an engine does with `-t`, leading the terminal's session; or in an outer one."""
    master, slave = pty.openpty()
    leader = ["setsid", "--ctty"]
    with contextlib.ExitStack() as stack:
        if outer_session:
            owner = stack.enter_context(subprocess.Popen([*leader, "sleep", "60"], stdin=slave))
            stack.callback(owner.kill)
            wait_until(lambda: owns_terminal(owner.pid), "the outer session has the terminal")
            leader = []
        argv = [*leader, *init, *command]
        started = stack.enter_context(mode.start(argv, env=ENVIRONMENT, stdin=slave, stdout=slave, stderr=slave))
        os.close(slave)
        yield started, Terminal(master)
    with contextlib.suppress(OSError):
        os.close(master)
