"""SHELL: gives init's controlling terminal to its main child's session, so that job control and Ctrl-C are the child's.

Works where init leads the terminal's session, as an engine starts it (`docker run -t`). A terminal that belongs to an
outer session, such as an interactive shell's, stays there: the child can use it, without job control. See tty_ioctl(4).
"""

from __future__ import annotations

import fcntl
import os
import signal
import termios


def find_terminal() -> int | None:
    """Return the first of the three standard descriptors that is a terminal."""
    return next((number for number in (0, 1, 2) if os.isatty(number)), None)


def release(terminal: int) -> None:
    """Give the terminal up, in init, before the child is made; all signals must be blocked.

    When a session leader does this, the kernel sends HUP and CONT to the foreground group, which is ours: those two are
    taken back, as they say nothing to the child. One that was pending before stays.
    """
    pending = signal.sigpending()
    try:
        fcntl.ioctl(terminal, termios.TIOCNOTTY)
    except OSError:
        return  # not our controlling terminal
    for number in {signal.SIGHUP, signal.SIGCONT} - pending:
        signal.sigtimedwait({number}, 0)


def take(terminal: int) -> None:
    """Make the terminal that of this new session, in the child, after setsid(2) and before its exec."""
    try:
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)  # 0: never steal it from another session
    except OSError:
        return  # an outer session holds it
