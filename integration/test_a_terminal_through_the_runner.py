"""A task shell as a session's agent, on a real pseudo-terminal: the runner's own terminal, keys, window, modes."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from typing import Any

import pytest

import session_rig as rig
from codingagents.rewrite import places
from session_rig import Place
from terminal_rig import CTRL_C, CTRL_D, CTRL_Z, PROMPT, Terminal

pytest_plugins = ("session_fixtures",)

PATIENCE = 30
BASH, DASH = f"{places.SHELLS}/bash", f"{places.SHELLS}/dash"
CONFIG = f"""
[exec]
trees = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "{places.SHELLS}"]
"""
SLEEPER = "sh -c 'echo asleep; exec sleep 60'"  # says so once it is the foreground


class Screen(Terminal):
    """A session's terminal, whose modes can be looked at, and the session's process."""

    def __init__(self, master: int, slave: int, process: subprocess.Popen[bytes]) -> None:
        super().__init__(master)
        self.slave = slave
        self.process = process

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self.slave)

    def is_raw(self) -> bool:
        return not self.modes()[3] & termios.ISIG

    def prompt(self, shell: str) -> None:
        """Have the shell prompt as the tests expect it."""
        self.expect("$ ")
        self.type(f"PS1='{PROMPT}'\n")
        self.expect(f"\n{PROMPT}")


@contextlib.contextmanager
def on_a_terminal(where: Place, *command: str) -> Iterator[Screen]:
    """Run a session whose agent is `command`, with a terminal that it leads."""
    config = where.home / "terminal.toml"
    config.write_text(CONFIG)
    master, slave = pty.openpty()
    termios.tcsetwinsize(master, (33, 99))
    argv = [
        *("setsid", "--ctty", sys.executable, "-I", "-m", "codingagents.launcher", "run", "--config", str(config)),
        *("--workspace", str(where.open), "--", *command),
    ]
    environment = {"HOME": str(where.home), "PATH": os.environ["PATH"], "TERM": "dumb"}
    process = subprocess.Popen(argv, env=environment, stdin=slave, stdout=slave, stderr=slave)
    try:
        yield Screen(master, slave, process)
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


@pytest.fixture
def inside(where: Place) -> Iterator[Screen]:
    """An interactive bash that is a task."""
    with on_a_terminal(where, BASH, "--norc", "--noprofile", "-i") as screen:
        screen.prompt("bash")
        yield screen


def test_a_shell_of_the_tasks_user_has_a_terminal_of_its_own(inside: Screen) -> None:
    said = inside.ask("id -un; tty; stty size; echo $-; ps -o tpgid= -p $$ > /dev/null && ls -l /proc/$$/fd")
    assert os.ttyname(inside.slave) not in said.split()
    assert "/dev/pts/" in said
    assert "33 99" in said
    assert inside.is_raw()


def test_keys_do_what_they_do_in_a_shell(inside: Screen) -> None:
    inside.type(f"{SLEEPER}; echo not said\n")
    inside.expect("asleep\r\n")
    inside.type(CTRL_C)
    inside.expect("^C")
    inside.expect(PROMPT)
    assert "130" in inside.ask("echo $?")
    inside.type(f"{SLEEPER}\n")
    inside.expect("asleep\r\n")
    inside.type(CTRL_Z)
    inside.expect("Stopped")
    inside.expect(PROMPT)
    assert "sleep 60' &" in inside.ask("bg")
    assert "Running" in inside.ask("jobs")
    inside.type("fg\n")
    inside.expect("sleep 60'\r\n")
    inside.type(CTRL_C)
    inside.expect(PROMPT)
    inside.ask("(exit 7)")
    inside.type(CTRL_D)
    assert inside.process.wait(PATIENCE) == 7


def test_the_window_follows(inside: Screen) -> None:
    inside.type("""sh -c 'trap "stty size" WINCH; echo waits; sleep 60 & wait; kill $!'\n""")
    inside.expect("waits\r\n")
    inside.resize(50, 132)
    inside.expect("50 132")


def test_ten_megabytes_pass_whole(where: Place) -> None:
    script = "stty -onlcr; echo begin; head -c 10000000 /dev/zero | tr '\\0' x; printf end"
    with on_a_terminal(where, BASH, "-c", script) as screen:
        screen.expect("begin\n")
        seen, data = screen.seen.count(b"x"), screen.seen
        while b"end" not in data:
            data = os.read(screen.descriptor, 65536)
            seen += data.partition(b"end")[0].count(b"x")
        assert seen == 10_000_000
        assert screen.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_terminal_is_as_it_was_when_the_task_is_killed(where: Place, number: int) -> None:
    with on_a_terminal(where, DASH, "-c", f"echo up; read line; kill -{int(number)} $$") as screen:
        before = screen.modes()
        screen.expect("up\r\n")
        assert screen.is_raw()
        screen.type("\n")
        assert screen.process.wait(PATIENCE) == 128 + number
        assert screen.modes() == before


def test_the_terminal_is_as_it_was_when_the_session_is_ended(where: Place) -> None:
    with on_a_terminal(where, DASH, "-c", "echo up; read line") as screen:
        before = screen.modes()
        screen.expect("up\r\n")
        assert screen.is_raw()
        screen.process.send_signal(signal.SIGTERM)
        assert screen.process.wait(PATIENCE) == 128 + signal.SIGTERM
        rig.wait_until(lambda: screen.modes() == before, "the modes of before")
