"""Orphans are reaped while the command runs; what it leaves is terminated, then killed."""

import os
import signal
import time

from init_modes import INIT, Mode, every_mode, stat_fields, wait_until

DAEMON = "setsid sh -c '{trap}echo up; while :; do sleep .05; done' &"  # orphaned when the outer shell ends


@every_mode
def test_orphans_are_reaped_while_the_command_runs(mode: Mode) -> None:
    """Twenty orphans end; the command still runs; not one is a zombie."""
    script = "for i in $(seq 20); do (sleep .1 & echo $!); done; echo all; exec sleep 60"
    with mode.start([*INIT, "sh", "-c", script]) as init:
        assert len([init.line() for _ in range(20)]) == 20
        assert init.line() == "all"

        def only_the_command_is_left() -> bool:
            below = [pid for pid in init.left() if pid not in {init.pid, init.process.pid}]
            return len(below) == 1 and not init.zombies()

        wait_until(only_the_command_is_left, "orphans reaped")
        assert init.process.poll() is None


@every_mode
def test_a_double_forked_daemon_is_terminated_when_the_command_ends(mode: Mode) -> None:
    """It left the group and the session, and is found all the same; the code stays the command's."""
    script = DAEMON.format(trap='trap "echo terminated; exit" TERM; ') + " sleep .2; exit 6"
    with mode.start([*INIT, "sh", "-c", script]) as init:
        assert init.line() == "up"
        assert init.line() == "terminated"
        assert init.wait() == 6
        assert init.left() == []


@every_mode
def test_what_ignores_term_is_killed_after_the_grace(mode: Mode) -> None:
    """The grace is waited for, and not much longer."""
    script = DAEMON.format(trap='trap "" TERM; ') + " sleep .2; echo end; exit 6"
    with mode.start([*INIT, "--grace", "0.5", "sh", "-c", script]) as init:
        assert init.line() == "up"
        assert init.line() == "end"
        start = time.monotonic()
        assert init.wait() == 6
        assert 0.4 < time.monotonic() - start < 3
        assert init.left() == []


@every_mode
def test_a_stopped_process_does_not_cost_the_grace(mode: Mode) -> None:
    """TERM alone would stay pending on it until the grace is over."""
    script = "setsid sh -c 'kill -STOP $$' & echo $!; sleep .2; exit 0"
    with mode.start([*INIT, "--grace", "60", "sh", "-c", script]) as init:
        assert init.line()
        assert init.wait() == 0
        assert init.left() == []


@every_mode
def test_nothing_is_waited_for_where_nothing_is_left(mode: Mode) -> None:
    """A long grace costs a well-behaved command no time."""
    start = time.monotonic()
    with mode.start([*INIT, "--grace", "60", "true"]) as init:
        assert init.wait() == 0
    assert time.monotonic() - start < 5


@every_mode
def test_when_init_is_killed_so_is_the_command(mode: Mode) -> None:
    """As PID 1 by the namespace's end, elsewhere by the parent-death signal."""
    with mode.start([*INIT, "sh", "-c", "echo up; exec sleep 60"]) as init:
        assert init.line() == "up"
        init.signal(signal.SIGKILL)
        assert init.wait() != 0  # unshare reports its child's death by a signal in its own way
        wait_until(lambda: init.left() == [], "the command died with init")


@every_mode
def test_the_command_leads_a_session_of_its_own(mode: Mode) -> None:
    """So its group can be signalled without reaching init."""
    with mode.start([*INIT, "sh", "-c", "echo up; exec sleep 60"]) as init:
        assert init.line() == "up"
        # In the middle of an exec a process shows no environment, by which it is known.
        (command,) = wait_until(
            lambda: [pid for pid in init.left() if pid not in {init.pid, init.process.pid}], "there is no command"
        )
        _, parent, group, session, *_ = stat_fields(command)
        assert (int(parent), int(group), int(session)) == (init.pid, command, command)
        assert os.getsid(init.pid) != command
