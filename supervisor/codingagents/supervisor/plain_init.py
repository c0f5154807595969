"""SHELL: `coding-agents init -- COMMAND` without a session: one child, its signals, its terminal, its orphans, its end.

Behaves like dumb-init where that is known to be right. One thread, no handlers and no event loop: every signal is
blocked from the first statement on and taken by sigwaitinfo(2), so none is lost or handled twice.

Does not confine, log or decide anything; a session does (`session.py`).
"""

from __future__ import annotations

import os
import signal
import time

from codingagents.supervisor import processes, signals, terminal_handover
from codingagents.supervisor.processes import Child, Children

TYPE_CHECKING = False  # see signals.py
if TYPE_CHECKING:
    from collections.abc import Sequence

# A group that its own session leads is orphaned, so the kernel would drop these: it is stopped for real, and so are we.
_STOPS = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
_KILL_SECONDS = 1.0  # a killed process that is stuck in the kernel must not hold up the exit code
SIGNALLED = 128
ENGINE_FAILURE = 125
_KILL_AGAIN_SECONDS = 0.05  # for processes that were being made while the others were killed


def run(
    command: Sequence[str], *, grace: float, subreaper: str = "auto", parent_death_signal: int | None = None
) -> int:
    """Run `command` and return its exit code, 128 + N where a signal ended it, 127 or 126 where it could not be run.

    Signals must be blocked (`signals.block_all`). `grace` is how many seconds what the command leaves behind gets
    between TERM and KILL; nothing is waited for where nothing is left. Outside PID 1 this process becomes a subreaper
    as `subreaper` has it (`init_options`), and the command is killed with it. With `parent_death_signal` the end of
    the parent is that signal; where it has ended already, nothing is run, as if the signal had come and ended it.
    """
    children = Children()
    is_pid1 = processes.is_pid1()
    if parent_death_signal is not None:
        processes.die_with_parent(parent_death_signal)
        if os.getppid() != signals.inherited().parent:
            return SIGNALLED + parent_death_signal
    if not is_pid1 and (trouble := _adopt_orphans(subreaper)):
        if subreaper == "always":
            return _fail(f"{trouble}; the command was not run", ENGINE_FAILURE)
        _fail(f"warning: {trouble}", 0)
    terminal = terminal_handover.find_terminal()
    if terminal is not None:
        terminal_handover.release(terminal)

    def become_session_leader() -> None:
        os.setsid()
        if terminal is not None:
            terminal_handover.take(terminal)
        if not is_pid1:  # as PID 1, its end is everyone's
            processes.die_with_parent()

    try:
        child = children.fork_exec(command, env=initial_environment(), before_exec=become_session_leader)
    except OSError as error:
        return _fail(f"cannot run {command[0]!r}: {error.strerror}", processes.failure_code(error))
    ended = _forward_until_ended(children, child)
    _end_the_rest(children, grace)
    return ended.code


def _adopt_orphans(subreaper: str) -> str:
    """Become a subreaper unless it is not wanted; return why orphans will not be reaped, "" where they will."""
    if subreaper == "never":
        return "init is not PID 1 and was told not to be a subreaper, so orphans will not be reaped"
    try:
        processes.set_subreaper()
    except OSError as error:
        return f"init is not PID 1 and cannot be a subreaper ({error.strerror}), so orphans will not be reaped"
    return ""


def _fail(sentence: str, code: int) -> int:
    try:
        os.write(2, f"coding-agents: {sentence}\n".encode(errors="backslashreplace"))
    except OSError:  # it is closed, or nobody reads it
        return code
    return code


def initial_environment() -> dict[bytes, bytes]:
    """Return the environment as this process got it: CPython's locale coercion (PEP 538) adds LC_CTYPE to its own."""
    try:
        with open("/proc/self/environ", "rb") as file:
            block = file.read()
    except OSError:
        return dict(os.environb)
    return {name: value for name, equals, value in (entry.partition(b"=") for entry in block.split(b"\0")) if equals}


def _forward_until_ended(children: Children, child: Child) -> processes.Exit:
    while child.exit is None:
        number = signal.sigwaitinfo(signals.CATCHABLE).si_signo
        if number == signal.SIGCHLD:
            _reap(children)
        elif number in _STOPS:
            children.kill_group(child, signal.SIGSTOP)
            if signal.SIGCONT not in signal.sigpending():  # stopping would drop it, and nobody sends it twice
                os.kill(os.getpid(), signal.SIGSTOP)  # as PID 1 of a namespace the kernel ignores it
        else:
            children.kill_group(child, number)
    return child.exit


def _reap(children: Children) -> None:
    if len(children.reap()) == processes.REAP_AT_ONCE:
        signal.raise_signal(signal.SIGCHLD)  # there may be more; whatever signal came meanwhile is heard before


def _end_the_rest(children: Children, grace: float) -> None:
    """TERM, and CONT for what is stopped; KILL after `grace` seconds."""
    if not children.any_left():
        return
    children.signal_everyone(signal.SIGTERM)
    children.signal_everyone(signal.SIGCONT)
    deadline = time.monotonic() + grace
    while children.any_left() and (left := deadline - time.monotonic()) > 0:
        signal.sigtimedwait({signal.SIGCHLD}, left)
        _reap(children)
    deadline = time.monotonic() + _KILL_SECONDS
    while children.any_left() and time.monotonic() < deadline:
        children.signal_everyone(signal.SIGKILL)
        signal.sigtimedwait({signal.SIGCHLD}, _KILL_AGAIN_SECONDS)
        _reap(children)
