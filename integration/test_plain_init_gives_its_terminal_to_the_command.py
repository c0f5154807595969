"""A real shell on a real pseudo-terminal, started as an engine does with `-t`: init leads the terminal's session."""

import contextlib
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence

from init_modes import INIT, PATIENCE, Init, Mode, every_mode, stat_fields, wait_until

SHELL = ["bash", "--norc", "--noprofile", "-i"]
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "TERM": "dumb", "PS1": "ready> ", "HISTFILE": ""}


class Terminal:
    """The other end of a pseudo-terminal."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.seen = b""

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def expect(self, text: str) -> str:
        """Return what came up to and including `text`, which must come."""
        deadline = time.monotonic() + PATIENCE
        while text.encode() not in self.seen:
            ready, _, _ = select.select([self.descriptor], [], [], deadline - time.monotonic())
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
    mode: Mode, command: Sequence[str] = SHELL, *, outer_session: bool = False
) -> Iterator[tuple[Init, Terminal]]:
    master, slave = pty.openpty()
    leader = ["setsid", "--ctty"]
    with contextlib.ExitStack() as stack:
        if outer_session:
            owner = stack.enter_context(subprocess.Popen([*leader, "sleep", "60"], stdin=slave))
            stack.callback(owner.kill)
            wait_until(lambda: owns_terminal(owner.pid), "the outer session has the terminal")
            leader = []
        argv = [*leader, *INIT, *command]
        init = stack.enter_context(mode.start(argv, env=ENVIRONMENT, stdin=slave, stdout=slave, stderr=slave))
        os.close(slave)
        yield init, Terminal(master)
    with contextlib.suppress(OSError):
        os.close(master)


@every_mode
def test_ctrl_c_reaches_the_foreground_job_only(mode: Mode) -> None:
    """The job dies by INT, the shell goes on and says 130, and its own code becomes init's."""
    with on_a_terminal(mode) as (init, terminal):
        assert "job control" not in terminal.expect("ready> ")
        terminal.type("sleep 60\n")
        terminal.wait_for_foreground("sleep")
        terminal.type("\x03")
        terminal.expect("ready> ")
        terminal.type("echo code=$?\n")
        assert "code=130" in terminal.expect("ready> ")
        terminal.type("exit 5\n")
        assert init.wait() == 5


@every_mode
def test_ctrl_c_reaches_a_command_that_never_asks_for_the_terminal(mode: Mode) -> None:
    """A shell takes a free terminal by opening it; this one was given it."""
    with on_a_terminal(mode, ["sleep", "60"]) as (init, terminal):
        terminal.wait_for_foreground("sleep")
        terminal.type("\x03")
        assert init.wait() == 128 + signal.SIGINT


@every_mode
def test_the_shell_has_job_control(mode: Mode) -> None:
    """Ctrl-Z stops the job and gives the prompt back; fg goes on with it."""
    with on_a_terminal(mode) as (init, terminal):
        terminal.expect("ready> ")
        terminal.type("cat\n")
        terminal.wait_for_foreground("cat")
        terminal.type("\x1a")
        assert "Stopped" in terminal.expect("ready> ")
        terminal.type("fg\n")
        terminal.wait_for_foreground("cat")
        terminal.type("hello\n")
        terminal.expect("hello\r\nhello\r\n")  # the echo, and cat's answer
        terminal.type("\x04")
        terminal.expect("ready> ")
        terminal.type("exit\n")
        assert init.wait() == 0


@every_mode
def test_closing_the_terminal_ends_the_shell_and_init(mode: Mode) -> None:
    """The hang-up goes to the shell, which leads the session now."""
    with on_a_terminal(mode) as (init, terminal):
        terminal.expect("ready> ")
        os.close(terminal.descriptor)
        assert init.wait() == 128 + signal.SIGHUP
        wait_until(lambda: init.left() == [], "nothing is left")


@every_mode
def test_a_terminal_of_an_outer_session_is_usable_but_stays_there(mode: Mode) -> None:
    """It is not stolen: the shell says that it has no job control, reads and writes, and ends as asked."""
    with on_a_terminal(mode, outer_session=True) as (init, terminal):
        assert "no job control" in terminal.expect("ready> ")
        terminal.type("exit 7\n")
        assert init.wait() == 7
