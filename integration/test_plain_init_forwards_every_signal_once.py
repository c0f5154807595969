"""A child that prints what it receives, as dumb-init's tests have it."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from codingagents.supervisor.signals import CATCHABLE
from init_modes import INIT, Init, Mode, every_mode, stat_fields, wait_until

PRINTER = """
import os, signal
caught = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
signal.pthread_sigmask(signal.SIG_BLOCK, caught)
print("ready", flush=True)
while True:
    print(int(signal.sigwaitinfo(caught).si_signo), flush=True)
"""
STOPS = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
FORWARDED = sorted(CATCHABLE - STOPS - {signal.SIGCHLD})


def start_printer(mode: Mode) -> contextlib.AbstractContextManager[Init]:
    return mode.start([*INIT, "--", sys.executable, "-I", "-S", "-c", PRINTER])


def child_of(init: Init) -> int:
    with open(f"/proc/{init.pid}/task/{init.pid}/children") as file:
        return int(file.read().split()[0])


@every_mode
def test_every_catchable_signal_arrives_once_and_alone(mode: Mode) -> None:
    """A signal that came twice, or brought another along, would be read in the next one's place."""
    with start_printer(mode) as init:
        assert init.line() == "ready"
        for number in FORWARDED:
            init.signal(number)
            assert init.line() == str(number)
        assert len(FORWARDED) > 55


@every_mode
def test_signals_that_arrive_together_all_arrive(mode: Mode) -> None:
    """While init is stopped signals pile up; each kind is forwarded once when it goes on."""
    with start_printer(mode) as init:
        assert init.line() == "ready"
        child = child_of(init)
        init.signal(signal.SIGSTOP)
        wait_until(lambda: stat_fields(init.pid)[0] == "T", "init stopped from outside")
        burst = [signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGTERM, signal.SIGRTMIN]
        for number in burst:
            init.signal(number)
        init.signal(signal.SIGCONT)
        got = {int(init.line()) for _ in range(len(burst) + 1)}
        assert got == {*burst, signal.SIGCONT}
        os.kill(child, signal.SIGWINCH)  # the child itself is next to be heard: nothing came twice
        assert init.line() == str(int(signal.SIGWINCH))


@every_mode
@pytest.mark.parametrize("number", sorted(STOPS), ids=lambda number: number.name)
def test_stop_signals_stop_the_group_and_continue_wakes_it(mode: Mode, number: signal.Signals) -> None:
    """An outer shell's Ctrl-Z stops the job: child and, where the kernel lets it, init; fg wakes both."""
    with start_printer(mode) as init:
        assert init.line() == "ready"
        child = child_of(init)
        init.signal(number)
        wait_until(lambda: stat_fields(child)[0] == "T", "the child stopped")
        if not mode.is_pid1:  # a namespace's PID 1 cannot stop itself
            wait_until(lambda: stat_fields(init.pid)[0] == "T", "init stopped")
        init.signal(signal.SIGCONT)
        assert init.line() == str(int(signal.SIGCONT))
        wait_until(lambda: stat_fields(init.pid)[0] != "T", "init goes on")


@every_mode
def test_a_storm_of_stops_and_continues_is_survived(mode: Mode) -> None:
    """However they overtake one another, init hears what comes next, once it is continued, and so does its child."""
    with mode.start([*INIT, "--", "sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep .01; done"]) as init:
        assert init.line() == "up"
        for _ in range(500):
            for number in (*STOPS, signal.SIGCONT, signal.SIGWINCH):
                init.signal(number)
        init.signal(signal.SIGTERM)

        def ended() -> bool:
            with contextlib.suppress(ProcessLookupError):
                init.signal(signal.SIGCONT)  # one that came just before a stop is lost: such are stops, signal(7)
            return init.process.poll() is not None

        wait_until(ended, "init ends")
        assert init.wait() == 9


@every_mode
def test_a_storm_of_signals_costs_no_code(mode: Mode) -> None:
    """The last one is heard, whatever came before."""
    script = "trap : USR1; trap 'exit 8' TERM; echo up; while :; do sleep .01; done"
    with mode.start([*INIT, "--", "sh", "-c", script]) as init:
        assert init.line() == "up"
        for _ in range(5000):
            init.signal(signal.SIGUSR1)
        init.signal(signal.SIGTERM)
        assert init.wait() == 8


@every_mode
def test_a_signal_reaches_the_whole_group(mode: Mode) -> None:
    """A shell without job control leaves its children in its group: they get the signal too."""
    job = "(trap 'echo job; exit' USR1; echo up; while :; do sleep .1; done)"
    script = f"trap 'echo shell' USR1; {job} & wait; wait; exit 4"
    with mode.start([*INIT, "sh", "-c", script]) as init:
        assert init.line() == "up"
        init.signal(signal.SIGUSR1)
        assert {init.line(), init.line()} == {"shell", "job"}
        assert init.wait() == 4


SLOW_START = """
import sys
from codingagents.supervisor import signals
signals.block_all()  # as the entry does first
print("blocked", flush=True)
sys.stdin.read()  # stands for slow imports
from codingagents.supervisor.__main__ import main
sys.exit(main(["init", "--", "sleep", "60"]))
"""


@every_mode
def test_a_signal_sent_during_start_up_is_not_lost(mode: Mode) -> None:
    """From the first statement on signals stay pending until the child is there to get them."""
    with mode.start([sys.executable, "-I", "-c", SLOW_START], stdin=subprocess.PIPE) as init:
        assert init.line() == "blocked"
        init.signal(signal.SIGTERM)
        assert init.process.stdin is not None
        init.process.stdin.close()
        assert init.wait() == 128 + signal.SIGTERM
