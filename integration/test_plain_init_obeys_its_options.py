"""Which orphans it adopts, and what its parent's end is to it; each with the control that shows the difference."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from init_modes import INIT, MODES, Mode, every_mode, stat_fields, wait_until

SUBREAPER = MODES[-1]
NEVER = "coding-agents: warning: init is not PID 1 and was told not to be a subreaper, so orphans will not be reaped\n"
REFUSED = "init is not PID 1 and cannot be a subreaper (Operation not permitted), so orphans will not be reaped"
# A process between the command and the orphan ends at once; the command says who the orphan is, and stays.
ORPHANING = "sh -c 'sleep 60 & echo $!'; exec sleep 61"


def parent_of_an_orphan(mode: Mode, *options: str) -> tuple[int, int, str]:
    """Return the orphan's parent, init, and what init said."""
    with mode.start([*INIT, *options, "--", "sh", "-c", ORPHANING], stderr=subprocess.PIPE) as init:
        init.line()

        def orphan() -> int:
            """Its PID as this process sees it: in a namespace it told another."""
            below = [pid for pid in init.left() if pid not in {init.pid, init.process.pid}]
            followers = [pid for pid in below if stat_fields(pid)[2:3] not in ([], [str(pid)])]
            return followers[0] if len(below) == 2 and len(followers) == 1 else 0

        parent = int(stat_fields(wait_until(orphan, "the process between is gone"))[1])
        init.signal(signal.SIGTERM)
        assert init.wait() == 128 + signal.SIGTERM
        assert init.process.stderr is not None
        return parent, init.pid, init.process.stderr.read().decode()


@every_mode
@pytest.mark.parametrize("option", [(), ("--subreaper", "auto"), ("--subreaper", "always")], ids=" ".join)
def test_orphans_become_inits(mode: Mode, option: tuple[str, ...]) -> None:
    """As PID 1 by the kernel's rule, elsewhere as a subreaper; nothing is said."""
    parent, init, said = parent_of_an_orphan(mode, *option)
    assert (parent, said) == (init, "")


def test_without_the_subreaper_orphans_are_another_inits() -> None:
    """The control of the test above, and a warning of what that means."""
    parent, init, said = parent_of_an_orphan(SUBREAPER, "--subreaper", "never")
    assert parent != init
    assert said == NEVER


def test_as_pid_1_nothing_is_to_be_warned_of() -> None:
    """It reaps whatever it is told."""
    parent, init, said = parent_of_an_orphan(MODES[0], "--subreaper", "never")
    assert (parent, said) == (init, "")


# Runs what follows where the kernel refuses prctl(PR_SET_CHILD_SUBREAPER), 36, with EPERM: ld nr; jeq prctl; ld
# args[0]; jeq 36; ret ERRNO | EPERM; ret ALLOW.
REFUSING = """
import os, struct, sys
from codingagents.trust import linux
number = linux.machine().number("prctl")
program = [(0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 16), (0x15, 0, 1, 36), (6, 0, 0, 0x50001),
           (6, 0, 0, 0x7FFF0000)]
linux.set_no_new_privs()
linux.install_filter(b"".join(struct.pack("=HBBI", *each) for each in program))
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("option", "code", "said", "output"),
    [
        ("auto", 0, f"coding-agents: warning: {REFUSED}\n", "ran\n"),
        ("always", 125, f"coding-agents: {REFUSED}; the command was not run\n", ""),
    ],
)
def test_where_the_kernel_refuses_it_is_said_or_nothing_is_run(option: str, code: int, said: str, output: str) -> None:
    """Whoever relies on it says always."""
    command = [sys.executable, "-I", "-c", REFUSING, *INIT, f"--subreaper={option}", "--", "echo", "ran"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stderr, done.stdout) == (code, said, output)


# Says that TERM came, and ends.
TOLD = ["sh", "-c", "trap 'echo told; exit 0' TERM; echo up; while :; do sleep .05; done"]
# A parent that can be killed on its own; what it starts does not die with it.
PARENT = ["sh", "-c", '"$@" & wait', "sh"]


def init_below_a_parent(mode: Mode, *options: str) -> list[str]:
    return [*([] if mode.is_pid1 else PARENT), *INIT, *options, "--", *TOLD]


@every_mode
def test_the_end_of_its_parent_is_the_signal_that_was_asked_for(mode: Mode) -> None:
    """In place of the KILL of `unshare --kill-child`, which would leave no time to be told."""
    with mode.start(init_below_a_parent(mode, "--parent-death-signal", "TERM")) as init:
        assert init.line() == "up"
        os.kill(init.process.pid, signal.SIGKILL)
        assert init.line() == "told"
        wait_until(lambda: [pid for pid in init.left() if pid != init.process.pid] == [], "nothing is left")


def test_without_it_init_outlives_its_parent() -> None:
    """The control."""
    with SUBREAPER.start(init_below_a_parent(SUBREAPER)) as init:
        assert init.line() == "up"
        os.kill(init.process.pid, signal.SIGKILL)
        assert init.process.wait(10) == -signal.SIGKILL
        (left,) = [pid for pid in init.left() if is_init(pid)]
        os.kill(left, signal.SIGTERM)  # the first that it hears
        assert init.line() == "told"


def is_init(pid: int) -> bool:
    return b"codingagents.supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


SLOW_START = """
import os, sys
from codingagents.supervisor import signals
signals.block_all()  # as the entry does first
print(os.getppid(), flush=True)
sys.stdin.read()  # stands for slow imports
from codingagents.supervisor.__main__ import main
code = main(["init", *sys.argv[1:], "--", "echo", "ran"])
print("code", code, flush=True)
"""


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--parent-death-signal=TERM",), ["code 143"]), ((), ["ran", "code 0"])],
    ids=["with", "control"],
)
def test_a_parent_that_ends_while_init_starts_is_noticed(options: tuple[str, ...], said: list[str]) -> None:
    """No signal comes of that: it was not asked for yet. Nothing is run then."""
    read_end, write_end = os.pipe()
    argv = ["bash", "-c", f'"$@" <&{read_end} & wait', "sh", sys.executable, "-I", "-c", SLOW_START, *options]
    with SUBREAPER.start(argv, pass_fds=[read_end]) as init:
        parent = int(init.line())
        assert parent == init.process.pid
        os.kill(parent, signal.SIGKILL)
        assert init.process.wait(10) == -signal.SIGKILL
        os.close(write_end)
        os.close(read_end)
        assert [init.line() for _ in said] == said
