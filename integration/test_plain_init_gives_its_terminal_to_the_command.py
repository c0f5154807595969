"""A real shell on a real pseudo-terminal, started as an engine does with `-t`: init leads the terminal's session."""

import os
import shlex
import signal

import pytest

from init_modes import INIT, MODES, Mode, every_mode, stat_fields, wait_until
from terminal_rig import BASH, CTRL_C, CTRL_D, CTRL_Z, DASH, PROMPT, on_a_terminal

every_shell = pytest.mark.parametrize("shell", [BASH, DASH], ids=["bash", "dash"])
# What tells its window's size when it changes, and ends by INT; u''p is not what the terminal echoes.
RESIZED = "trap 'echo size=$(stty size)' WINCH; trap 'echo in''t; exit 3' INT; echo u''p; while :; do sleep .05; done"


@every_mode
@every_shell
def test_ctrl_c_reaches_the_foreground_job_only(mode: Mode, shell: tuple[str, ...]) -> None:
    """The job dies by INT, the shell goes on and says 130, and its own code becomes init's."""
    with on_a_terminal(mode, shell) as (init, terminal):
        assert "job control" not in terminal.expect(PROMPT)
        terminal.type("sleep 60\n")
        terminal.wait_for_foreground("sleep")
        terminal.type(CTRL_C)
        terminal.expect(PROMPT)
        assert "code=130" in terminal.ask("echo code=$?")
        terminal.type("exit 5\n")
        assert init.wait() == 5


@every_mode
def test_ctrl_c_reaches_a_command_that_never_asks_for_the_terminal(mode: Mode) -> None:
    """A shell takes a free terminal by opening it; this one was given it."""
    with on_a_terminal(mode, ["sleep", "60"]) as (init, terminal):
        terminal.wait_for_foreground("sleep")
        terminal.type(CTRL_C)
        assert init.wait() == 128 + signal.SIGINT


@every_mode
@every_shell
def test_the_shell_has_job_control(mode: Mode, shell: tuple[str, ...]) -> None:
    """Ctrl-Z stops the job and gives the prompt back; fg goes on with it."""
    with on_a_terminal(mode, shell) as (init, terminal):
        terminal.expect(PROMPT)
        terminal.type("cat\n")
        terminal.wait_for_foreground("cat")
        terminal.type(CTRL_Z)
        assert "Stopped" in terminal.expect(PROMPT)
        terminal.type("fg\n")
        terminal.wait_for_foreground("cat")
        terminal.type("hello\n")
        terminal.expect("hello\r\nhello\r\n")  # the echo, and cat's answer
        terminal.type(CTRL_D)
        terminal.expect(PROMPT)
        terminal.type("exit\n")
        assert init.wait() == 0


@every_mode
@every_shell
def test_background_jobs_run_and_stop_where_they_want_the_terminal(mode: Mode, shell: tuple[str, ...]) -> None:
    """bg lets a stopped job run, Ctrl-C is not for it; one that reads is stopped, and with tostop one that writes."""
    with on_a_terminal(mode, shell) as (init, terminal):
        terminal.expect(PROMPT)
        terminal.type("sleep 60\n")
        terminal.wait_for_foreground("sleep")
        terminal.type(CTRL_Z)
        terminal.expect(PROMPT)
        terminal.ask("bg")
        terminal.type("sleep 61\n")
        terminal.wait_for_foreground("sleep")
        terminal.type(CTRL_C)
        terminal.expect(PROMPT)
        assert "Running" in terminal.ask("jobs")
        terminal.ask("kill %1; wait")
        terminal.ask("cat &")
        wait_until(lambda: "Stopped" in terminal.ask("jobs"), "a reader in the background stops")
        terminal.ask("kill -KILL %1; wait")
        terminal.ask("stty tostop; /bin/echo wri''tten &")
        wait_until(lambda: "Stopped" in terminal.ask("jobs"), "a writer in the background stops")
        terminal.type("fg\n")
        terminal.expect("written\r\n")
        terminal.expect(PROMPT)
        terminal.type("exit 6\n")
        assert init.wait() == 6


@every_mode
@every_shell
def test_the_window_size_is_the_commands(mode: Mode, shell: tuple[str, ...]) -> None:
    """It can be asked for, and a change is told to the foreground job."""
    with on_a_terminal(mode, shell) as (init, terminal):
        terminal.resize(24, 80)
        terminal.expect(PROMPT)
        assert "24 80" in terminal.ask("stty size")
        terminal.type(f"sh -c {shlex.quote(RESIZED)}\n")
        terminal.expect("up\r\n")
        terminal.resize(33, 101)
        terminal.expect("size=33 101")
        terminal.type(CTRL_C)
        terminal.expect("int\r\n")
        terminal.expect(PROMPT)
        terminal.type("exit\n")
        assert init.wait() == 3


@every_mode
def test_a_job_that_dies_leaves_the_shell_its_terminal(mode: Mode) -> None:
    """bash puts the modes back after a job that a signal ended, which it can only where the terminal is its own."""
    with on_a_terminal(mode) as (init, terminal):
        terminal.expect(PROMPT)
        terminal.ask("sh -c 'stty -icanon -echo; kill -KILL $$'")
        words = terminal.ask("stty -a").split()
        assert {"icanon", "echo"} <= set(words)
        terminal.type("exit\n")
        assert init.wait() == 0


@every_mode
@every_shell
def test_a_job_that_is_stopped_when_the_shell_exits_is_ended(mode: Mode, shell: tuple[str, ...]) -> None:
    """At once: a stopped process, which would sit out the grace, is continued too."""
    with on_a_terminal(mode, shell, init=[*INIT, "--grace", "60"]) as (init, terminal):
        terminal.expect(PROMPT)
        terminal.type("cat\n")
        terminal.wait_for_foreground("cat")
        terminal.type(CTRL_Z)
        terminal.expect(PROMPT)
        terminal.ask("exit 4")  # the shell warns once
        terminal.type("exit 4\n")
        assert init.wait() == 4
        assert init.left() == []


@every_mode
def test_the_shell_is_stopped_and_continued_from_outside(mode: Mode) -> None:
    """By TSTP and CONT to init, as `docker kill` sends them; the terminal is the shell's as before."""
    with on_a_terminal(mode) as (init, terminal):
        terminal.expect(PROMPT)
        shell = os.tcgetpgrp(terminal.descriptor)
        init.signal(signal.SIGTSTP)
        wait_until(lambda: stat_fields(shell)[0] == "T", "the shell stopped")
        terminal.type("echo on''ce\n")
        init.signal(signal.SIGCONT)
        terminal.expect("once\r\n")
        terminal.expect(PROMPT)
        terminal.type("sleep 60\n")
        terminal.wait_for_foreground("sleep")
        terminal.type(CTRL_C)
        terminal.expect(PROMPT)
        terminal.type("exit 5\n")
        assert init.wait() == 5


@every_mode
def test_closing_the_terminal_ends_the_shell_and_init(mode: Mode) -> None:
    """The hang-up goes to the shell, which leads the session now."""
    with on_a_terminal(mode) as (init, terminal):
        terminal.expect(PROMPT)
        os.close(terminal.descriptor)
        assert init.wait() == 128 + signal.SIGHUP
        wait_until(lambda: init.left() == [], "nothing is left")


@every_mode
def test_a_terminal_of_an_outer_session_is_usable_but_stays_there(mode: Mode) -> None:
    """It is not stolen: the shell says that it has no job control, reads and writes, and ends as asked."""
    with on_a_terminal(mode, outer_session=True) as (init, terminal):
        assert "no job control" in terminal.expect(PROMPT)
        terminal.type("exit 7\n")
        assert init.wait() == 7


@every_mode
@every_shell
def test_as_a_job_of_a_shell_init_passes_on_what_the_keys_send(mode: Mode, shell: tuple[str, ...]) -> None:
    """Ctrl-Z stops command and init, fg continues both; the window's change and Ctrl-C reach the command too."""
    job = shlex.join([*mode.prefix, *INIT, "--", "sh", "-c", RESIZED])
    with on_a_terminal(MODES[-1], shell, init=()) as (outer, terminal):
        terminal.expect(PROMPT)
        terminal.type(job + "\n")
        terminal.expect("up\r\n")
        terminal.resize(33, 101)
        terminal.expect("size=33 101")
        terminal.type(CTRL_Z)
        assert "Stopped" in terminal.expect(PROMPT)
        session = stat_fields(outer.pid)[3]

        def states() -> set[str]:
            """Of the command and its sleep, which are in a session of their own."""
            found = [stat_fields(pid) for pid in outer.left()]
            return {fields[0] for fields in found if fields and fields[3] != session}

        wait_until(lambda: states() - {"Z"} == {"T"}, "the command stopped")  # its sleep may have ended just before
        terminal.type("fg\n")
        wait_until(lambda: os.tcgetpgrp(terminal.descriptor) != outer.pid, "init is in the foreground again")
        terminal.resize(34, 102)
        terminal.expect("size=34 102")
        terminal.type(CTRL_C)
        terminal.expect("int\r\n")
        terminal.expect(PROMPT)
        assert "code=3" in terminal.ask("echo code=$?")
        terminal.type("exit 0\n")
        assert outer.wait() == 0


@every_mode
def test_in_the_background_init_is_not_stopped_by_what_it_says(mode: Mode) -> None:
    """With tostop a background process that writes to its terminal is stopped by TTOU; init has given its own up."""
    job = shlex.join([*mode.prefix, *INIT, "--", "no-such-program"])
    with on_a_terminal(MODES[-1], init=()) as (outer, terminal):
        terminal.expect(PROMPT)
        terminal.ask("stty tostop; /bin/echo control &")
        wait_until(lambda: "Stopped" in terminal.ask("jobs"), "the control stops")
        terminal.ask("kill -KILL %1; wait")
        assert "cannot run 'no-such-program'" in terminal.ask(f"{job} & wait $!; echo code=$?")
        terminal.type("exit 0\n")
        assert outer.wait() == 0
