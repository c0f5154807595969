"""SHELL: signals that reach the launcher and are meant for its session's PID 1.

They are blocked and read from a signalfd(2), which tells who sent each: a terminal's Ctrl-C went to the child as well
and must not arrive twice. The kernel drops a signal for a namespace's init that has neither a handler for it nor has it
blocked (pid_namespaces(7)), so nothing is sent until the child shows in /proc that it takes SIGTERM. No process group
is touched.

A SIGHUP is the session's where it means that a terminal has gone, and the launcher's own where there is none.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Callable

from codingagents.trust.errors import ProcessError

FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
# SIGHUP is not among them: a hang-up may reach only the session's leader, and twice does no harm. A shell that hears of
# one sends it on by kill(2), so it is not the sender that tells what a SIGHUP means.
_FROM_TERMINAL = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH})
_RETRY_SECONDS = 0.01  # Python needs some 30 ms from exec to its first line
_SI_KERNEL = 0x80
_SIGSET_BYTES = 128  # glibc's sigset_t
_SIGINFO = struct.Struct("=IiI116x")  # struct signalfd_siginfo: ssi_signo, ssi_errno, ssi_code, and what is not needed
_MAX_READ = 16

_libc = ctypes.CDLL(None, use_errno=True)


class Forwarder:
    """Blocks the forwarded signals from its making on; they stay blocked, for a launcher has nothing to do after."""

    def __init__(self) -> None:
        """Block and begin to collect. Signals that were ignored when we started (nohup, background jobs) stay so."""
        numbers = [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
        self.inherited_mask = [signal.Signals(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, numbers)]
        mask = ctypes.create_string_buffer(_SIGSET_BYTES)
        for number in numbers:
            _libc.sigaddset(mask, number)
        self._fd = int(_libc.signalfd(-1, mask, os.O_CLOEXEC | os.O_NONBLOCK))
        if self._fd < 0:
            raise ProcessError(f"cannot make a signalfd: {os.strerror(ctypes.get_errno())}")
        # Of now: a terminal that has gone is no controlling terminal any more.
        self._has_terminal = has_controlling_terminal()
        self._hung_up: Callable[[], None] = lambda: None
        self._pending: list[int] = []
        self._pid = self._pidfd = -1
        self._taken = False  # the child takes signals

    def aim(self, pid: int, pidfd: int, hung_up: Callable[[], None]) -> None:
        """Say who gets the signals: our child `pid`, not yet waited for; and what a SIGHUP of our own does."""
        self._pid, self._pidfd = pid, pidfd
        self._hung_up = hung_up

    def fileno(self) -> int:
        """Return the descriptor that is readable when a signal has come."""
        return self._fd

    @property
    def retry_seconds(self) -> float | None:
        """When to call `forward` again without being woken."""
        return _RETRY_SECONDS if self._pending else None

    def forward(self) -> None:
        """Collect what has come and send what the child can take."""
        try:
            data = os.read(self._fd, _SIGINFO.size * _MAX_READ)
        except BlockingIOError:
            data = b""
        for number, _, code in _SIGINFO.iter_unpack(data):
            if number == signal.SIGHUP and not self._has_terminal:
                self._hung_up()
            elif not (code == _SI_KERNEL and number in _FROM_TERMINAL and os.getpgid(self._pid) == os.getpgrp()):
                self._pending.append(number)
        if self._pending and (self._taken or _takes_signals(self._pid)):
            self._taken = True
            for number in self._pending:
                signal.pidfd_send_signal(self._pidfd, number)
            self._pending.clear()

    def close(self) -> None:
        """Stop collecting."""
        os.close(self._fd)


def has_controlling_terminal() -> bool:
    """Return whether this process has one (proc(5), stat, tty_nr)."""
    with open("/proc/self/stat", "rb") as file:
        # The name in parentheses may hold anything; after it come state, ppid, pgrp, session, tty_nr.
        return file.read().rpartition(b")")[2].split()[4] != b"0"


def _takes_signals(pid: int) -> bool:
    """Return whether `pid` blocks or handles SIGTERM (proc(5), SigBlk and SigCgt), or is already a zombie."""
    with open(f"/proc/{pid}/status", "rb") as status:
        fields = dict(line.split(b":\t", 1) for line in status.read().splitlines() if b":\t" in line)
    if fields[b"State"].startswith(b"Z"):
        return True
    bit = 1 << (signal.SIGTERM - 1)
    return bool((int(fields[b"SigBlk"], 16) | int(fields[b"SigCgt"], 16)) & bit)
