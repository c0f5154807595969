"""A task's terminal on the requester's, with real shells on real pseudo-terminals, at a runner that stands in.

With a whole session: integration/test_a_terminal_through_the_runner.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pty
import signal
import socket
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from codingagents.supervisor.task_wire import Request
from init_modes import wait_until
from task_stand_in import install, standing_in
from terminal_rig import CTRL_C, CTRL_D, CTRL_Z, ENVIRONMENT, PROMPT, Terminal

OUTER = "outer> "
PLAIN = ("--norc", "--noprofile", "-i")
PATIENCE = 20
SLEEPER = "sh -c 'echo asleep; exec sleep 60'"  # says so once it is the foreground

RESIZED = """sh -c 'trap "stty size" WINCH; echo waits; sleep 60 & wait; kill $!'"""


class Screen(Terminal):
    """A terminal whose other side stays open, so that its modes can be looked at."""

    def __init__(self, descriptor: int, other: int) -> None:
        super().__init__(descriptor)
        self.other = other

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self.other)

    def is_raw(self) -> bool:
        return not self.modes()[3] & termios.ISIG


Running = tuple[subprocess.Popen[bytes], Screen]


@contextlib.contextmanager
def on_a_terminal(*argv: str, prompt: str = PROMPT) -> Iterator[Running]:
    """Start a program that leads the session of a new terminal."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(master, (33, 99))
    environment = {**ENVIRONMENT, "PS1": prompt}
    process = subprocess.Popen(["setsid", "--ctty", *argv], env=environment, stdin=slave, stdout=slave, stderr=slave)
    try:
        yield process, Screen(master, slave)
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


@pytest.fixture
def bash(tmp_path: Path) -> Iterator[str]:
    with standing_in(tmp_path):
        yield install(tmp_path, os.getuid())


@pytest.fixture
def inside(bash: str) -> Iterator[Running]:
    """An interactive bash as a task, at its first prompt."""
    with on_a_terminal(bash, *PLAIN) as (process, screen):
        screen.expect(PROMPT)
        yield process, screen


def test_the_shell_has_a_terminal_of_its_own_with_the_same_window(inside: Running) -> None:
    _, screen = inside
    said = screen.ask("tty; stty size; echo $-")
    assert os.ttyname(screen.other) not in said
    assert "/dev/pts/" in said
    assert "33 99" in said
    assert "m" in said.split()[-2]  # it has job control


def test_ctrl_c_ends_the_foreground_job_and_nothing_else(inside: Running) -> None:
    process, screen = inside
    screen.type(f"{SLEEPER}; echo not said\n")
    screen.expect("asleep\r\n")
    screen.type(CTRL_C)
    screen.expect("^C")
    screen.expect(PROMPT)
    assert "130" in screen.ask("echo $?")
    assert process.poll() is None


def test_ctrl_z_stops_a_job_and_fg_and_bg_go_on_with_it(inside: Running) -> None:
    _, screen = inside
    screen.type("sh -c 'echo begun; read line; echo got $line'\n")
    screen.expect("begun\r\n")
    screen.type(CTRL_Z)
    screen.expect("Stopped")
    screen.expect(PROMPT)
    screen.type("fg\n")
    screen.expect("read line")  # bash says which
    screen.type("this\n")
    screen.expect("got this")
    screen.expect(PROMPT)
    screen.type(f"{SLEEPER}\n")
    screen.expect("asleep\r\n")
    screen.type(CTRL_Z)
    screen.expect("Stopped")
    screen.expect(PROMPT)
    assert "sleep 60' &" in screen.ask("bg")
    assert "Running" in screen.ask("jobs")
    assert "ended 143" in screen.ask("kill %1; wait %1; echo ended $?")


def test_a_resize_reaches_the_task(inside: Running) -> None:
    _, screen = inside
    screen.type(f"{RESIZED}\n")
    screen.expect("waits\r\n")
    screen.resize(50, 132)
    screen.expect("50 132")


def test_ctrl_d_is_the_end_and_the_exit_code_the_shells(inside: Running) -> None:
    process, screen = inside
    screen.ask("(exit 7)")
    screen.type(CTRL_D)
    assert process.wait(PATIENCE) == 7


def by_exit(_: subprocess.Popen[bytes], screen: Screen, _task: int) -> int:
    screen.type("\n")
    return 3


def by_signal_to_the_task(number: int) -> Callable[[subprocess.Popen[bytes], Screen, int], int]:
    def end(_: subprocess.Popen[bytes], _screen: Screen, task: int) -> int:
        os.kill(task, number)
        return -number

    return end


def by_signal_to_the_client(number: int) -> Callable[[subprocess.Popen[bytes], Screen, int], int]:
    def end(client: subprocess.Popen[bytes], _: Screen, _task: int) -> int:
        client.send_signal(number)
        return -number

    return end


@pytest.mark.parametrize(
    "end",
    [
        by_exit,
        by_signal_to_the_task(signal.SIGKILL),
        by_signal_to_the_task(signal.SIGTERM),
        by_signal_to_the_client(signal.SIGTERM),
        by_signal_to_the_client(signal.SIGHUP),
    ],
)
def test_the_terminal_is_as_it_was_on_each_way_out(
    bash: str, end: Callable[[subprocess.Popen[bytes], Screen, int], int]
) -> None:
    with on_a_terminal("sleep", "0") as (_, screen):
        before = screen.modes()
    with on_a_terminal(bash, "-c", "echo task $$ is up; read line; exit 3") as (process, screen):
        screen.expect("task ")
        task = int(screen.expect(" is up").removesuffix(" is up"))
        assert screen.is_raw()  # or nothing is shown here
        code = end(process, screen, task)
        assert process.wait(PATIENCE) == code
        assert screen.modes() == before


def goes_away(connection: socket.socket, _request: Request, _descriptors: list[int]) -> None:
    """Give the client a terminal, have it raw, and end the connection."""
    master, slave = pty.openpty()
    socket.send_fds(connection, [b"terminal\nstarted 7\n"], [master])
    os.write(slave, b"begun")
    os.read(slave, 1)
    os.close(slave)
    os.close(master)


def test_a_runner_that_goes_away_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    bash = install(tmp_path, os.getuid())
    with standing_in(tmp_path, goes_away), on_a_terminal(bash, "-c", ":") as (process, screen):
        before = screen.modes()
        screen.expect("begun")
        assert screen.is_raw()
        screen.type("\n")
        screen.expect("the session ended before the command did")
        assert process.wait(PATIENCE) == 125
        assert screen.modes() == before


def test_ten_megabytes_pass_whole_and_the_last_byte_too(bash: str) -> None:
    script = "stty -onlcr; head -c 10000000 /dev/zero | tr '\\0' x; printf end"
    with on_a_terminal(bash, "-c", script) as (process, screen):
        seen, data = 0, b""
        while not data.endswith(b"end"):
            data = os.read(screen.descriptor, 65536)
            seen += data.count(b"x")
        assert seen == 10_000_000
        assert process.wait(PATIENCE) == 0


def test_what_is_typed_faster_than_it_is_read_is_not_lost(bash: str) -> None:
    data = bytes(range(256)) * 800
    script = f"stty raw -echo; echo go; sleep 0.1; head -c {len(data)} | md5sum"
    with on_a_terminal(bash, "-c", script) as (process, screen):
        screen.expect("go")
        left = memoryview(data)
        while left:
            left = left[os.write(screen.descriptor, left[:4096]) :]
        screen.expect(hashlib.md5(data).hexdigest())
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGSTOP])
def test_a_client_stopped_by_its_shell_gives_the_terminal_back_and_takes_it_again(bash: str, number: int) -> None:
    with on_a_terminal("bash", *PLAIN, prompt=OUTER) as (_, screen):
        screen.expect(OUTER)
        screen.type(f"PS1='{PROMPT}' {bash} {' '.join(PLAIN)}\n")
        screen.expect(f"\r\n{PROMPT}")
        os.kill(os.tcgetpgrp(screen.descriptor), number)
        screen.expect("Stopped")
        screen.expect(OUTER)
        assert not screen.is_raw()
        screen.type("fg\n")
        screen.expect(bash)
        wait_until(screen.is_raw, "raw again")
        assert "again" in screen.ask("echo again")
        screen.type("exit 4\n")
        screen.expect(OUTER)
        screen.type("echo code $?\n")
        screen.expect("code 4")


def test_a_shell_puts_the_terminal_back_for_a_client_that_was_killed(bash: str) -> None:
    with on_a_terminal("bash", *PLAIN, prompt=OUTER) as (_, screen):
        screen.expect(OUTER)
        screen.type(f"{bash} -c 'echo task is $((40 + 2)); read line'\n")
        screen.expect("task is 42")
        assert screen.is_raw()
        os.kill(os.tcgetpgrp(screen.descriptor), signal.SIGKILL)
        screen.expect("Killed")
        screen.expect(OUTER)
        assert not screen.is_raw()


def test_a_client_in_the_background_leaves_the_terminal_alone_until_it_is_brought_back(bash: str) -> None:
    with on_a_terminal("bash", *PLAIN, prompt=OUTER) as (_, screen):
        screen.expect(OUTER)
        screen.type(f"{bash} -c 'echo from below; read x; echo got $x' &\n")
        screen.expect("from below\r")
        screen.type("echo still $((40 + 2))\n")
        screen.expect("still 42")
        screen.expect(OUTER)
        screen.type("fg\n")
        screen.expect("read x")
        wait_until(screen.is_raw, "raw in the foreground")
        screen.type("this\n")
        screen.expect("got this")
        screen.expect(OUTER)
        assert not screen.is_raw()


def test_a_hang_up_of_the_terminal_hangs_the_task_up(bash: str, tmp_path: Path) -> None:
    script = f"trap 'echo hup > {tmp_path}/said; exit' HUP; echo up; while :; do read x || sleep 0.1; done"
    master, slave = pty.openpty()
    argv = ["setsid", "--ctty", bash, "-c", script]
    with subprocess.Popen(argv, env=ENVIRONMENT, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        Terminal(master).expect("up\r\n")
        os.close(master)
        process.wait(PATIENCE)
    wait_until((tmp_path / "said").exists, "the task was told")


def test_output_that_is_redirected_is_no_terminals(bash: str, tmp_path: Path) -> None:
    with on_a_terminal("/bin/sh", "-c", f"{bash} -c 'echo to the file >&2' 2> {tmp_path}/err") as (process, _):
        assert process.wait(PATIENCE) == 0
    assert (tmp_path / "err").read_bytes() == b"to the file\n"


def test_a_task_that_lets_its_terminal_go_is_not_hung_up(bash: str) -> None:
    script = "exec < /dev/null > /dev/null 2>&1; sleep 0.3; echo back > /dev/tty; exit 6"
    with on_a_terminal(bash, "-c", script) as (process, screen):
        screen.expect("back")
        assert process.wait(PATIENCE) == 6


def test_dash_works_too(bash: str) -> None:
    with on_a_terminal(bash.removesuffix("bash") + "dash", "-i") as (process, screen):
        screen.expect(PROMPT)
        screen.type(f"{SLEEPER}\n")
        screen.expect("asleep\r\n")
        screen.type(CTRL_C)
        screen.expect(PROMPT)
        screen.type("exit 5\n")
        assert process.wait(PATIENCE) == 5
